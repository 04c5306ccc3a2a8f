package sandboxtest

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// faultyFiles counts every operation as OpFile.
type faultyFiles struct {
	fsys driver.FileSystem
	sb   *faultySandbox
}

var _ driver.FileSystem = (*faultyFiles)(nil)

func (f *faultyFiles) do(ctx context.Context, act func() error) error {
	return f.sb.do(ctx, OpFile, func(Fault) error { return act() })
}

// get is do for an operation that answers something.
func get[T any](ctx context.Context, f *faultyFiles, act func() (T, error)) (T, error) {
	var got, none T
	err := f.do(ctx, func() (err error) {
		got, err = act()
		return err
	})
	if err != nil {
		return none, err
	}
	return got, nil
}

func (f *faultyFiles) OpenFile(ctx context.Context, name string, flag int, perm fs.FileMode) (driver.File, error) {
	var file driver.File
	err := f.do(ctx, func() (err error) {
		file, err = f.fsys.OpenFile(ctx, name, flag, perm)
		return err
	})
	if err != nil && file != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, err
}

func (f *faultyFiles) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	return get(ctx, f, func() (fs.FileInfo, error) { return f.fsys.Stat(ctx, name) })
}

func (f *faultyFiles) Lstat(ctx context.Context, name string) (fs.FileInfo, error) {
	return get(ctx, f, func() (fs.FileInfo, error) { return f.fsys.Lstat(ctx, name) })
}

func (f *faultyFiles) ReadDir(ctx context.Context, name string) ([]fs.FileInfo, error) {
	return get(ctx, f, func() ([]fs.FileInfo, error) { return f.fsys.ReadDir(ctx, name) })
}

func (f *faultyFiles) ReadLink(ctx context.Context, name string) (string, error) {
	return get(ctx, f, func() (string, error) { return f.fsys.ReadLink(ctx, name) })
}

func (f *faultyFiles) Mkdir(ctx context.Context, name string, perm fs.FileMode) error {
	return f.do(ctx, func() error { return f.fsys.Mkdir(ctx, name, perm) })
}

func (f *faultyFiles) MkdirAll(ctx context.Context, name string, perm fs.FileMode) error {
	return f.do(ctx, func() error { return f.fsys.MkdirAll(ctx, name, perm) })
}

func (f *faultyFiles) Rename(ctx context.Context, from, to string) error {
	return f.do(ctx, func() error { return f.fsys.Rename(ctx, from, to) })
}

func (f *faultyFiles) Remove(ctx context.Context, name string) error {
	return f.do(ctx, func() error { return f.fsys.Remove(ctx, name) })
}

func (f *faultyFiles) RemoveAll(ctx context.Context, name string) error {
	return f.do(ctx, func() error { return f.fsys.RemoveAll(ctx, name) })
}

func (f *faultyFiles) Symlink(ctx context.Context, target, name string) error {
	return f.do(ctx, func() error { return f.fsys.Symlink(ctx, target, name) })
}

func (f *faultyFiles) Chmod(ctx context.Context, name string, mode fs.FileMode) error {
	return f.do(ctx, func() error { return f.fsys.Chmod(ctx, name, mode) })
}

func (f *faultyFiles) Chtimes(ctx context.Context, name string, atime, mtime time.Time) error {
	return f.do(ctx, func() error { return f.fsys.Chtimes(ctx, name, atime, mtime) })
}
