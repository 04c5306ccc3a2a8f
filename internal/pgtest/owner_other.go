//go:build !linux

package pgtest

import "syscall"

// owner is who runs a server: who runs the tests, who must not be root.
type owner struct{}

func anOwner() (owner, error) { return owner{}, nil }

func (owner) take(string) error { return nil }

func (owner) attributes() *syscall.SysProcAttr { return nil }
