package storage_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tick waits for the next tick of the kernel's clock, some milliseconds: a listing
// tells the time by it, and what was changed within the same tick is read again at the
// next Sync, as it could have been changed once more.
func tick(t testing.TB) {
	t.Helper()
	start := time.Now()
	for {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			t.Fatal(err)
		}
		if time.Unix(now.Unix()).After(start) {
			return
		}
	}
}
