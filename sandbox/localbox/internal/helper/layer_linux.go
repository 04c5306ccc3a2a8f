package helper

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// saveLayer writes what was changed in a root of layers as a tar archive into
// the descriptor that came with the request: with the owners of the inside, a
// removed file as the character device 0/0 that overlayfs makes of it, and a
// directory that hides the one below with overlayfs' attribute.
func (b *box) saveLayer(fds []int) error {
	if !b.boot.Image {
		return fmt.Errorf("the sandbox has no layers: %w", driver.ErrInvalid)
	}
	return saveTo(fds, func(s *layerSaver) error {
		for _, at := range slices.Sorted(maps.Keys(b.uppers)) {
			if err := s.top(b.uppers[at], strings.TrimPrefix(at, "/")); err != nil {
				return err
			}
		}
		return nil
	})
}

// saveBelow writes the files below a directory, as the inside sees them, in the
// same way. What is mounted below, such as Config.Mounts, is left out.
func (b *box) saveBelow(fds []int, dir string) error {
	t, ok := b.tree.(*isolatedTree)
	if !ok {
		return errors.ErrUnsupported
	}
	fd, err := t.openat("open", dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return saveTo(fds, func(s *layerSaver) error {
		s.mounts = make(map[uint64]bool)
		id, err := mountOf(fd, "")
		if err != nil {
			return err
		}
		s.mounts[id] = true
		for at := range b.uppers { // they are one to the inside
			if id, err := mountOf(unix.AT_FDCWD, at); err == nil {
				s.mounts[id] = true
			}
		}
		return s.top(fd, "")
	})
}

func saveTo(fds []int, save func(*layerSaver) error) error {
	f, err := streamOf(fds)
	if err != nil {
		return err
	}
	defer f.Close()
	s := &layerSaver{tw: tar.NewWriter(f), links: make(map[inode]string)}
	if err := save(s); err != nil {
		return err
	}
	return s.tw.Close()
}

// layerSaver writes trees into one archive. Every file is opened by its name in
// an open directory and no link is followed, as the inside goes on meanwhile.
type layerSaver struct {
	tw     *tar.Writer
	links  map[inode]string
	mounts map[uint64]bool // those that are saved; nil: all
}

type inode struct{ dev, ino uint64 }

func mountOf(dir int, name string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(dir, name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	return st.Mnt_id, err
}

// top writes an open directory as name, "" for the root of the archive.
func (s *layerSaver) top(fd int, name string) error {
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // with an offset of its own
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/" + name, Err: err}
	}
	f := os.NewFile(uintptr(dir), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	hdr := header(path.Join(".", name), &st)
	hdr.Typeflag, hdr.Name = tar.TypeDir, hdr.Name+"/"
	if err := s.write(hdr, fdPath(dir)); err != nil {
		return err
	}
	return s.children(f, name)
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func header(name string, st *unix.Stat_t) *tar.Header {
	return &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX}
}

// opaqueMark is overlayfs' attribute of a directory that hides the one below.
const opaqueMark = "user.overlay.opaque"

// write writes a header with the attributes of the file at path, which is not
// followed.
func (s *layerSaver) write(hdr *tar.Header, path string) error {
	for _, name := range attributes(path) {
		if strings.HasPrefix(name, "user.overlay.") && name != opaqueMark || !strings.HasPrefix(name, "user.") {
			continue // overlayfs' own book-keeping, and what means something to the kernel
		}
		value := make([]byte, 64<<10) // xattr(7) has no longer ones
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			continue // removed meanwhile
		}
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = make(map[string]string)
		}
		hdr.PAXRecords["SCHILY.xattr."+name] = string(value[:n])
	}
	return s.tw.WriteHeader(hdr)
}

func attributes(path string) []string {
	n, err := unix.Llistxattr(path, nil)
	if err != nil || n == 0 {
		return nil
	}
	buf := make([]byte, n)
	if n, err = unix.Llistxattr(path, buf); err != nil {
		return nil
	}
	return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
}

func (s *layerSaver) children(dir *os.File, name string) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return gone(err)
	}
	slices.Sort(names)
	for _, base := range names {
		if err := gone(s.entry(int(dir.Fd()), base, path.Join(name, base))); err != nil {
			return err
		}
	}
	return nil
}

// entry writes base of an open directory as name.
func (s *layerSaver) entry(dir int, base, name string) error {
	if s.mounts != nil {
		if id, err := mountOf(dir, base); err != nil || !s.mounts[id] {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	hdr, at := header(name, &st), fdPath(dir)+"/"+base
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return s.directory(dir, base, hdr, at)
	case unix.S_IFLNK:
		target, err := os.Readlink(at)
		if err != nil {
			return err
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, target
		return s.write(hdr, at)
	case unix.S_IFREG:
		return s.file(dir, base, hdr, at, &st)
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
		return s.write(hdr, at)
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			hdr.Typeflag = tar.TypeChar
			return s.tw.WriteHeader(hdr)
		}
	}
	return nil // a socket is nothing without its process
}

func (s *layerSaver) directory(dir int, base string, hdr *tar.Header, at string) error {
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return replaced(err, hdr.Name)
	}
	f := os.NewFile(uintptr(fd), hdr.Name)
	defer f.Close()
	name := hdr.Name
	hdr.Typeflag, hdr.Name = tar.TypeDir, hdr.Name+"/"
	if err := s.write(hdr, at); err != nil {
		return err
	}
	return s.children(f, name)
}

// replaced forgives a file that has become something else since it was looked at.
func replaced(err error, name string) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	return &fs.PathError{Op: "open", Path: "/" + name, Err: err}
}

func (s *layerSaver) file(dir int, base string, hdr *tar.Header, at string, st *unix.Stat_t) error {
	key := inode{uint64(st.Dev), st.Ino}
	if first, ok := s.links[key]; ok && st.Nlink > 1 {
		hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
		return s.tw.WriteHeader(hdr)
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return replaced(err, hdr.Name)
	}
	f := os.NewFile(uintptr(fd), hdr.Name)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return err
	}
	if st.Nlink > 1 {
		s.links[key] = hdr.Name
	}
	hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	if err := s.write(hdr, at); err != nil {
		return err
	}
	n, err := io.Copy(s.tw, io.LimitReader(f, st.Size))
	if err == nil && n < st.Size { // it shrank
		_, err = io.CopyN(s.tw, zeros{}, st.Size-n)
	}
	return err
}
