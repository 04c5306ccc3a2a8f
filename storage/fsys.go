package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// FS gives a version as a file system. Its listing is read now; contents are
// fetched when they are read, checked against their SHA-256, and a few MiB of them
// kept. It implements [fs.ReadDirFS], [fs.StatFS], [fs.ReadFileFS] and
// [fs.ReadLinkFS], and its files [io.ReaderAt] and [io.Seeker]; Sys of a file's
// info is a *[Entry]. Symbolic links are followed within the version; one that
// leads out of it matches fs.ErrNotExist. Names that are not UTF-8 are listed, and
// cannot be opened, as io/fs asks; Export has them all.
//
// It is safe for concurrent use, needs no closing, and works until ctx ends. An
// unknown id matches fs.ErrNotExist.
func (v *Volume) FS(ctx context.Context, id string) (fs.FS, error) {
	if v.err != nil {
		return nil, v.err
	}
	r, err := v.byID(ctx, id)
	if err != nil {
		return nil, v.fail("open", err)
	}
	k, err := v.load(ctx, r)
	if err != nil {
		return nil, v.fail("open", err)
	}
	return &fileSystem{v: v, ctx: ctx, tree: k.tree}, nil
}

// Entry describes a file of a version.
type Entry struct {
	// Path is slash-separated and relative; "" is the directory itself.
	Path string
	// Mode has the type, the permission bits and the sticky bit. A hard link is a
	// regular file here.
	Mode fs.FileMode
	// ModTime is the file's modification time, in UTC.
	ModTime time.Time
	// Size is a file's length in bytes, 0 of everything else.
	Size int64
	// Link is the target of a symbolic link, or the Path of the first name of a
	// file with several; "" otherwise.
	Link string
	// UID and GID are the numbers of owner and group in the sandbox.
	UID, GID uint32
}

func entryOf(t *tree.Tree, e *tree.Entry) *Entry {
	out := &Entry{
		Path: e.Path, Mode: modeOf(e.Mode), ModTime: time.Unix(e.Mtime.Sec, int64(e.Mtime.Nsec)).UTC(),
		Size: e.Size, Link: e.Link, UID: e.UID, GID: e.GID,
	}
	switch e.Kind {
	case tree.Dir:
		out.Mode |= fs.ModeDir
	case tree.Symlink:
		out.Mode |= fs.ModeSymlink
	case tree.Hardlink:
		if file := t.Find(e.Link); file != nil {
			out.Size = file.Size
		}
	}
	return out
}

// fileSystem is a version as an fs.FS.
type fileSystem struct {
	v    *Volume
	ctx  context.Context
	tree *tree.Tree

	mu     sync.Mutex
	frames []openedFrame // the one used last at the end
}

type openedFrame struct {
	frame   *tree.Frame
	data    []byte
	checked map[*tree.Blob]bool // blobs that are what was stored
}

// openFrames is how many unpacked frames a file system keeps.
const openFrames = 8

// maxLinks is how many symbolic links lead to one file at most.
const maxLinks = 40

// find gives the entry called name. With follow a symbolic link at its end is
// followed, too.
func (f *fileSystem) find(op, name string, follow bool) (*tree.Entry, error) {
	bad := func(err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return nil, bad(fs.ErrInvalid)
	}
	at, rest := "", name
	if name == "." {
		rest = ""
	}
	for links := 0; ; {
		if rest == "" {
			if e := f.tree.Find(at); e != nil {
				return e, nil
			}
			return nil, bad(fs.ErrNotExist)
		}
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		e := f.tree.Find(path.Join(at, part))
		switch {
		case e == nil:
			return nil, bad(fs.ErrNotExist)
		case e.Kind == tree.Symlink && (rest != "" || follow):
			if links++; links > maxLinks || path.IsAbs(e.Link) {
				return nil, bad(fs.ErrNotExist)
			}
			to := path.Join(at, e.Link, rest)
			if to == ".." || strings.HasPrefix(to, "../") {
				return nil, bad(fs.ErrNotExist)
			}
			if at, rest = "", to; to == "." {
				rest = ""
			}
		case rest != "" && e.Kind != tree.Dir:
			return nil, bad(fs.ErrNotExist)
		default:
			at = e.Path
		}
	}
}

// Open opens a file or a directory.
func (f *fileSystem) Open(name string) (fs.File, error) {
	e, err := f.find("open", name, true)
	if err != nil {
		return nil, err
	}
	info := f.info(e, path.Base(name))
	if e.Kind == tree.Dir {
		return &openDir{fsys: f, entry: e, info: info}, nil
	}
	return &openFile{fsys: f, name: name, info: info, chunks: f.chunks(e)}, nil
}

func (f *fileSystem) chunks(e *tree.Entry) []tree.Chunk {
	if e.Kind == tree.Hardlink {
		e = f.tree.Find(e.Link)
	}
	return e.Chunks
}

// Stat describes what name leads to.
func (f *fileSystem) Stat(name string) (fs.FileInfo, error) {
	e, err := f.find("stat", name, true)
	if err != nil {
		return nil, err
	}
	return f.info(e, path.Base(name)), nil
}

