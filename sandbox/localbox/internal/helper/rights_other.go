//go:build unix && !linux

package helper

import "errors"

// forker is for sandboxes with an image, which this system has not.
type forker struct{}

func newForker() (*forker, error) { return nil, errors.ErrUnsupported }

func (*forker) run(fork func() (int, error)) (int, error) { return fork() }
