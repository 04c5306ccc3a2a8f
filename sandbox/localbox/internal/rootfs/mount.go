//go:build linux

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Attributes of what is shown of the machine.
const readOnly = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

// Source opens path as a detached copy of its mounts, read-only, that can be
// attached anywhere once. path is not followed when it is a link itself.
func Source(path string) (fd int, err error) { return openSourceTree(path, readOnly) }

// WritableSource is Source, but what is mounted there stays as writable as it is.
func WritableSource(path string) (fd int, err error) {
	return openSourceTree(path, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}

func openSourceTree(path string, attr uint64) (fd int, err error) {
	fd, err = unix.OpenTree(unix.AT_FDCWD, path,
		unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, &fs.PathError{Op: "open_tree", Path: path, Err: err}
	}
	if err := restrict(fd, attr, unix.AT_RECURSIVE); err != nil {
		unix.Close(fd)
		return -1, &fs.PathError{Op: "mount_setattr", Path: path, Err: err}
	}
	return fd, nil
}

func restrict(fd int, attr uint64, flags uint) error {
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|flags, &unix.MountAttr{Attr_set: attr})
}

// attach puts a detached mount at target below the new root, which is the
// current directory, and closes it. Links in target are resolved as the inside
// will see them.
func attach(fd int, target string) error {
	defer unix.Close(fd)
	at, err := within(target, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	err = unix.MoveMount(fd, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return &fs.PathError{Op: "move_mount", Path: target, Err: err}
	}
	return nil
}

// within opens an absolute path as if the current directory were the root.
func within(path string, flags int) (int, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, &fs.PathError{Op: "openat2", Path: path, Err: err}
	}
	return fd, nil
}

// makePoint makes an empty file or directory at path, and the directories above
// it, where they are missing.
func makePoint(path string, dir bool) error {
	fd, err := within(path, unix.O_PATH)
	if err == nil {
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; isDir != dir {
			return &fs.PathError{Op: "mount", Path: path, Err: unix.EEXIST}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) || path == "/" {
		return err
	}
	if err := makePoint(filepath.Dir(path), true); err != nil {
		return err
	}
	parent, err := within(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if dir {
		err = unix.Mkdirat(parent, filepath.Base(path), 0o755)
	} else {
		err = unix.Mknodat(parent, filepath.Base(path), unix.S_IFREG|0o444, 0)
	}
	if err != nil {
		return &fs.PathError{Op: "mount", Path: path, Err: err}
	}
	return nil
}

// show makes what path is on this machine visible at the same path inside: a
// link as a link, a file or a directory as a read-only mount. What is not there
// is left out.
func show(sources map[string]source, path string) error {
	s, ok := sources[path]
	if !ok {
		return nil
	}
	rel := path[1:]
	if err := os.MkdirAll(filepath.Dir(rel), 0o755); err != nil {
		return err
	}
	if s.link != "" {
		return os.Symlink(s.link, rel)
	}
	if err := makePoint(path, s.dir); err != nil {
		return err
	}
	return attach(s.fd, path)
}

// source is a part of the machine, opened while it can still be seen.
type source struct {
	fd   int
	dir  bool
	link string
}

func openSource(lower, path string) (source, bool, error) {
	full := filepath.Join(lower, path)
	info, err := os.Lstat(full)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return source{}, false, nil
	case err != nil:
		return source{}, false, err
	case info.Mode()&fs.ModeSymlink != 0:
		link, err := os.Readlink(full)
		return source{fd: -1, link: link}, err == nil, err
	case !info.IsDir() && !info.Mode().IsRegular() && info.Mode()&fs.ModeDevice == 0:
		return source{}, false, nil
	}
	fd, err := Source(full)
	if err != nil {
		return source{}, false, err
	}
	return source{fd: fd, dir: info.IsDir()}, true, nil
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}
