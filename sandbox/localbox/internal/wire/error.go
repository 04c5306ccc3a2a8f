//go:build unix

package wire

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// sentinels are the errors that keep their meaning over the wire, by position.
var sentinels = []error{
	nil,
	exec.ErrNotFound,
	fs.ErrNotExist,
	fs.ErrExist,
	fs.ErrPermission,
	driver.ErrNotFound,
	driver.ErrEnded,
	driver.ErrNameInUse,
	driver.ErrExhausted,
	driver.ErrInvalid,
	driver.ErrUnavailable,
	driver.ErrNoIsolation,
	errors.ErrUnsupported,
	fs.ErrInvalid,
	context.Canceled,
	os.ErrProcessDone,
}

// Error is an error that came over the wire. It matches the sentinel and the
// system's error number that the original matched.
type Error struct {
	Text  string
	Errno syscall.Errno
	kind  uint8
}

// NewError takes err apart; nil stays nil.
func NewError(err error) *Error {
	if err == nil {
		return nil
	}
	e := &Error{Text: err.Error()}
	errors.As(err, &e.Errno)
	for i, s := range sentinels {
		if s != nil && errors.Is(err, s) {
			e.kind = uint8(i)
			break
		}
	}
	if e.kind == 0 && e.Errno == syscall.EROFS {
		e.kind = kindOf(fs.ErrPermission)
	}
	return e
}

func kindOf(target error) uint8 {
	for i, s := range sentinels {
		if s == target {
			return uint8(i)
		}
	}
	return 0
}

func (e *Error) Error() string { return e.Text }

// Is reports whether the original error matched target.
func (e *Error) Is(target error) bool {
	if e.kind != 0 && int(e.kind) < len(sentinels) && target == sentinels[e.kind] {
		return true
	}
	return e.Errno != 0 && errors.Is(e.Errno, target)
}

// As gives the system's error number.
func (e *Error) As(target any) bool {
	if p, ok := target.(*syscall.Errno); ok && e.Errno != 0 {
		*p = e.Errno
		return true
	}
	return false
}

// Walk implements Message.
func (e *Error) Walk(c *Codec) {
	c.String(&e.Text)
	n := int64(e.Errno)
	Int(c, &n)
	e.Errno = syscall.Errno(n)
	Int(c, &e.kind)
}
