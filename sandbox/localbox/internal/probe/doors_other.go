//go:build linux && !amd64

package probe

import "golang.org/x/sys/unix"

// The i386 and x32 doors are those of amd64.
func i386() error { return unix.ENOSYS }
func x32() error  { return unix.ENOSYS }

var elf386 []byte
