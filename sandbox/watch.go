package sandbox

import (
	"errors"
	"io/fs"
	"iter"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Change is something that happened to files, with absolute names.
type Change = driver.Change

// ChangeOp is what happened.
type ChangeOp = driver.ChangeOp

// What can happen to a file.
const (
	ChangeCreate   = driver.ChangeCreate   // made
	ChangeModify   = driver.ChangeModify   // its content or its metadata changed
	ChangeRemove   = driver.ChangeRemove   // removed
	ChangeRename   = driver.ChangeRename   // moved: the old and the new name, "" for one that is not watched
	ChangeAccess   = driver.ChangeAccess   // opened or read
	ChangeOverflow = driver.ChangeOverflow // some changes were lost: look again
)

// Watch reports what happens to a file or directory, and with recursive to all
// below it. It returns once changes are seen. The sequence may be ranged over
// once and ends with an error: that of the FS's context, fs.ErrNotExist when
// what is watched is gone, ErrEnded with the sandbox; ceasing to range ends the
// watch. Matches errors.ErrUnsupported where the driver cannot.
func (f *FS) Watch(name string, recursive bool) (iter.Seq2[Change, error], error) {
	d, ok := f.sb.driver.(driver.Watcher)
	if !ok {
		return nil, &fs.PathError{Op: "watch", Path: name, Err: errors.ErrUnsupported}
	}
	var seq iter.Seq2[Change, error]
	err := f.do("watch", name, func(abs string) (err error) {
		seq, err = d.Watch(f.ctx, abs, recursive)
		return err
	})
	return seq, err
}
