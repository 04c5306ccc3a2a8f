// Package dirbucket keeps a storage.Bucket in a local directory: the embedded
// default, for one machine.
//
// Each object is a file. Everything goes through os.Root, so no key and no
// symbolic link in the directory leads out of it. Several processes may use the
// same directory at once.
package dirbucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/storage"
)

// Options change how a Bucket works. The zero value, like nil, means the defaults
// given with each field.
type Options struct {
	// NoSync leaves out the fsync of files and directories. Puts are then faster
	// and still atomic, but those of the last moments may be lost when the
	// machine itself stops. Zero: a Put that returned is on the disk.
	NoSync bool
}

// Bucket is a storage.Bucket in a directory. It is safe for concurrent use. Close
// it when done.
type Bucket struct {
	root    *os.Root
	noSync  bool
	durable sync.Map // directories whose own names are on the disk, in the parents'
}

var _ storage.Bucket = (*Bucket)(nil)

// scratch holds objects while they are written. No key maps to it: a key's
// directories end in "+".
const scratch = ".put"

// scratchLife is after how long without a write a file in scratch is taken for
// the leaving of a process that died.
const scratchLife = 24 * time.Hour

// Open opens the bucket in dir, and makes the directory (with mode 0700) if it is
// absent. The file system must have hard links. opts may be nil. Files that
// unfinished Puts left there more than a day ago are removed.
func Open(dir string, opts *Options) (*Bucket, error) {
	b, err := open(dir, opts)
	if err != nil {
		return nil, fmt.Errorf("dirbucket: %w", err)
	}
	return b, nil
}

func open(dir string, opts *Options) (*Bucket, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	b := &Bucket{root: root}
	if opts != nil {
		b.noSync = opts.NoSync
	}
	if err := b.sweep(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return b, nil
}

// Close lets go of the directory. Calls after it fail.
func (b *Bucket) Close() error { return b.root.Close() }

// sweep makes the scratch directory, or removes what is stale in it.
func (b *Bucket) sweep() error {
	err := b.root.Mkdir(scratch, 0o700)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := fs.ReadDir(b.root.FS(), scratch)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || time.Since(info.ModTime()) < scratchLife {
			continue
		}
		if err := b.root.Remove(path.Join(scratch, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// named wraps an error with the operation and the key, in place of the file's
// name.
func named(op, key string, err error) error {
	var inner *fs.PathError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		err = link.Err
	}
	return &fs.PathError{Op: "dirbucket: " + op, Path: key, Err: err}
}

// Get implements storage.Bucket.
func (b *Bucket) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, named("get", key, fs.ErrInvalid)
	}
	f, _, err := b.openObject(key)
	if err != nil {
		return nil, named("get", key, err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(named("get", key, err), f.Close())
	}
	var r io.Reader = f
	if length >= 0 {
		r = io.LimitReader(f, length)
	}
	return &reader{ctx: ctx, r: r, f: f}, nil
}

// openObject opens a key's file. O_NONBLOCK keeps a FIFO that someone put there
// from blocking the open.
func (b *Bucket) openObject(key string) (*os.File, fs.FileInfo, error) {
	f, err := b.root.OpenFile(fileName(key), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// reader is an open object.
type reader struct {
	ctx context.Context // of the Get, which promises to end the stream with it
	r   io.Reader
	f   *os.File
}

func (r *reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (r *reader) Close() error { return r.f.Close() }

// Stat implements storage.Bucket.
func (b *Bucket) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := check(ctx, key); err != nil {
		return storage.Object{}, err
	}
	info, err := b.root.Lstat(fileName(key))
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return storage.Object{}, named("stat", key, err)
	}
	return object(key, info), nil
}

func object(key string, info fs.FileInfo) storage.Object {
	return storage.Object{Key: key, Size: info.Size(), Modified: info.ModTime().UTC()}
}

// Put implements storage.Bucket. It writes a file beside the objects and then
// renames it, or links it where the key must be absent.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, opts *storage.PutOptions) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	if err := opts.Check(); err != nil {
		return named("put", key, err)
	}
	ifAbsent := opts != nil && opts.IfAbsent
	if ifAbsent { // spares the writing where the answer is known
		if _, err := b.root.Lstat(fileName(key)); err == nil {
			return named("put", key, fs.ErrExist)
		}
	}
	temp := path.Join(scratch, rand.Text())
	err := b.writeFile(temp, opts.Body(&cancellable{ctx, r}))
	if err == nil {
		err = b.place(temp, fileName(key), ifAbsent)
	}
	if err != nil {
		return errors.Join(named("put", key, err), b.dropScratch(temp))
	}
	return nil
}

// dropScratch removes a scratch file, where it was not renamed already.
func (b *Bucket) dropScratch(temp string) error {
	if err := b.root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// copyBuffers holds buffers of a size at which writing is fast.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

func (b *Bucket) writeFile(name string, r io.Reader) (err error) {
	f, err := b.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, r, *buf); err != nil {
		return err
	}
	if b.noSync {
		return nil
	}
	return f.Sync()
}

// cancellable is a reader that ends with its context.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if cause := context.Cause(c.ctx); cause != nil && errors.Is(err, io.EOF) {
		err = cause
	}
	return n, err
}

// place makes a written file the object called name.
func (b *Bucket) place(temp, name string, ifAbsent bool) error {
	dir := path.Dir(name)
	if _, err := b.root.Lstat(dir); err != nil {
		b.durable.Delete(dir) // someone removed it, or it was never made
		if err := b.root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if !ifAbsent {
		if err := b.root.Rename(temp, name); err != nil {
			return err
		}
		return b.syncDirs(dir)
	}
	if err := b.root.Link(temp, name); err != nil {
		return err
	}
	if err := b.root.Remove(temp); err != nil {
		return err
	}
	return b.syncDirs(dir)
}

// syncDirs makes a new name last: the directory that has it and, as another Put
// of any process may just have made one of them, all above. Once that was done,
// only the directory itself has news.
func (b *Bucket) syncDirs(dir string) error {
	if b.noSync {
		return nil
	}
	if _, ok := b.durable.Load(dir); ok {
		return b.syncDir(dir)
	}
	for at := dir; ; at = path.Dir(at) {
		if err := b.syncDir(at); err != nil {
			return err
		}
		if at == "." {
			b.durable.Store(dir, true)
			return nil
		}
	}
}

func (b *Bucket) syncDir(dir string) error {
	f, err := b.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Delete implements storage.Bucket.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	name := fileName(key)
	err := b.root.Remove(name)
	if err == nil {
		err = b.syncDirs(path.Dir(name))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return named("delete", key, err)
	}
	return nil
}

// List implements storage.Bucket. It reads one directory at a time, so objects
// that come or go meanwhile may be listed or not.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		if err := context.Cause(ctx); err != nil {
			yield(storage.Object{}, err)
			return
		}
		_ = b.walk(ctx, ".", "", prefix, yield) // yield has had its error
	}
}

func check(ctx context.Context, key string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return storage.CheckKey(key)
}
