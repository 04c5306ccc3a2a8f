//go:build unix && !linux

package helper

import (
	"os"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// maxrssUnit is the unit of ru_maxrss (getrusage(2)).
const maxrssUnit = 1

func hide() error { return nil }

func ignoreSignals() {}

func warmThreads() {}

func openTerminal(bool, uint16, uint16) (master, slave int, err error) {
	return -1, -1, &driver.UnsupportedError{Setting: "Exec.TTY", Reason: "only on Linux"}
}

// mkfifoAt leaves the FIFO out: this system cannot make one below an open directory.
func mkfifoAt(*os.File, string, uint32) error { return nil }