// Lstat describes name itself.
func (f *fileSystem) Lstat(name string) (fs.FileInfo, error) {
	e, err := f.find("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return f.info(e, path.Base(name)), nil
}

// ReadLink gives the target of a symbolic link.
func (f *fileSystem) ReadLink(name string) (string, error) {
	e, err := f.find("readlink", name, false)
	if err == nil && e.Kind != tree.Symlink {
		err = &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	if err != nil {
		return "", err
	}
	return e.Link, nil
}

// ReadFile reads a whole file.
func (f *fileSystem) ReadFile(name string) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	of, ok := file.(*openFile)
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	data := make([]byte, of.info.entry.Size)
	if _, err := of.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data, nil
}

// ReadDir lists a directory.
func (f *fileSystem) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := f.find("readdir", name, true)
	if err == nil && e.Kind != tree.Dir {
		err = &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	if err != nil {
		return nil, err
	}
	return f.list(e), nil
}

func (f *fileSystem) list(dir *tree.Entry) (all []fs.DirEntry) {
	entries := f.tree.Entries
	i := sort.Search(len(entries), func(i int) bool { return tree.ComparePaths(entries[i].Path, dir.Path) > 0 })
	for i < len(entries) && (dir.Path == "" || within(entries[i].Path, dir.Path)) {
		e := &entries[i]
		all = append(all, fs.FileInfoToDirEntry(f.info(e, path.Base(e.Path))))
		i++
		if e.Kind == tree.Dir { // what is in it comes next
			i += sort.Search(len(entries)-i, func(n int) bool { return !within(entries[i+n].Path, e.Path) })
		}
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all
}

func (f *fileSystem) info(e *tree.Entry, name string) *fileInfo {
	return &fileInfo{name: name, entry: entryOf(f.tree, e)}
}

type fileInfo struct {
	name  string
	entry *Entry
}

func (i *fileInfo) Name() string       { return i.name }
func (i *fileInfo) Size() int64        { return i.entry.Size }
func (i *fileInfo) Mode() fs.FileMode  { return i.entry.Mode }
func (i *fileInfo) ModTime() time.Time { return i.entry.ModTime }
func (i *fileInfo) IsDir() bool        { return i.entry.Mode.IsDir() }
func (i *fileInfo) Sys() any           { return i.entry }

// blob gives contents, which are checked once for as long as their frame is kept.
func (f *fileSystem) blob(b *tree.Blob) ([]byte, error) {
	data, checked := f.kept(b)
	if checked {
		return data, nil
	}
	where := func(err error) error {
		return fmt.Errorf("object %s, bytes %d to %d: %w", f.v.packKey(b.Frame.Pack.Name), b.Frame.Off, b.Frame.Off+b.Frame.Stored, err)
	}
	if data == nil {
		packed, err := f.v.getRange(f.ctx, f.v.packKey(b.Frame.Pack.Name), int64(b.Frame.Off), int64(b.Frame.Stored))
		if err != nil {
			return nil, err
		}
		if data, err = openFrame(b.Frame, packed); err != nil {
			return nil, where(err)
		}
	}
	if err := checkBlob(b, data); err != nil {
		return nil, where(err)
	}
	f.keep(b, data)
	return data[b.Off : b.Off+b.Len], nil
}

// kept gives a blob's contents if they are at hand and checked, else the contents
// of its frame if those are.
func (f *fileSystem) kept(b *tree.Blob) (data []byte, checked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, o := range f.frames {
		if o.frame != b.Frame {
			continue
		}
		f.frames = append(slices.Delete(f.frames, i, i+1), o)
		if o.checked[b] {
			return o.data[b.Off : b.Off+b.Len], true
		}
		return o.data, false
	}
	return nil, false
}

func (f *fileSystem) keep(b *tree.Blob, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.frames {
		if o.frame == b.Frame {
			o.checked[b] = true
			return
		}
	}
	if len(f.frames) == openFrames {
		f.frames = slices.Delete(f.frames, 0, 1)
	}
	f.frames = append(f.frames, openedFrame{b.Frame, data, map[*tree.Blob]bool{b: true}})
}

// openFile is an open file. ReadAt is safe for concurrent use.
type openFile struct {
	fsys   *fileSystem
	name   string
	info   *fileInfo
	chunks []tree.Chunk
	at     int64
	closed bool
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }

func (f *openFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

func (f *openFile) Close() error {
	if f.closed {
		return f.fail("close", fs.ErrClosed)
	}
	f.closed = true
	return nil
}

func (f *openFile) Read(p []byte) (int, error) {
	if f.closed {
		return 0, f.fail("read", fs.ErrClosed)
	}
	n, err := f.ReadAt(p, f.at)
	f.at += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *openFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.info.entry.Size
	}
	if offset < 0 || whence < 0 || whence > 2 {
		return 0, f.fail("seek", fs.ErrInvalid)
	}
	f.at = offset
	return offset, nil
}

func (f *openFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, f.fail("read", fs.ErrInvalid)
	}
	start := int64(0)
	for _, c := range f.chunks {
		end := start + c.Size
		if n < len(p) && off < end {
			var data []byte
			if c.Blob != nil {
				if data, err = f.fsys.blob(c.Blob); err != nil {
					return n, f.fail("read", err)
				}
			}
			k := int(min(end-off, int64(len(p)-n)))
			if c.Blob != nil {
				copy(p[n:n+k], data[off-start:])
			} else {
				clear(p[n : n+k])
			}
			n += k
			off += int64(k)
		}
		start = end
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// openDir is an open directory.
type openDir struct {
	fsys  *fileSystem
	entry *tree.Entry
	info  *fileInfo
	rest  []fs.DirEntry
	begun bool
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: errors.New("is a directory")}
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.begun {
		d.rest, d.begun = d.fsys.list(d.entry), true
	}
	if n <= 0 {
		out := d.rest
		d.rest = nil
		return out, nil
	}
	if len(d.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.rest))
	out := d.rest[:n]
	d.rest = d.rest[n:]
	return out, nil
}
