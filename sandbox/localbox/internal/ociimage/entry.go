//go:build linux

package ociimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// opaque is the attribute of a directory that hides the one below
// (Documentation/filesystems/overlayfs.rst, with the option userxattr).
const opaque = "user.overlay.opaque"

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// proc names an entry of an open directory where a call has no form for one.
// What follows the last element is not looked up, so that a link stays a link.
func (p place) proc() string { return fmt.Sprintf("/proc/self/fd/%d/%s", p.fd, p.base) }

func setOpaque(p place) error {
	return os.NewSyscallError("setxattr", unix.Lsetxattr(p.proc(), opaque, []byte("y"), 0))
}

// whiteoutName handles what is named .wh. and something (OCI image
// specification, "Whiteouts").
func (u *unpacker) whiteoutName(parent int, dir, rest string) error {
	switch {
	case rest == ".wh..opq":
		if dir == "" {
			return u.opaqueRoot()
		}
		return os.NewSyscallError("setxattr", unix.Setxattr(fmt.Sprintf("/proc/self/fd/%d", parent), opaque, []byte("y"), 0))
	case strings.HasPrefix(rest, ".wh."):
		return nil // book-keeping of AUFS
	case rest == "" || rest == "." || rest == "..":
		return fmt.Errorf("%w: it removes nothing that has a name", ErrDamaged)
	}
	return u.whiteout(parent, dir, rest)
}

func (u *unpacker) opaqueRoot() error {
	return os.NewSyscallError("setxattr", unix.Setxattr(fmt.Sprintf("/proc/self/fd/%d", u.root), opaque, []byte("y"), 0))
}

// whiteout hides a name of the layers below. What this layer itself has of that
// name stays, whichever came first.
func (u *unpacker) whiteout(parent int, dir, base string) error {
	p := place{parent, dir, base}
	var st unix.Stat_t
	err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT:
		return os.NewSyscallError("mknodat", unix.Mknodat(parent, base, unix.S_IFCHR, 0))
	case err != nil:
		return os.NewSyscallError("fstatat", err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return setOpaque(p)
	}
	return nil
}

// make makes what a header describes, in place of what is there.
func (u *unpacker) make(p place, hdr *tar.Header, r io.Reader) error {
	if hdr.Typeflag == tar.TypeDir {
		return u.makeDir(p, hdr)
	}
	if err := u.clear(p); err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.makeFile(p, hdr, r)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(hdr.Linkname, p.fd, p.base); err != nil {
			return os.NewSyscallError("symlinkat", err)
		}
		return u.settleNode(p, hdr, false)
	case tar.TypeLink:
		return u.makeLink(p, hdr)
	case tar.TypeFifo:
		if err := unix.Mkfifoat(p.fd, p.base, 0o600); err != nil {
			return os.NewSyscallError("mkfifoat", err)
		}
		return u.settleNode(p, hdr, true)
	case tar.TypeChar, tar.TypeBlock:
		return nil // a sandbox has the devices that it gets, and can use no others
	}
	return fmt.Errorf("%w: entries of type %q are not known", ErrDamaged, hdr.Typeflag)
}

