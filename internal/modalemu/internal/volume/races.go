package volume

import (
	"errors"
	"io/fs"
	"syscall"
)

// gone reports whether err says that a name of a copy is not there any more, or
// has become something else: the sandbox goes on while its copy is looked at. The
// next commit sees what it has become.
func gone(err error) bool {
	if err == nil {
		return false
	}
	for _, e := range []error{fs.ErrNotExist, syscall.ENOTDIR, syscall.ELOOP, syscall.ESTALE, errChanged} {
		if errors.Is(err, e) {
			return true
		}
	}
	// os.Root's own error for a link that leads outside has no name.
	for ; err != nil; err = errors.Unwrap(err) {
		if err.Error() == "path escapes from parent" {
			return true
		}
	}
	return false
}

// occupied reports whether err says that something unexpected has a name.
func occupied(err error) bool {
	return errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EISDIR)
}

// errChanged: a name is not what it was when it was looked at.
var errChanged = errors.New("changed meanwhile")
