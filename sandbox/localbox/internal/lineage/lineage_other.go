//go:build unix && !linux

package lineage

import (
	"errors"
	"time"
)

// Set fails: this system has no limit that can carry the mark.
func Set(Tag, uint64) error { return errors.ErrUnsupported }

// Processes fails, as Set does.
func Processes(func(limit uint64) bool) ([]int, error) { return nil, errors.ErrUnsupported }

// Kill fails, as Set does.
func Kill(func(limit uint64) bool, time.Duration) (int, error) { return 0, errors.ErrUnsupported }
