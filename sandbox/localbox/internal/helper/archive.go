//go:build unix

package helper

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// save writes the sandbox's files as a tar archive into the descriptor that
// came with the request.
func (b *box) save(fds []int) error {
	f, err := streamOf(fds)
	if err != nil {
		return err
	}
	defer f.Close()
	tw := tar.NewWriter(f)
	saved := b.tree.saved()
	for _, prefix := range sortedKeys(saved) {
		if err := saveDir(tw, prefix, saved[prefix]); err != nil {
			return err
		}
	}
	return tw.Close()
}

// streamOf makes a file of a copy of the one descriptor of a request.
func streamOf(fds []int) (*os.File, error) {
	if len(fds) != 1 {
		return nil, fmt.Errorf("%d descriptors came with the request: %w", len(fds), driver.ErrInvalid)
	}
	fd, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "archive"), nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// saver writes one directory.
type saver struct {
	tw     *tar.Writer
	root   *os.Root
	prefix string
	dev    uint64 // other mounts, such as Config.Mounts, are left out
}

func saveDir(tw *tar.Writer, prefix, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	s := &saver{tw: tw, root: root, prefix: prefix, dev: device(info)}
	return s.entry(".", info)
}

func device(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev)
	}
	return 0
}

func (s *saver) entry(rel string, info fs.FileInfo) error {
	if device(info) != s.dev {
		return nil
	}
	hdr := &tar.Header{Name: path.Join(s.prefix, rel), Mode: int64(chmodBits(info.Mode())),
		ModTime: info.ModTime(), Format: tar.FormatPAX}
	switch {
	case info.IsDir():
		hdr.Typeflag, hdr.Name = tar.TypeDir, hdr.Name+"/"
		if err := s.tw.WriteHeader(hdr); err != nil {
			return err
		}
		return s.children(rel, info)
	case info.Mode().IsRegular():
		hdr.Typeflag, hdr.Size = tar.TypeReg, info.Size()
		return s.regular(rel, info, hdr)
	case info.Mode()&fs.ModeSymlink != 0:
		link, err := s.root.Readlink(rel)
		if err != nil {
			return gone(err)
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, link
		return s.tw.WriteHeader(hdr)
	case info.Mode()&fs.ModeNamedPipe != 0:
		hdr.Typeflag = tar.TypeFifo
		return s.tw.WriteHeader(hdr)
	}
	return nil // a socket is nothing without its process
}

// gone forgives a file that was removed while the archive was written.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// open opens for reading, also what its owner may not read just now.
func (s *saver) open(rel string, info fs.FileInfo, flag int) (*os.File, error) {
	flag |= os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW
	f, err := s.root.OpenFile(rel, flag, 0)
	if errors.Is(err, fs.ErrPermission) && s.root.Chmod(rel, info.Mode()|0o500) == nil {
		f, err = s.root.OpenFile(rel, flag, 0)
		err = errors.Join(err, s.root.Chmod(rel, info.Mode()))
	}
	return f, err
}

func (s *saver) children(rel string, info fs.FileInfo) error {
	f, err := s.open(rel, info, unix.O_DIRECTORY)
	if err != nil {
		return gone(err)
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return err
	}
	slices.Sort(names)
	if info.Mode().Perm()&0o100 == 0 && len(names) > 0 {
		// Its owner cannot go through it; lend the right while it is read.
		if err := s.root.Chmod(rel, info.Mode()|0o700); err != nil {
			return err
		}
		defer func() { _ = s.root.Chmod(rel, info.Mode()) }()
	}
	for _, base := range names {
		name := path.Join(rel, base)
		info, err := s.root.Lstat(name)
		if err == nil {
			err = s.entry(name, info)
		}
		if err := gone(err); err != nil {
			return err
		}
	}
	return nil
}

func (s *saver) regular(rel string, info fs.FileInfo, hdr *tar.Header) error {
	f, err := s.open(rel, info, 0)
	if err != nil {
		return gone(err)
	}
	defer f.Close()
	if now, err := f.Stat(); err != nil || !now.Mode().IsRegular() {
		return err // replaced by something else meanwhile
	}
	if err := s.tw.WriteHeader(hdr); err != nil {
		return err
	}
	n, err := io.Copy(s.tw, io.LimitReader(f, hdr.Size))
	if err == nil && n < hdr.Size { // it shrank
		_, err = io.CopyN(s.tw, zeros{}, hdr.Size-n)
	}
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// load puts the files of an archive that save wrote into the sandbox.
func (b *box) load(fds []int) error {
	f, err := streamOf(fds)
	if err != nil {
		return err
	}
	defer f.Close()
	l := &loader{roots: make(map[string]*os.Root)}
	defer l.close()
	for prefix, dir := range b.tree.saved() {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		l.roots[prefix] = root
	}
	tr := tar.NewReader(f)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return l.finish()
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if err := l.entry(hdr, tr); err != nil {
			return fmt.Errorf("restore %s: %w", hdr.Name, err)
		}
	}
}

// loader writes entries below the directories they are meant for.
type loader struct {
	roots map[string]*os.Root
	dirs  []loadedDir
}

// loadedDir is a directory whose mode and time are set when it is complete.
type loadedDir struct {
	root *os.Root
	rel  string
	hdr  *tar.Header
}

func (l *loader) close() {
	for _, r := range l.roots {
		r.Close()
	}
}

func (l *loader) entry(hdr *tar.Header, r io.Reader) error {
	root, rel := l.find(path.Clean(hdr.Name))
	if root == nil {
		return fmt.Errorf("belongs to no directory of a sandbox: %w", driver.ErrInvalid)
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		l.dirs = append(l.dirs, loadedDir{root, rel, hdr})
		return root.MkdirAll(rel, 0o700)
	case tar.TypeReg:
		return loadRegular(root, rel, hdr, r)
	case tar.TypeSymlink:
		return root.Symlink(hdr.Linkname, rel)
	case tar.TypeFifo:
		return loadFifo(root, rel, hdr)
	}
	return fmt.Errorf("unexpected type %q: %w", hdr.Typeflag, driver.ErrInvalid)
}

func (l *loader) find(name string) (*os.Root, string) {
	for prefix, root := range l.roots {
		if name == prefix {
			return root, "."
		}
		if rel, ok := strings.CutPrefix(name, prefix+"/"); ok {
			return root, rel
		}
	}
	return nil, ""
}

func loadRegular(root *os.Root, rel string, hdr *tar.Header, r io.Reader) error {
	f, err := root.OpenFile(rel, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	err = errors.Join(err, unix.Fchmod(int(f.Fd()), uint32(hdr.Mode&0o7777)), f.Close())
	if err != nil {
		return err
	}
	return root.Chtimes(rel, time.Time{}, hdr.ModTime)
}

func loadFifo(root *os.Root, rel string, hdr *tar.Header) error {
	dir, err := root.Open(path.Dir(rel))
	if err != nil {
		return err
	}
	defer dir.Close()
	return mkfifoAt(dir, path.Base(rel), uint32(hdr.Mode&0o777))
}

// finish sets what would have been in the way, or changed, before: the modes
// and times of directories, from the innermost out.
func (l *loader) finish() error {
	for _, d := range slices.Backward(l.dirs) {
		f, err := d.root.Open(d.rel)
		if err != nil {
			return err
		}
		err = errors.Join(unix.Fchmod(int(f.Fd()), uint32(d.hdr.Mode&0o7777)), f.Close())
		if err == nil {
			err = d.root.Chtimes(d.rel, time.Time{}, d.hdr.ModTime)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
