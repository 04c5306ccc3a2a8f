//go:build unix

package localbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// Files implements driver.Sandbox.
func (b *box) Files() driver.FileSystem { return files{b} }

// files implements driver.FileSystem: the helper opens and answers, this
// process reads and writes what was opened.
type files struct{ box *box }

// ask sends a request about files.
func (f files) ask(ctx context.Context, req *wire.Request) (*wire.Reply, error) {
	r, fds, err := f.box.call(ctx, req, nil)
	wire.CloseFDs(fds)
	return r, err
}

func (f files) do(ctx context.Context, req *wire.Request) error {
	_, err := f.ask(ctx, req)
	return err
}

// OpenFile implements driver.FileSystem.
func (f files) OpenFile(ctx context.Context, name string, flag int, perm fs.FileMode) (driver.File, error) {
	req := &wire.Request{Op: wire.OpOpen, Path: name, Num: int64(flag), Mode: perm}
	_, fds, err := f.box.call(ctx, req, nil)
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		wire.CloseFDs(fds)
		return nil, fmt.Errorf("%d descriptors came with a file", len(fds))
	}
	file := os.NewFile(uintptr(fds[0]), name)
	// The helper has looked already; this side does not depend on it.
	info, err := file.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		return &directory{file: file, files: f, name: name}, nil
	case info.Mode().IsRegular():
		return file, nil
	default:
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return nil, errors.Join(err, file.Close())
}

func (f files) stat(ctx context.Context, op wire.Op, name string) (fs.FileInfo, error) {
	r, err := f.ask(ctx, &wire.Request{Op: op, Path: name})
	if err != nil {
		return nil, err
	}
	if len(r.Infos) != 1 {
		return nil, errors.New("the helper did not describe the file")
	}
	return &r.Infos[0], nil
}

// Stat implements driver.FileSystem.
func (f files) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	return f.stat(ctx, wire.OpStat, name)
}

// Lstat implements driver.FileSystem.
func (f files) Lstat(ctx context.Context, name string) (fs.FileInfo, error) {
	return f.stat(ctx, wire.OpLstat, name)
}

// ReadDir implements driver.FileSystem.
func (f files) ReadDir(ctx context.Context, name string) ([]fs.FileInfo, error) {
	r, err := f.ask(ctx, &wire.Request{Op: wire.OpReadDir, Path: name})
	if err != nil {
		return nil, err
	}
	infos := make([]fs.FileInfo, len(r.Infos))
	for i := range r.Infos {
		infos[i] = &r.Infos[i]
	}
	return infos, nil
}

// ReadLink implements driver.FileSystem.
func (f files) ReadLink(ctx context.Context, name string) (string, error) {
	r, err := f.ask(ctx, &wire.Request{Op: wire.OpReadLink, Path: name})
	if err != nil {
		return "", err
	}
	return r.Text, nil
}

// Mkdir implements driver.FileSystem.
func (f files) Mkdir(ctx context.Context, name string, perm fs.FileMode) error {
	return f.do(ctx, &wire.Request{Op: wire.OpMkdir, Path: name, Mode: perm})
}

// MkdirAll implements driver.FileSystem.
func (f files) MkdirAll(ctx context.Context, name string, perm fs.FileMode) error {
	return f.do(ctx, &wire.Request{Op: wire.OpMkdirAll, Path: name, Mode: perm})
}

// Rename implements driver.FileSystem.
func (f files) Rename(ctx context.Context, from, to string) error {
	return f.do(ctx, &wire.Request{Op: wire.OpRename, Path: from, Path2: to})
}

// Remove implements driver.FileSystem.
func (f files) Remove(ctx context.Context, name string) error {
	return f.do(ctx, &wire.Request{Op: wire.OpRemove, Path: name})
}

// RemoveAll implements driver.FileSystem.
func (f files) RemoveAll(ctx context.Context, name string) error {
	return f.do(ctx, &wire.Request{Op: wire.OpRemoveAll, Path: name})
}

// Symlink implements driver.FileSystem.
func (f files) Symlink(ctx context.Context, target, name string) error {
	return f.do(ctx, &wire.Request{Op: wire.OpSymlink, Path: name, Path2: target})
}

// Chmod implements driver.FileSystem.
func (f files) Chmod(ctx context.Context, name string, mode fs.FileMode) error {
	return f.do(ctx, &wire.Request{Op: wire.OpChmod, Path: name, Mode: mode})
}

// Chtimes implements driver.FileSystem.
func (f files) Chtimes(ctx context.Context, name string, atime, mtime time.Time) error {
	return f.do(ctx, &wire.Request{Op: wire.OpChtimes, Path: name, Atime: atime.UnixNano(), Mtime: mtime.UnixNano()})
}

// directory is an open directory. Its descriptor is only looked at: what is in
// it is the helper's to say, since a name means something else out here.
type directory struct {
	file  *os.File
	files files
	name  string

	mu   sync.Mutex
	rest []fs.FileInfo
	read bool
}

func (d *directory) Stat() (fs.FileInfo, error) { return d.file.Stat() }
func (d *directory) Close() error               { return d.file.Close() }

func (d *directory) fail(op string) error {
	return &fs.PathError{Op: op, Path: d.name, Err: syscall.EISDIR}
}

func (d *directory) Read([]byte) (int, error)          { return 0, d.fail("read") }
func (d *directory) Write([]byte) (int, error)         { return 0, d.fail("write") }
func (d *directory) ReadAt([]byte, int64) (int, error) { return 0, d.fail("read") }
func (d *directory) Seek(int64, int) (int64, error)    { return 0, d.fail("seek") }

// ReadDir implements fs.ReadDirFile.
func (d *directory) ReadDir(n int) ([]fs.DirEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.read {
		infos, err := d.files.ReadDir(context.Background(), path.Clean(d.name))
		if err != nil {
			return nil, err
		}
		d.rest, d.read = infos, true
	}
	take := len(d.rest)
	if n > 0 {
		if take == 0 {
			return nil, io.EOF
		}
		take = min(n, take)
	}
	entries := make([]fs.DirEntry, 0, take)
	for _, info := range d.rest[:take] {
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	d.rest = slices.Delete(d.rest, 0, take)
	return entries, nil
}
