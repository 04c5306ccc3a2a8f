package sandboxhttp_test

import (
	"context"
	"io/fs"
	"os"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// placeFiles are this machine's, as long as the sandbox lives.
type placeFiles struct{ box *placeBox }

// placeFile is an open file that is gone with its sandbox.
type placeFile struct {
	*os.File
	box *placeBox
}

func (f placeFile) Read(p []byte) (int, error) {
	if err := f.box.over(); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (p placeFiles) OpenFile(_ context.Context, name string, flag int, perm fs.FileMode) (driver.File, error) {
	if err := p.box.over(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return placeFile{f, p.box}, nil
}

func (p placeFiles) Stat(_ context.Context, name string) (fs.FileInfo, error) {
	if err := p.box.over(); err != nil {
		return nil, err
	}
	return os.Stat(name)
}

func (p placeFiles) Lstat(_ context.Context, name string) (fs.FileInfo, error) {
	if err := p.box.over(); err != nil {
		return nil, err
	}
	return os.Lstat(name)
}

func (p placeFiles) ReadDir(_ context.Context, name string) (list []fs.FileInfo, err error) {
	if err := p.box.over(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(name)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			list = append(list, info)
		}
	}
	return list, err
}

// The rest is not asked for.

func (placeFiles) ReadLink(_ context.Context, name string) (string, error) { return os.Readlink(name) }

func (placeFiles) Mkdir(_ context.Context, name string, perm fs.FileMode) error {
	return os.Mkdir(name, perm)
}

func (placeFiles) MkdirAll(_ context.Context, name string, perm fs.FileMode) error {
	return os.MkdirAll(name, perm)
}

func (placeFiles) Rename(_ context.Context, from, to string) error { return os.Rename(from, to) }
func (placeFiles) Remove(_ context.Context, name string) error     { return os.Remove(name) }
func (placeFiles) RemoveAll(_ context.Context, name string) error  { return os.RemoveAll(name) }

func (placeFiles) Symlink(_ context.Context, target, name string) error {
	return os.Symlink(target, name)
}

func (placeFiles) Chmod(_ context.Context, name string, mode fs.FileMode) error {
	return os.Chmod(name, mode)
}

func (placeFiles) Chtimes(_ context.Context, name string, atime, mtime time.Time) error {
	return os.Chtimes(name, atime, mtime)
}
