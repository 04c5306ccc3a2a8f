//go:build linux && (amd64 || arm64)

package setup

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/helper"
)

// dropRights gives up capabilities for good: all of them, or with root all but
// those that the root of an image keeps.
func dropRights(root bool) error {
	var keep uint64
	if root {
		keep = helper.RootRights | helper.OwnRights
	}
	for c := uintptr(0); c <= 63; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			if errors.Is(err, unix.EINVAL) {
				break // the kernel knows no more
			}
			return fmt.Errorf("bounding set: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("ambient set: %w", err)
	}
	if !root {
		const secureBits = 0xef // capabilities(7): every bit and lock but KEEP_CAPS itself
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, secureBits, 0, 0, 0); err != nil {
			return fmt.Errorf("secure bits: %w", err)
		}
	}
	return helper.SetRights(keep)
}
