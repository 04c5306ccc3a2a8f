package sandbox

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// FS is a directory of a sandbox: an fs.FS with writing beside it. Names are
// those of package io/fs: slash-separated, without a leading slash, "." for the
// directory itself. Symbolic links are followed inside the sandbox, also out of
// the directory, and can name nothing outside the sandbox.
//
// What may be read and written is what the sandbox's user may. /proc, /sys and
// /dev are refused, and so is what is neither a file nor a directory. Errors
// are *fs.PathError, and match fs.ErrNotExist, fs.ErrExist and
// fs.ErrPermission. Its methods are safe for concurrent use and use the context
// that FS was made with.
type FS struct {
	sb   *Sandbox
	ctx  context.Context
	root string
}

var (
	_ fs.ReadDirFS  = (*FS)(nil)
	_ fs.ReadFileFS = (*FS)(nil)
	_ fs.StatFS     = (*FS)(nil)
	_ fs.ReadLinkFS = (*FS)(nil)
	_ fs.SubFS      = (*FS)(nil)
)

// FS gives the files of the sandbox's working directory, Dir.
func (s *Sandbox) FS(ctx context.Context) *FS { return s.FSAt(ctx, s.dir) }

// FSAt gives the files below dir, an absolute path inside; "/" for all of them.
func (s *Sandbox) FSAt(ctx context.Context, dir string) *FS {
	return &FS{sb: s, ctx: ctx, root: path.Clean("/" + dir)}
}

// abs checks a name and gives its absolute form.
func (f *FS) abs(op, name string) (string, error) {
	if !fs.ValidPath(name) || strings.ContainsRune(name, 0) {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return path.Join(f.root, name), nil
}

// do runs one operation on the absolute name.
func (f *FS) do(op, name string, fn func(abs string) error) error {
	abs, err := f.abs(op, name)
	if err != nil {
		return err
	}
	return pathError(op, name, fn(abs))
}

// pathError gives a driver's error the operation and the caller's own name.
func pathError(op, name string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		err = le.Err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Open opens a file or directory for reading.
func (f *FS) Open(name string) (fs.File, error) {
	file, err := f.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if !info.IsDir() {
		return file, nil
	}
	return &dirFile{File: file, fsys: f}, nil
}

// OpenFile opens a file with the flags of package os; perm is for one it makes.
// The caller closes it.
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (*File, error) {
	var file *File
	err := f.do("open", name, func(abs string) error {
		d, err := f.sb.driver.Files().OpenFile(f.ctx, abs, flag, perm)
		if err == nil {
			file = &File{driver: d, name: name}
		}
		return err
	})
	return file, err
}

// Create makes or empties a file and opens it for reading and writing.
func (f *FS) Create(name string) (*File, error) {
	return f.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// ReadFile reads a whole file.
func (f *FS) ReadFile(name string) ([]byte, error) {
	file, err := f.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(file)
	return data, pathError("read", name, errors.Join(err, file.Close()))
}

// WriteFile writes a whole file, making it with perm or emptying it first. A
// failure half way can leave part of the data: write to another name and
// Rename where that matters.
func (f *FS) WriteFile(name string, data []byte, perm fs.FileMode) error {
	file, err := f.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return pathError("write", name, errors.Join(err, file.Close()))
}

// Stat describes a file, following links.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	return f.stat("stat", name, driver.FileSystem.Stat)
}

// Lstat describes a file, a link as itself.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	return f.stat("lstat", name, driver.FileSystem.Lstat)
}

func (f *FS) stat(op, name string, fn func(driver.FileSystem, context.Context, string) (fs.FileInfo, error)) (fs.FileInfo, error) {
	var info fs.FileInfo
	err := f.do(op, name, func(abs string) (err error) {
		info, err = fn(f.sb.driver.Files(), f.ctx, abs)
		return err
	})
	if err != nil {
		return nil, err
	}
	return named{info, path.Base(name)}, nil
}

// named is a FileInfo under the name it was asked for: "." for the root.
type named struct {
	fs.FileInfo
	name string
}

func (n named) Name() string { return n.name }

// ReadLink returns where a symbolic link points to, as it was written.
func (f *FS) ReadLink(name string) (string, error) {
	var target string
	err := f.do("readlink", name, func(abs string) (err error) {
		target, err = f.sb.driver.Files().ReadLink(f.ctx, abs)
		return err
	})
	return target, err
}

// ReadDir lists a directory, sorted by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	var entries []fs.DirEntry
	err := f.do("readdir", name, func(abs string) error {
		infos, err := f.sb.driver.Files().ReadDir(f.ctx, abs)
		for _, info := range infos {
			entries = append(entries, fs.FileInfoToDirEntry(info))
		}
		return err
	})
	return entries, err
}

