//go:build unix && !linux

package helper

import "errors"

func (*box) saveLayer([]int) error { return errors.ErrUnsupported }

func (*box) saveBelow([]int, string) error { return errors.ErrUnsupported }
