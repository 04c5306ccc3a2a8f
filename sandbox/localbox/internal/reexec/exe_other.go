//go:build unix && !linux

package reexec

import "os"

// Executable is the path from which this program is started again.
func Executable() (string, error) { return os.Executable() }
