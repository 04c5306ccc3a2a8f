package storage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// ExportTar writes a version as a tar archive in POSIX pax format, sparse files in
// GNU's form, to be unpacked by any tar. Members come in the order of paths, each
// directory before what is in it. An unknown id matches fs.ErrNotExist.
func (v *Volume) ExportTar(ctx context.Context, id string, w io.Writer) error {
	if v.err != nil {
		return v.err
	}
	if err := v.exportTar(ctx, id, w); err != nil {
		return v.fail("export", err)
	}
	return nil
}

func (v *Volume) exportTar(ctx context.Context, id string, w io.Writer) error {
	entries, files, err := v.whole(ctx, id)
	if err != nil {
		return err
	}
	out := v.newOutlet(ctx, &meter{}, files)
	defer out.close()
	buffered := bufio.NewWriterSize(w, streamBuffer)
	tw := tarstream.NewWriter(buffered, tarstream.Posix)
	for _, e := range entries {
		if err := writeEntry(tw, memberOf(e), e, out); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

// whole gives all entries of a version, and the files among them, in the order of
// paths: a tar gives a directory its time and mode when it has left it.
func (v *Volume) whole(ctx context.Context, id string) (entries, files []*tree.Entry, err error) {
	r, err := v.byID(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	k, err := v.load(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	for i := range k.tree.Entries {
		e := &k.tree.Entries[i]
		entries = append(entries, e)
		if e.Kind == tree.File {
			files = append(files, e)
		}
	}
	return entries, files, nil
}

// Exported says what an Export did.
type Exported struct {
	// Files and Bytes count the objects that were written.
	Files, Bytes int64
	// Skipped are the paths of what cannot be an object: symbolic links, and files
	// whose names [CheckKey] refuses as keys. Directories are in no list.
	Skipped []string
}

// Export writes the files of a version as plain objects, for programs that know
// nothing of volumes: the contents of "src/main.go" below prefix "copy/" become the
// object "copy/src/main.go". Objects that are there already are replaced; others
// below the prefix are left alone. The names of one file become as many objects. The
// bucket may be the volume's own. An unknown id matches fs.ErrNotExist.
func (v *Volume) Export(ctx context.Context, id string, to Bucket, prefix string) (*Exported, error) {
	if v.err != nil {
		return nil, v.err
	}
	done, err := v.export(ctx, id, to, prefix)
	if err != nil {
		return nil, v.fail("export", err)
	}
	return done, nil
}

func (v *Volume) export(ctx context.Context, id string, to Bucket, prefix string) (*Exported, error) {
	fsys, err := v.FS(ctx, id)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	f := fsys.(*fileSystem)
	done := new(Exported)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(recordsAtOnce)
	for i := range f.tree.Entries {
		e := &f.tree.Entries[i]
		if e.Kind == tree.Dir {
			continue
		}
		key := prefix + e.Path
		if e.Kind == tree.Symlink || CheckKey(key) != nil {
			done.Skipped = append(done.Skipped, e.Path)
			continue
		}
		info := f.info(e, path.Base(e.Path))
		done.Files++
		done.Bytes += info.Size()
		g.Go(func() error {
			file := &openFile{fsys: f, name: e.Path, info: info, chunks: f.chunks(e)}
			if err := to.Put(ctx, key, file, &PutOptions{Size: info.Size()}); err != nil {
				return fmt.Errorf("store object %s: %w", key, err)
			}
			return nil
		})
	}
	return done, g.Wait()
}

// Import makes a version from plain objects: those of the bucket from whose keys
// start with prefix, "" for all, become files with the rest of their keys as paths
// and the times at which they were stored. An object whose key ends in a slash and
// that is empty is a directory, as some programs write them. What has the same size
// and time as in the newest version is not read again. Keys that cannot be paths,
// such as "a//b" or "a" beside "a/b", fail it with an error that matches
// fs.ErrInvalid. Errors are those of Sync.
func (v *Volume) Import(ctx context.Context, from Bucket, prefix string) (*Version, error) {
	if v.err != nil {
		return nil, v.err
	}
	version, err := v.syncFrom(ctx, &objects{v: v, from: from, prefix: prefix})
	if err != nil {
		return version, v.fail("import into", err)
	}
	return version, nil
}

// objects is a place whose files are objects. Nothing can be restored to it.
type objects struct {
	v      *Volume
	from   Bucket
	prefix string
}

func (o *objects) list(ctx context.Context) (*listing, error) {
	l := &lister{v: o.v}
	dirs := map[string]bool{"": true}
	if err := l.add('d', &found{Entry: tree.Entry{Mode: 0o755}}); err != nil {
		return nil, err
	}
	files := map[string]bool{}
	for object, err := range o.from.List(ctx, o.prefix) {
		if err != nil {
			return nil, err
		}
		name, isDir := strings.CutSuffix(object.Key[len(o.prefix):], "/")
		if why := tree.CheckPath(name); why != "" || name == "" && !isDir {
			return nil, fmt.Errorf("key %q cannot be a path below %q: %w", clip(object.Key), o.prefix, fs.ErrInvalid)
		}
		parent := name
		if !isDir || object.Size > 0 {
			parent = tree.Parent(name)
			files[name] = true
			f := &found{Entry: tree.Entry{Path: name, Size: object.Size, Mode: 0o644}}
			f.Mtime = tree.Time{Sec: object.Modified.Unix(), Nsec: int32(object.Modified.Nanosecond())}
			if err := l.add('f', f); err != nil {
				return nil, err
			}
		}
		for ; !dirs[parent]; parent = tree.Parent(parent) {
			dirs[parent] = true
			if err := l.add('d', &found{Entry: tree.Entry{Path: parent, Mode: 0o755}}); err != nil {
				return nil, err
			}
		}
	}
	for name := range files {
		if dirs[name] {
			return nil, fmt.Errorf("key %q is both an object and above others: %w", clip(o.prefix+name), fs.ErrInvalid)
		}
	}
	return l.finish()
}

// read fetches a few objects at a time, as each is a request; what is large is
// passed on as it comes.
func (o *objects) read(ctx context.Context, want []*found, in *intake) (steady bool, err error) {
	steady = true
	for len(want) > 0 {
		n := 1
		for n < len(want) && n < recordsAtOnce && want[n-1].Size <= smallFile && want[n].Size <= smallFile {
			n++
		}
		same, err := o.readSome(ctx, want[:n], in)
		if err != nil {
			return false, err
		}
		steady = steady && same
		want = want[n:]
	}
	return steady, nil
}

func (o *objects) readSome(ctx context.Context, want []*found, in *intake) (steady bool, err error) {
	if len(want) == 1 {
		r, err := o.from.Get(ctx, o.prefix+want[0].Path, 0, -1)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		defer func() { _ = r.Close() }()
		return true, o.take(want[0], r, in)
	}
	small := make([][]byte, len(want))
	g, getCtx := errgroup.WithContext(ctx)
	for i, f := range want {
		g.Go(func() error {
			r, err := o.from.Get(getCtx, o.prefix+f.Path, 0, f.Size)
			if err != nil {
				return err
			}
			small[i], err = io.ReadAll(io.LimitReader(r, f.Size))
			return errors.Join(err, r.Close())
		})
	}
	if err := g.Wait(); errors.Is(err, fs.ErrNotExist) {
		return false, nil // listed again, what is gone is not there
	} else if err != nil {
		return false, err
	}
	for i, f := range want {
		if err := o.take(f, bytes.NewReader(small[i]), in); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (o *objects) take(f *found, r io.Reader, in *intake) error {
	in.begin(f)
	defer in.end()
	if err := in.data(r, f.Size); err != nil {
		return fmt.Errorf("read object %s: %w", o.prefix+f.Path, cutShort(err))
	}
	return nil
}

func (o *objects) begin(context.Context) (stage, error) { return nil, errors.ErrUnsupported }