// clear removes what is at p.
func (u *unpacker) clear(p place) error {
	err := unix.Unlinkat(p.fd, p.base, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err == unix.EISDIR || err == unix.EPERM {
		for name := range u.dirs {
			if name == p.path() || strings.HasPrefix(name, p.path()+"/") {
				delete(u.dirs, name)
			}
		}
		return os.RemoveAll(p.proc())
	}
	return os.NewSyscallError("unlinkat", err)
}

func (u *unpacker) makeDir(p place, hdr *tar.Header) error {
	var st unix.Stat_t
	err := unix.Fstatat(p.fd, p.base, &st, unix.AT_SYMLINK_NOFOLLOW)
	removed := err == nil && isWhiteout(&st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err := u.clear(p); err != nil {
			return err
		}
		if err := u.mkdir(p, u.metaOf(hdr)); err != nil {
			return err
		}
	}
	u.dirs[p.path()] = u.metaOf(hdr)
	if removed || hdr.PAXRecords["SCHILY.xattr."+opaque] == "y" {
		if err := setOpaque(p); err != nil {
			return err
		}
	}
	return setXattrs(p.proc(), hdr)
}

func (u *unpacker) makeFile(p place, hdr *tar.Header, r io.Reader) error {
	fd, err := unix.Openat(p.fd, p.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	f := os.NewFile(uintptr(fd), p.base)
	defer f.Close()
	if err := u.copySparse(f, r); err != nil {
		return err
	}
	if err := setXattrs(p.proc(), hdr); err != nil {
		return err
	}
	return u.settle(fd, u.metaOf(hdr))
}

// copySparse leaves out long runs of zeros, so that a sparse file stays one.
func (u *unpacker) copySparse(f *os.File, r io.Reader) error {
	var size, hole int64
	for {
		n, err := fill(r, u.buf[:])
		size += int64(n)
		if n == len(u.buf) && bytes.Equal(u.buf[:], zeros[:]) {
			hole += int64(n)
		} else if n > 0 {
			if _, err := f.Seek(hole, io.SeekCurrent); err != nil {
				return err
			}
			hole = 0
			if _, err := f.Write(u.buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	if hole > 0 {
		return f.Truncate(size)
	}
	return nil
}

var zeros [64 << 10]byte

// fill is io.ReadFull, but tells the end of the data from data that breaks off.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// makeLink makes a hard link to another file of the layer, or a copy of one that
// a layer below has.
func (u *unpacker) makeLink(p place, hdr *tar.Header) error {
	target, err := entryName(hdr.Linkname)
	if err != nil || target == "" {
		return fmt.Errorf("%w: a hard link to %q", ErrDamaged, hdr.Linkname)
	}
	dir, base := path.Split(target)
	fd, _, err := u.walk(strings.TrimSuffix(dir, "/"), false)
	if err == nil {
		defer unix.Close(fd)
		var st unix.Stat_t
		if err = unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
			if t := st.Mode & unix.S_IFMT; t == unix.S_IFDIR || isWhiteout(&st) {
				return fmt.Errorf("%w: a hard link to %q", ErrDamaged, hdr.Linkname)
			}
			return os.NewSyscallError("linkat", unix.Linkat(fd, base, p.fd, p.base, 0))
		}
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	return u.copyBelow(p, target)
}

// copyBelow makes a file as the layers below have it.
func (u *unpacker) copyBelow(p place, target string) error {
	n, err := u.under.lookup(target)
	if err != nil || !n.info.Mode().IsRegular() {
		return fmt.Errorf("%w: a hard link to %q, which is not there", ErrDamaged, target)
	}
	if err := u.limits.take(n.info.Size()); err != nil {
		return err
	}
	f, err := n.open()
	if err != nil {
		return err
	}
	defer f.Close()
	m := n.meta()
	hdr := &tar.Header{Mode: int64(m.mode), Uid: m.uid, Gid: m.gid, ModTime: m.mtime}
	return u.makeFile(p, hdr, f)
}

// settleNode is settle for what cannot be opened.
func (u *unpacker) settleNode(p place, hdr *tar.Header, chmod bool) error {
	m := u.metaOf(hdr)
	if u.owners {
		if err := unix.Fchownat(p.fd, p.base, m.uid, m.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return os.NewSyscallError("fchownat", err)
		}
	}
	if chmod {
		if err := unix.Fchmodat(p.fd, p.base, m.mode, 0); err != nil {
			return os.NewSyscallError("fchmodat", err)
		}
	}
	if m.mtime.IsZero() {
		return nil
	}
	t := timespec(m.mtime)
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(p.fd, p.base, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW))
}

// setXattrs sets the attributes that programs set for themselves. Those of other
// kinds mean something to the kernel, overlayfs' own too.
func setXattrs(path string, hdr *tar.Header) error {
	for k, v := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok || !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if err := unix.Lsetxattr(path, name, []byte(v), 0); err != nil && err != unix.ENOTSUP {
			return os.NewSyscallError("setxattr", err)
		}
	}
	return nil
}
