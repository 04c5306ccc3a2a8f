package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

func (d *localDir) begin(context.Context) (stage, error) {
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return nil, err
	}
	root, err := d.open()
	if err != nil {
		if root != nil {
			_ = root.Close()
		}
		return nil, err
	}
	s := &localStage{localDir: d, root: root, name: stagingPrefix + strings.ToLower(rand.Text())}
	err = root.Mkdir(s.name, 0o700)
	if err == nil {
		err = root.Mkdir(s.name+"/new", 0o700)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

// localStage is a restore that is being prepared on this machine.
type localStage struct {
	*localDir
	root *os.Root
	name string // of the staging directory
}

func (s *localStage) direct(*tree.Entry) bool { return false }

// writers is how many goroutines make files.
const writers = 4

func (s *localStage) fill(ctx context.Context, entries []*tree.Entry, out *outlet) error {
	root, err := s.root.OpenRoot(s.name + "/new")
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	g, ctx := errgroup.WithContext(ctx)
	jobs := make(chan job)
	for range writers {
		g.Go(func() error { return s.work(root, jobs) })
	}
	g.Go(func() error {
		defer close(jobs)
		return s.hand(ctx, root, entries, out, jobs)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	at := &dirs{root: root}
	defer at.close()
	for _, e := range entries {
		if e.Kind == tree.Symlink || e.Kind == tree.Hardlink {
			if err := s.link(root, at, e); err != nil {
				return err
			}
			out.done(e)
		}
	}
	// What was made in directories has changed their times.
	for _, e := range slices.Backward(entries) {
		if e.Kind == tree.Dir {
			if err := s.seal(at, e, e.Mode|0o700); err != nil {
				return err
			}
		}
	}
	return nil
}

// job is a file of which all bytes are there.
type job struct {
	e    *tree.Entry
	data []byte
}

// wholeFile is up to which size a file is handed to a writer at once, in bytes.
const wholeFile = 1 << 20

// hand makes directories and large files itself, and hands small ones to others.
func (s *localStage) hand(ctx context.Context, root *os.Root, entries []*tree.Entry, out *outlet, jobs chan<- job) error {
	at := &dirs{root: root}
	defer at.close()
	for _, e := range entries {
		switch {
		case e.Kind == tree.Dir:
			if err := root.MkdirAll(e.Path, 0o700); err != nil {
				return err
			}
			out.done(e)
		case e.Kind != tree.File:
		case e.Size > wholeFile || hasHole(e):
			if err := s.large(at, root, e, out); err != nil {
				return err
			}
			out.done(e)
		default:
			var data []byte
			for i, c := range e.Chunks {
				part, err := out.next(c.Blob)
				if err != nil {
					return err
				}
				if i == 0 {
					data = part[:len(part):len(part)] // most files are one blob
				} else {
					data = append(data, part...)
				}
			}
			select {
			case jobs <- job{e, data}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			out.done(e)
		}
	}
	return nil
}

func hasHole(e *tree.Entry) bool {
	return slices.ContainsFunc(e.Chunks, func(c tree.Chunk) bool { return c.Blob == nil })
}

func (s *localStage) work(root *os.Root, jobs <-chan job) error {
	at := &dirs{root: root}
	defer at.close()
	for j := range jobs {
		file, err := s.create(at, root, j.e)
		if err != nil {
			return err
		}
		_, err = file.Write(j.data)
		if err = s.complete(file, at, j.e, err); err != nil {
			return err
		}
	}
	return nil
}

// create makes a file in the staging directory, and the directories that lead
// there where only some of what is in them changes.
func (s *localStage) create(at *dirs, root *os.Root, e *tree.Entry) (*os.File, error) {
	for attempt := 0; ; attempt++ {
		dir, name, err := at.of(e.Path)
		if err == nil {
			return dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		}
		if attempt > 0 || !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err := root.MkdirAll(tree.Parent(e.Path), 0o700); err != nil {
			return nil, err
		}
	}
}

// complete gives a file that at was asked for last its owner, mode and time, and
// closes it.
func (s *localStage) complete(file *os.File, at *dirs, e *tree.Entry, err error) error {
	if err == nil && s.v.opts.Owners {
		err = file.Chown(int(e.UID), int(e.GID))
	}
	if err == nil {
		err = file.Chmod(modeOf(e.Mode))
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	dir, name, err := at.of(e.Path)
	if err != nil {
		return err
	}
	when := time.Unix(e.Mtime.Sec, int64(e.Mtime.Nsec))
	return dir.Chtimes(name, when, when)
}

func modeOf(mode uint16) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	if mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}

func (s *localStage) large(at *dirs, root *os.Root, e *tree.Entry, out *outlet) error {
	file, err := s.create(at, root, e)
	if err != nil {
		return err
	}
	off := int64(0)
	for _, c := range e.Chunks {
		if err == nil && c.Blob != nil {
			var data []byte
			if data, err = out.next(c.Blob); err == nil {
				_, err = file.WriteAt(data, off)
			}
		}
		off += c.Size
	}
	if err == nil {
		err = file.Truncate(e.Size) // it may end in a hole
	}
	return s.complete(file, at, e, err)
}

func (s *localStage) link(root *os.Root, at *dirs, e *tree.Entry) error {
	dir, name, err := at.of(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = root.MkdirAll(tree.Parent(e.Path), 0o700); err == nil {
			dir, name, err = at.of(e.Path)
		}
	}
	if err != nil {
		return err
	}
	if e.Kind == tree.Hardlink {
		return root.Link(e.Link, e.Path)
	}
	if err := dir.Symlink(e.Link, name); err != nil {
		return err
	}
	if s.v.opts.Owners {
		return dir.Lchown(name, int(e.UID), int(e.GID))
	}
	return nil
}

// seal gives a directory its owner, a mode, and its time.
func (s *localStage) seal(at *dirs, e *tree.Entry, mode uint16) error {
	dir, name, err := at.of(e.Path)
	if err != nil {
		return err
	}
	if s.v.opts.Owners {
		if err := dir.Lchown(name, int(e.UID), int(e.GID)); err != nil {
			return err
		}
	}
	return sealDir(dir, name, mode, e.Mtime)
}

func sealDir(dir *os.Root, name string, mode uint16, t tree.Time) error {
	if err := dir.Chmod(name, modeOf(mode)); err != nil {
		return err
	}
	when := time.Unix(t.Sec, int64(t.Nsec))
	return dir.Chtimes(name, when, when)
}

func (s *localStage) apply(ctx context.Context, p *plan) error {
	for _, f := range p.files(tarstream.Posix) {
		if err := s.root.WriteFile(s.name+"/"+f.name, f.data, 0o600); err != nil {
			return err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := s.root.Mkdir(s.name+"/go", 0o700); err != nil {
		return err
	}
	if err := finishLocal(s.root, s.name); err != nil {
		return fmt.Errorf("exchange files in %s, which the next restore or sync goes on with: %w", s.dir, err)
	}
	return s.root.Close()
}

func (s *localStage) drop(context.Context) (finished bool, err error) {
	_, going := s.root.Lstat(s.name + "/go")
	err = recoverLocal(s.root)
	return going == nil && err == nil, errors.Join(err, s.root.Close())
}
