//go:build linux

package ociimage

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one name may lead over, as for Linux.
const maxLinks = 40

// openParent opens a directory of the layer for making something in it, and
// makes it where it is missing. Links are followed, below the root. It returns
// where it really is. The descriptor is the unpacker's.
func (u *unpacker) openParent(name string) (fd int, real string, err error) {
	if u.parent.fd >= 0 && u.parent.name == name {
		return u.parent.fd, name, nil
	}
	fd, real, err = u.walk(name, true)
	if err != nil {
		return -1, "", err
	}
	u.forget()
	u.parent.fd, u.parent.name = fd, real
	return fd, real, nil
}

// forget lets go of the directory used last, which may be another one soon.
func (u *unpacker) forget() {
	if u.parent.fd >= 0 {
		unix.Close(u.parent.fd)
		u.parent.fd = -1
	}
}

// walk opens a directory of the layer, element after element. With grow it makes
// what is missing.
func (u *unpacker) walk(name string, grow bool) (fd int, real string, err error) {
	todo := strings.Split(name, "/")
	links := 0
	if fd, err = openBeneath(u.root, "", unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return -1, "", os.NewSyscallError("openat2", err)
	}
	for len(todo) > 0 {
		var next int
		base := todo[0]
		todo = todo[1:]
		switch base {
		case "", ".":
			continue
		case "..":
			real = parentOf(real)
			next, err = openBeneath(u.root, real, unix.O_PATH|unix.O_DIRECTORY)
		default:
			var link string
			next, link, err = u.step(place{fd, real, base}, grow)
			if link != "" {
				if links++; links > maxLinks {
					unix.Close(fd)
					return -1, "", fmt.Errorf("%w: its links lead in a circle", ErrDamaged)
				}
				todo = append(strings.Split(link, "/"), todo...)
				if !path.IsAbs(link) {
					continue
				}
				real = ""
				next, err = openBeneath(u.root, "", unix.O_PATH|unix.O_DIRECTORY)
			} else {
				real = path.Join(real, base)
			}
		}
		unix.Close(fd)
		if fd = next; err != nil {
			return -1, "", err
		}
	}
	return fd, real, nil
}

func parentOf(name string) string {
	if dir := path.Dir(name); dir != "." {
		return dir
	}
	return ""
}

// step opens the directory at p, or tells where the link there leads.
func (u *unpacker) step(p place, grow bool) (fd int, link string, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(p.fd, p.base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && isWhiteout(&st) && grow {
		// Removed by this layer, and now there is something in it after all: a
		// directory that has nothing of the one below.
		return u.replaceWhiteout(p)
	}
	switch {
	case err == unix.ENOENT && grow:
		if err := u.mkdir(p, u.inherited(p.path())); err != nil {
			return -1, "", err
		}
	case err != nil:
		return -1, "", os.NewSyscallError("fstatat", err)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		link, err := readlink(p)
		return -1, link, err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return -1, "", fmt.Errorf("%w: %q is not a directory", ErrDamaged, p.path())
	}
	fd, err = openBeneath(p.fd, p.base, unix.O_PATH|unix.O_DIRECTORY)
	return fd, "", os.NewSyscallError("openat2", err)
}

func (u *unpacker) replaceWhiteout(p place) (fd int, link string, err error) {
	if err := unix.Unlinkat(p.fd, p.base, 0); err != nil {
		return -1, "", os.NewSyscallError("unlinkat", err)
	}
	if err := u.mkdir(p, meta{mode: 0o755}); err != nil {
		return -1, "", err
	}
	if err := setOpaque(p); err != nil {
		return -1, "", err
	}
	fd, err = openBeneath(p.fd, p.base, unix.O_PATH|unix.O_DIRECTORY)
	return fd, "", os.NewSyscallError("openat2", err)
}

// mkdir makes a directory that this process can use, and notes what it will be.
func (u *unpacker) mkdir(p place, m meta) error {
	if err := unix.Mkdirat(p.fd, p.base, 0o700); err != nil {
		return os.NewSyscallError("mkdirat", err)
	}
	u.dirs[p.path()] = m
	return nil
}

func readlink(p place) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(p.fd, p.base, buf)
	if err != nil {
		return "", os.NewSyscallError("readlinkat", err)
	}
	return string(buf[:n]), nil
}
