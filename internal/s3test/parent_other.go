//go:build !linux

package s3test

import "syscall"

// endWithParent makes the server end when the test process is killed, on Linux.
func endWithParent() *syscall.SysProcAttr { return nil }