// Sub gives the files below dir; the result is a *FS.
func (f *FS) Sub(dir string) (fs.FS, error) {
	abs, err := f.abs("sub", dir)
	if err != nil {
		return nil, err
	}
	return &FS{sb: f.sb, ctx: f.ctx, root: abs}, nil
}

// Mkdir makes a directory.
func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	return f.do("mkdir", name, func(abs string) error { return f.sb.driver.Files().Mkdir(f.ctx, abs, perm) })
}

// MkdirAll makes a directory and those above it; one that is there is no error.
func (f *FS) MkdirAll(name string, perm fs.FileMode) error {
	return f.do("mkdir", name, func(abs string) error { return f.sb.driver.Files().MkdirAll(f.ctx, abs, perm) })
}

// Rename moves a file or directory, replacing a file that is there.
func (f *FS) Rename(from, to string) error {
	absTo, err := f.abs("rename", to)
	if err != nil {
		return err
	}
	return f.do("rename", from, func(abs string) error { return f.sb.driver.Files().Rename(f.ctx, abs, absTo) })
}

// Remove removes a file or an empty directory.
func (f *FS) Remove(name string) error {
	return f.do("remove", name, func(abs string) error { return f.sb.driver.Files().Remove(f.ctx, abs) })
}

// RemoveAll removes a file or directory with all it holds; none is no error.
// Links are removed, not followed.
func (f *FS) RemoveAll(name string) error {
	return f.do("removeall", name, func(abs string) error { return f.sb.driver.Files().RemoveAll(f.ctx, abs) })
}

// Symlink makes a symbolic link that points to target, which is not checked.
func (f *FS) Symlink(target, name string) error {
	return f.do("symlink", name, func(abs string) error { return f.sb.driver.Files().Symlink(f.ctx, target, abs) })
}

// Chmod changes a file's permissions.
func (f *FS) Chmod(name string, mode fs.FileMode) error {
	return f.do("chmod", name, func(abs string) error { return f.sb.driver.Files().Chmod(f.ctx, abs, mode) })
}

// Chtimes changes a file's access and modification times.
func (f *FS) Chtimes(name string, atime, mtime time.Time) error {
	return f.do("chtimes", name, func(abs string) error { return f.sb.driver.Files().Chtimes(f.ctx, abs, atime, mtime) })
}

// File is an open file of a sandbox. It stays usable while the sandbox runs.
type File struct {
	driver driver.File
	name   string
}

var _ interface {
	fs.File
	io.Writer
	io.Seeker
	io.ReaderAt
} = (*File)(nil)

// Name is the name it was opened by.
func (f *File) Name() string { return f.name }

// Stat describes the file.
func (f *File) Stat() (fs.FileInfo, error) {
	info, err := f.driver.Stat()
	if err != nil {
		return nil, pathError("stat", f.name, err)
	}
	return named{info, path.Base(f.name)}, nil
}

// Read reads from where the last Read, Write or Seek ended.
func (f *File) Read(p []byte) (int, error) {
	n, err := f.driver.Read(p)
	return n, pathError("read", f.name, err)
}

// ReadAt reads from an offset in bytes.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.driver.ReadAt(p, off)
	return n, pathError("read", f.name, err)
}

// Write writes all of p, or returns an error; a full disk matches syscall.ENOSPC.
func (f *File) Write(p []byte) (int, error) {
	n, err := f.driver.Write(p)
	return n, pathError("write", f.name, err)
}

// Seek moves to an offset, as io.Seeker says.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	n, err := f.driver.Seek(offset, whence)
	return n, pathError("seek", f.name, err)
}

// Close closes the file. Closing it again matches fs.ErrClosed.
func (f *File) Close() error { return pathError("close", f.name, f.driver.Close()) }

// dirFile is an open directory; its entries are read when first asked for.
type dirFile struct {
	*File
	fsys    *FS
	entries []fs.DirEntry
	read    bool
	closed  bool
}

// Close closes the directory.
func (d *dirFile) Close() error {
	d.closed = true
	return d.File.Close()
}

// Read fails: it is a directory.
func (d *dirFile) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("is a directory")}
}

// ReadDir reads n entries, or the rest, as fs.ReadDirFile says.
func (d *dirFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if d.closed {
		return nil, &fs.PathError{Op: "readdir", Path: d.name, Err: fs.ErrClosed}
	}
	if !d.read {
		entries, err := d.fsys.ReadDir(d.name)
		if err != nil {
			return nil, err
		}
		d.entries, d.read = entries, true
	}
	if n <= 0 {
		all := d.entries
		d.entries = nil
		return all, nil
	}
	if len(d.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.entries))
	part := d.entries[:n]
	d.entries = d.entries[n:]
	return part, nil
}
