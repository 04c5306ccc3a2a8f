package storage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
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

// recoverLocal brings whatever state a broken-off restore left to one of its two
// ends, as recover of scriptHead does.
func recoverLocal(root *os.Root) error {
	self, err := root.Open(".")
	if err != nil {
		return err
	}
	names, err := self.Readdirnames(-1)
	if err = errors.Join(err, self.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, stagingPrefix) {
			continue
		}
		if _, err := root.Lstat(name + "/go"); err == nil {
			err = finishLocal(root, name)
			if err != nil {
				return fmt.Errorf("cannot finish the restore in %s: %w", name, err)
			}
		} else if err := eraseLocal(root, name); err != nil {
			return fmt.Errorf("cannot remove %s: %w", name, err)
		}
	}
	return nil
}

// eraseLocal removes a path with all that is below, directories without write
// permission included.
func eraseLocal(root *os.Root, name string) error {
	if err := root.RemoveAll(name); err == nil {
		return nil
	}
	_ = fs.WalkDir(root.FS(), name, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = root.Chmod(p, 0o700)
		}
		return nil
	})
	return root.RemoveAll(name)
}

// finishLocal carries out what a staging directory says, as finish of scriptHead
// does.
func finishLocal(root *os.Root, stage string) error {
	read := func(name string) ([]byte, error) {
		data, err := root.ReadFile(stage + "/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return data, err
	}
	paths := func(name string) ([]string, error) {
		data, err := read(name)
		if err != nil {
			return nil, err
		}
		return parseList(data)
	}
	open, err := paths("open")
	if err != nil {
		return err
	}
	for _, p := range open {
		if err := root.Chmod(p, 0o700); err != nil {
			return err
		}
	}
	if _, err := root.Lstat(stage + "/cleared"); err != nil {
		gone, err := paths("rm")
		if err != nil {
			return err
		}
		for _, p := range gone {
			if err := eraseLocal(root, p); err != nil {
				return err
			}
		}
		if err := root.Mkdir(stage+"/cleared", 0o700); err != nil {
			return err
		}
	}
	for i := 0; ; i++ {
		group, err := paths("mv." + strconv.Itoa(i))
		if err != nil {
			return err
		}
		if len(group) == 0 {
			break
		}
		for _, p := range group {
			if err := root.Rename(stage+"/new/"+p, p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	archive, err := read("dirs")
	if err != nil {
		return err
	}
	if err := sealDirs(root, archive); err != nil {
		return err
	}
	self, err := read("root")
	if err != nil {
		return err
	}
	if err := eraseLocal(root, stage); err != nil {
		return err
	}
	return sealRoot(root, string(self))
}

// sealDirs gives directories the modes and times that an archive says.
func sealDirs(root *os.Root, archive []byte) error {
	if len(archive) == 0 {
		return nil
	}
	r := tarstream.NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(archive), strings.NewReader(statusMark))), statusMark)
	for {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.Trim(strings.TrimPrefix(m.Name, "./"), "/")
		if m.Kind != tarstream.Dir || tree.CheckPath(name) != "" || name == "" {
			return errors.New("the list of directories in the staging directory cannot be read")
		}
		if err := sealDir(root, name, uint16(m.Mode&0o1777), m.Mtime); err != nil {
			return err
		}
	}
}

// sealRoot sets mode and time of the directory itself, where that is allowed.
func sealRoot(root *os.Root, text string) error {
	mode, when, ok := strings.Cut(strings.TrimSpace(text), " ")
	if !ok {
		return nil
	}
	bits, err := strconv.ParseUint(mode, 8, 16)
	if err != nil {
		return fmt.Errorf("mode of the directory: %w", err)
	}
	t, err := tarstream.ParseTime(when)
	if err != nil {
		return err
	}
	if err := sealDir(root, ".", uint16(bits&0o1777), t); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
