//go:build unix && !linux

package helper

import "errors"

func mappedUsers() uint64 { return 1 }

func (*box) startWorkers(*identity) error { return errors.ErrUnsupported }

func (*box) ownDir(*identity) error { return errors.ErrUnsupported }
