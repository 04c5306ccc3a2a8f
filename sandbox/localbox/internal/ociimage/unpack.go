//go:build linux

package ociimage

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// ErrDamaged is matched by what is wrong with an image itself.
var ErrDamaged = errors.New("the image is damaged or hostile")

// limits counts down over all layers of an image.
type limits struct{ bytes, files int64 }

func (l *limits) take(bytes int64) error {
	l.files--
	l.bytes -= bytes
	if l.files < 0 || l.bytes < 0 {
		return fmt.Errorf("%w: the image is larger than this machine's limit for images (ImageOptions.MaxBytes, MaxFiles)", driver.ErrExhausted)
	}
	return nil
}

// meta is what a directory gets at the end, when nothing is made in it any more.
type meta struct {
	mode     uint32
	uid, gid int
	mtime    time.Time
}

// unpacker unpacks one layer into a directory that nobody else knows yet. Every
// name is looked up from the directory's descriptor, one element at a time, so
// that no link leads out of it.
type unpacker struct {
	root   int
	owners bool
	under  *View // what the layer is on top of
	limits *limits

	dirs  map[string]meta // by clean path below the root, "" for it
	count int             // entries that say something

	buf [64 << 10]byte

	parent struct { // the directory used last
		name string
		fd   int
	}
}

// unpackTar unpacks a tar archive into dir. It reads r to its end. empty tells
// that the archive changes nothing.
func unpackTar(dir string, r io.Reader, under *View, owners bool, l *limits) (empty bool, err error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("open", err)
	}
	u := &unpacker{root: root, owners: owners, under: under, limits: l, dirs: make(map[string]meta)}
	u.parent.fd = -1
	defer unix.Close(root)
	defer u.forget()
	u.dirs[""] = u.inherited("")
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if err := u.entry(hdr, tr); err != nil {
			return false, fmt.Errorf("%q: %w", hdr.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, r); err != nil { // what pads it counts in its digest
		return false, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return u.count == 0, u.finish()
}

// entryName gives the path below the root that a name in an archive means. A
// name that climbs out is refused.
func entryName(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(clean, 0) {
		return "", fmt.Errorf("%w: the name leads out of the layer", ErrDamaged)
	}
	if clean == "." {
		return "", nil
	}
	return clean, nil
}

func (u *unpacker) entry(hdr *tar.Header, r io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := entryName(hdr.Name)
	if err != nil {
		return err
	}
	if err := u.limits.take(hdr.Size); err != nil {
		return err
	}
	if name == "" {
		if hdr.Typeflag == tar.TypeDir {
			u.dirs[""] = u.metaOf(hdr)
		}
		return nil
	}
	u.count++
	dir, base := path.Split(name)
	parent, dir, err := u.openParent(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	if rest, ok := strings.CutPrefix(base, ".wh."); ok {
		return u.whiteoutName(parent, dir, rest)
	}
	if hdr.Typeflag == tar.TypeChar && hdr.Devmajor == 0 && hdr.Devminor == 0 {
		return u.whiteout(parent, dir, base)
	}
	return u.make(place{parent, dir, base}, hdr, r)
}

// place is a name in an open directory of the layer.
type place struct {
	fd        int
	dir, base string
}

func (p place) path() string { return path.Join(p.dir, p.base) }

// metaOf is what a header says of owner, mode and time.
func (u *unpacker) metaOf(hdr *tar.Header) meta {
	return meta{mode: uint32(hdr.Mode) & 0o7777, uid: ownID(hdr.Uid), gid: ownID(hdr.Gid), mtime: hdr.ModTime}
}

// nobody owns what belongs to an id that a sandbox does not have.
const nobody = 65_534

func ownID(id int) int {
	if id < 0 || id > 65_535 {
		return nobody
	}
	return id
}

// inherited is what a directory gets that the archive does not describe: what
// it has in the layers below.
func (u *unpacker) inherited(name string) meta {
	if n, err := u.under.lookupDir(name); err == nil {
		return n.meta()
	}
	return meta{mode: 0o755}
}

// finish gives the directories their owners, modes and times, children first:
// the mode of a parent may shut it.
func (u *unpacker) finish() error {
	names := slices.Sorted(maps.Keys(u.dirs))
	slices.Reverse(names)
	for _, name := range names {
		if err := u.finishDir(name, u.dirs[name]); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

func (u *unpacker) finishDir(name string, m meta) error {
	fd, err := openBeneath(u.root, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // a later entry has replaced it
	}
	if err != nil {
		return os.NewSyscallError("openat2", err)
	}
	defer unix.Close(fd)
	return u.settle(fd, m)
}

// settle sets what is known of an open file, in the order that keeps set-id bits.
func (u *unpacker) settle(fd int, m meta) error {
	if u.owners {
		if err := unix.Fchown(fd, m.uid, m.gid); err != nil {
			return os.NewSyscallError("fchown", err)
		}
	}
	if err := unix.Fchmod(fd, m.mode); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if m.mtime.IsZero() {
		return nil
	}
	t := timespec(m.mtime)
	return os.NewSyscallError("futimens", unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), []unix.Timespec{t, t}, 0))
}

func timespec(t time.Time) unix.Timespec {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return unix.Timespec{}
	}
	return ts
}

// openBeneath opens a path that has no symbolic link in it.
func openBeneath(root int, name string, flags uint64) (int, error) {
	if name == "" {
		name = "."
	}
	for {
		fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}
