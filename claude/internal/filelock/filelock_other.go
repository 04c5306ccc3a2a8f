//go:build !unix || solaris || aix

package filelock

import (
	"errors"
	"os"
)

// Try fails: this platform has no such locks. The error matches
// [errors.ErrUnsupported].
func Try(path string) (unlock func(), err error) {
	return nil, &os.PathError{Op: "lock", Path: path, Err: errors.ErrUnsupported}
}
