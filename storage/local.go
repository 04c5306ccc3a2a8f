package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// Local stands for this machine where a sandbox is asked for: a Volume reads and
// writes the directory itself, as the user of this process, and starts no command.
// No name and no symbolic link in the directory leads out of it, even where
// somebody else changes it at the same time. The zero value is ready for use.
type Local struct{}

// Run runs a command on this machine; a Volume does without.
func (Local) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var words tail
	words.max = 4 << 10
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, &words
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return withWords(err, strings.TrimSpace(words.String()))
	}
	return nil
}

// localDir is a place on this machine.
type localDir struct {
	v   *Volume
	dir string
}

// open opens the directory, which must not be a symbolic link.
func (d *localDir) open() (*os.Root, error) {
	info, err := os.Lstat(d.dir)
	switch {
	case err == nil && info.Mode().Type() == fs.ModeSymlink:
		err = fmt.Errorf("%s is a symbolic link", d.dir)
	case err == nil && !info.IsDir():
		err = &fs.PathError{Op: "open", Path: d.dir, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return nil, err
	}
	return root, recoverLocal(root)
}

func (d *localDir) list(ctx context.Context) (*listing, error) {
	root, err := d.open()
	if root != nil {
		defer func() { _ = root.Close() }()
	}
	if err != nil {
		return nil, err
	}
	l := &lister{v: d.v}
	now := time.Now()
	l.out.now = tree.Time{Sec: now.Unix(), Nsec: int32(now.Nanosecond())}
	info, err := root.Lstat(".")
	if err != nil {
		return nil, err
	}
	f := &found{}
	kind := statInto(f, info)
	l.out.origin = originOf(f)
	if err := l.add(kind, f); err != nil {
		return nil, err
	}
	if err := l.walk(ctx, root, "", f.dev); err != nil {
		return nil, err
	}
	return l.finish()
}

// walk adds what is in a directory that dir has open, and below it.
func (l *lister) walk(ctx context.Context, dir *os.Root, at string, dev uint64) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	self, err := dir.Open(".")
	if err != nil {
		return err
	}
	names, err := self.Readdirnames(-1)
	if err = errors.Join(err, self.Close()); err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if at == "" && strings.HasPrefix(name, stagingPrefix) {
			continue
		}
		info, err := dir.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has gone since
		}
		if err != nil {
			return err
		}
		f := &found{Entry: tree.Entry{Path: path.Join(at, name)}}
		kind := statInto(f, info)
		if kind == 'l' {
			if f.Link, err = dir.Readlink(name); errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return err
			}
		}
		if err := l.add(kind, f); err != nil {
			return err
		}
		if kind == 'd' && f.dev == dev && !l.v.exclude.MatchSelf(f.Path, true) {
			if err := l.into(ctx, dir, name, f.Path, dev); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lister) into(ctx context.Context, dir *os.Root, name, at string, dev uint64) error {
	sub, err := dir.OpenRoot(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil // it has gone since, or became something else
	}
	if err != nil {
		return err
	}
	defer func() { _ = sub.Close() }()
	return l.walk(ctx, sub, at, dev)
}

// dirs keeps the directory open that was used last, so that a file in it is found
// without walking there.
type dirs struct {
	root *os.Root
	last *os.Root
	at   string
}

// of opens the directory that p is in, and gives p's last part.
func (d *dirs) of(p string) (*os.Root, string, error) {
	parent, name := tree.Parent(p), path.Base(p)
	if parent == "" {
		return d.root, name, nil
	}
	if d.last == nil || d.at != parent {
		d.close()
		sub, err := d.root.OpenRoot(parent)
		if err != nil {
			return nil, "", err
		}
		d.last, d.at = sub, parent
	}
	return d.last, name, nil
}

func (d *dirs) close() {
	if d.last != nil {
		_ = d.last.Close()
		d.last = nil
	}
}

func (d *localDir) read(ctx context.Context, want []*found, in *intake) (steady bool, err error) {
	root, err := d.open()
	if root != nil {
		defer func() { _ = root.Close() }()
	}
	if err != nil {
		return false, err
	}
	steady = true
	at := &dirs{root: root}
	defer at.close()
	for _, f := range want {
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		same, err := readLocal(at, f, in)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, io.ErrUnexpectedEOF):
			f.read = nil
			steady = false
		case err != nil:
			return false, err
		}
		steady = steady && same
	}
	return steady, nil
}

// readLocal hands one file to in, and reports whether it was the same from its
// listing to the end.
func readLocal(at *dirs, f *found, in *intake) (same bool, err error) {
	dir, name, err := at.of(f.Path)
	if err != nil {
		return false, err
	}
	// What became a pipe since it was listed must not be waited for.
	file, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = file.Close() }()
	before, err := statOf(file)
	if err != nil || before.kind != 'f' {
		return false, err
	}
	in.begin(f)
	defer in.end()
	if f.sparse {
		err = takeSparse(file, before.f.Size, in)
	} else {
		err = in.data(file, before.f.Size)
	}
	if err != nil {
		return false, err
	}
	after, err := statOf(file)
	if err != nil {
		return false, err
	}
	f.Kind, before.f.Kind, after.f.Kind = tree.File, tree.File, tree.File
	return before.f.sameState(&after.f) && f.sameState(&after.f), nil
}

type stated struct {
	f    found
	kind byte
}

func statOf(file *os.File) (s stated, err error) {
	info, err := file.Stat()
	if err != nil {
		return s, err
	}
	s.kind = statInto(&s.f, info)
	return s, nil
}

// What lseek takes to find data and holes, on Linux.
const (
	seekData = 3
	seekHole = 4
)

func takeSparse(file *os.File, size int64, in *intake) error {
	for at := int64(0); at < size; {
		data, err := file.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) { // no more data
			in.hole(size - at)
			return nil
		}
		if err != nil {
			data = at // a file system that does not tell
		}
		data = min(data, size)
		hole := size
		if err == nil {
			if hole, err = file.Seek(data, seekHole); err != nil {
				return err
			}
			hole = min(hole, size)
		}
		if _, err := file.Seek(data, io.SeekStart); err != nil {
			return err
		}
		in.hole(data - at)
		if err := in.data(file, hole-data); err != nil {
			return err
		}
		at = hole
	}
	return nil
}
