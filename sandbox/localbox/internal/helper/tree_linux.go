package helper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// isolatedTree is the files of an isolated sandbox: all that its own root
// shows, but for /proc and /dev.
type isolatedTree struct {
	refused map[uint64]bool // ids of the mounts at and below /proc and /dev
}

func newTree(boot *wire.Boot) (tree, error) {
	if boot.Plain {
		return newPlainTree(boot.Root)
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return &isolatedTree{refused: refusedMounts(string(text))}, nil
}

// refusedMounts picks the mounts' ids out of proc_pid_mountinfo(5).
func refusedMounts(mountinfo string) map[uint64]bool {
	refused := make(map[uint64]bool)
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		for _, top := range []string{"/proc", "/dev", "/sys"} {
			if point := fields[4]; point == top || strings.HasPrefix(point, top+"/") {
				id, err := strconv.ParseUint(fields[0], 10, 64)
				if err == nil {
					refused[id] = true
				}
			}
		}
	}
	return refused
}

// openat opens a name for good, if it is where names may lead.
func (t *isolatedTree) openat(op, name string, flags int, perm uint32) (int, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Mode:    uint64(perm),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, &fs.PathError{Op: op, Path: name, Err: err}
	}
	var st unix.Statx_t
	if err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err == nil && t.refused[st.Mnt_id] {
		err = unix.EACCES
	}
	if err != nil {
		unix.Close(fd)
		return -1, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return fd, nil
}

// parent runs do with the directory that holds name, and name's last element.
func (t *isolatedTree) parent(op, name string, do func(dir int, base string) error) error {
	if name == "/" {
		return &fs.PathError{Op: op, Path: name, Err: unix.EBUSY}
	}
	dir, err := t.openat(op, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := do(dir, path.Base(name)); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (t *isolatedTree) open(name string, flag int, perm fs.FileMode) (*os.File, error) {
	var mode uint32
	if flag&os.O_CREATE != 0 { // openat2 refuses a mode without
		mode = uint32(perm.Perm())
	}
	fd, err := t.openat("open", name, flag|unix.O_LARGEFILE, mode)
	if err != nil {
		// A device's refusal to be opened says less than ours.
		if at, perr := t.openat("open", name, unix.O_PATH, 0); perr == nil {
			unix.Close(at)
		} else if errors.Is(perr, fs.ErrPermission) {
			return nil, perr
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (t *isolatedTree) stat(name string, follow bool) (fs.FileInfo, error) {
	op, flags := "stat", unix.O_PATH
	if !follow {
		op, flags = "lstat", flags|unix.O_NOFOLLOW
	}
	fd, err := t.openat(op, name, flags, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return f.Stat()
}

func (t *isolatedTree) readDir(name string) ([]wire.FileInfo, error) {
	fd, err := t.openat("readdir", name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	infos := make([]wire.FileInfo, 0, len(names))
	for _, base := range names {
		var st unix.Stat_t
		err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, &fs.PathError{Op: "lstat", Path: path.Join(name, base), Err: err}
		}
		infos = append(infos, wire.FileInfo{Base: base, Bytes: st.Size, Perm: fileMode(uint32(st.Mode)),
			MTime: unix.TimespecToNsec(st.Mtim), UID: int(st.Uid), GID: int(st.Gid)})
	}
	return infos, nil
}

func (t *isolatedTree) readLink(name string) (target string, err error) {
	err = t.parent("readlink", name, func(dir int, base string) error {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, base, buf)
		if err != nil {
			return err
		}
		target = string(buf[:n])
		return nil
	})
	return target, err
}

func (t *isolatedTree) mkdir(name string, perm fs.FileMode) error {
	if name == "/" {
		return &fs.PathError{Op: "mkdir", Path: name, Err: unix.EEXIST}
	}
	return t.parent("mkdir", name, func(dir int, base string) error {
		return unix.Mkdirat(dir, base, uint32(perm.Perm()))
	})
}

// mkdirAll makes what is missing, from the top.
func (t *isolatedTree) mkdirAll(name string, perm fs.FileMode) error {
	info, err := t.stat(name, true)
	if err == nil {
		if info.IsDir() {
			return nil
		}
		return &fs.PathError{Op: "mkdir", Path: name, Err: unix.ENOTDIR}
	}
	if !errors.Is(err, fs.ErrNotExist) || name == "/" {
		return err
	}
	if err := t.mkdirAll(path.Dir(name), perm); err != nil {
		return err
	}
	err = t.mkdir(name, perm)
	if errors.Is(err, fs.ErrExist) { // somebody was faster, or a link leads nowhere
		if info, serr := t.stat(name, true); serr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

func (t *isolatedTree) rename(from, to string) error {
	return t.parent("rename", from, func(fromDir int, fromBase string) error {
		return t.parent("rename", to, func(toDir int, toBase string) error {
			return unix.Renameat(fromDir, fromBase, toDir, toBase)
		})
	})
}

func (t *isolatedTree) remove(name string) error {
	return t.parent("remove", name, func(dir int, base string) error {
		err := unix.Unlinkat(dir, base, 0)
		if err != unix.EISDIR {
			return err
		}
		return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
	})
}

func (t *isolatedTree) removeAll(name string) error {
	err := t.parent("removeall", name, func(dir int, base string) error {
		// It goes down by descriptors, from the directory that was opened.
		return os.RemoveAll(fmt.Sprintf("/proc/self/fd/%d/%s", dir, base))
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (t *isolatedTree) symlink(target, name string) error {
	return t.parent("symlink", name, func(dir int, base string) error {
		return unix.Symlinkat(target, dir, base)
	})
}

// through runs do with a path that leads to name's file and nowhere else.
func (t *isolatedTree) through(op, name string, do func(path string) error) error {
	fd, err := t.openat(op, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := do(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (t *isolatedTree) chmod(name string, mode fs.FileMode) error {
	return t.through("chmod", name, func(p string) error { return unix.Chmod(p, chmodBits(mode)) })
}

func (t *isolatedTree) chtimes(name string, atime, mtime time.Time) error {
	return t.through("chtimes", name, func(p string) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{timespec(atime), timespec(mtime)}, 0)
	})
}

func timespec(t time.Time) unix.Timespec { return unix.NsecToTimespec(t.UnixNano()) }

func (t *isolatedTree) saved() map[string]string {
	return map[string]string{"workspace": "/workspace", "home/user": "/home/user", "tmp": "/tmp"}
}

// fileMode is st_mode (inode(7)) as package fs has it.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	}
	if m&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if m&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if m&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}
