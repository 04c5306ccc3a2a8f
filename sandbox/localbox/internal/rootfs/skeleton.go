//go:build linux

package rootfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// points are directories that something is mounted on, or that commands need,
// whatever the image has.
var points = map[string]fs.FileMode{
	"proc": 0o555, "dev": 0o755, "sys": 0o555, "etc": 0o755, "run": 0o755,
	"tmp": 0o777 | fs.ModeSticky,
}

// hostDirs are the other directories of a root with this machine's programs.
var hostDirs = map[string]fs.FileMode{
	"etc": 0o755, "run": 0o755,
	"root": 0o700, "home": 0o755, "opt": 0o755, "srv": 0o755, "mnt": 0o755, "media": 0o755, "workspace": 0o755,
	"run/lock": 0o777 | fs.ModeSticky,
	"var":      0o755, "var/backups": 0o755, "var/cache": 0o755, "var/lib": 0o755, "var/local": 0o755,
	"var/log": 0o755, "var/mail": 0o755, "var/opt": 0o755, "var/spool": 0o755,
	"var/tmp": 0o777 | fs.ModeSticky,
}

// blank makes the lowest layer: what must be there although an image has it not.
func (b *builder) blank() error {
	if err := mkdir(blankDir, 0o755); err != nil {
		return err
	}
	if err := makeDirs(blankDir, points); err != nil {
		return err
	}
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		if err := writeEtc(blankDir, name, ""); err != nil {
			return err
		}
	}
	if img := b.spec.Image; !img.Host || img.Skeleton {
		return nil
	}
	return Skeleton(skeletonDir)
}

// mkdir makes a directory with exactly this mode.
func mkdir(path string, mode fs.FileMode) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func makeDirs(base string, dirs map[string]fs.FileMode) error {
	for _, name := range slices.Sorted(maps.Keys(dirs)) { // a directory before what is in it
		if err := mkdir(filepath.Join(base, name), dirs[name]); err != nil {
			return err
		}
	}
	return nil
}

// Skeleton makes dir, the layer that a root with this machine's programs has
// lowest: what may be seen of this machine's /etc, copied, so that the inside can
// change it; places and links for programs; and, empty, the directories of
// programs that software is put into, so that they belong to the root inside. It
// has nothing that not everybody here may read.
func Skeleton(dir string) error {
	if err := mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := makeDirs(dir, hostDirs); err != nil {
		return err
	}
	for _, path := range programs {
		if err := programPlace(dir, path); err != nil {
			return err
		}
	}
	for link, to := range map[string]string{"var/run": "/run", "var/lock": "/run/lock", "etc/mtab": "/proc/mounts"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			return err
		}
	}
	for _, path := range etcShown {
		if err := copyTree(path, filepath.Join(dir, path)); err != nil {
			return err
		}
	}
	shell := shellBelow("/")
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:" + shell + "\n" + nobodyPasswd,
		"group":  "root:x:0:\n" + nobodyGroup,
	} {
		if err := writeEtc(dir, name, text); err != nil {
			return err
		}
	}
	return writeEtcCommon(dir, shell)
}

// programPlace makes in dir what path is on this machine: a link, or a directory.
func programPlace(dir, path string) error {
	info, err := os.Lstat(path)
	to := filepath.Join(dir, path)
	switch {
	case err != nil:
		return unseen(err)
	case info.Mode()&fs.ModeSymlink != 0:
		return copyLink(path, to)
	case info.IsDir():
		return copyDirs(path, to, path == "/usr")
	}
	return nil
}

// copyDirs makes the directory to like path, with the directories in it and,
// when deep, those in directories that software is put into.
func copyDirs(path, to string, deep bool) error {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || !isOpen(info) {
		return unseen(err)
	}
	if err := mkdir(to, info.Mode().Perm()); err != nil {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return unseen(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		from, to := filepath.Join(path, e.Name()), filepath.Join(to, e.Name())
		switch e.Name() {
		case "lib", "libexec", "local", "share":
			if deep {
				err = copyDirs(from, to, e.Name() == "local")
				break
			}
			fallthrough
		default:
			err = copyLeaf(from, to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyLeaf makes the directory to like path, and nothing in it.
func copyLeaf(path, to string) error {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || !isOpen(info) {
		return unseen(err)
	}
	return mkdir(to, info.Mode().Perm())
}

// isOpen reports whether everybody may read a file, or look into a directory.
func isOpen(info fs.FileInfo) bool {
	const read, enter = 0o004, 0o001
	need := fs.FileMode(read)
	if info.IsDir() {
		need |= enter
	}
	return info.Mode()&need == need
}

// copyTree copies what everybody may read at path; the rest is left out, as is
// what is neither file, directory nor link.
func copyTree(path, to string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return unseen(err)
	}
	if err := mkdirAll(filepath.Dir(to)); err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return copyLink(path, to)
	case info.Mode().IsRegular() && isOpen(info):
		return copyFile(path, to, info.Mode().Perm())
	case info.IsDir() && isOpen(info):
		return copyDir(path, to, info.Mode().Perm())
	}
	return nil
}

// unseen forgives what is not there, or not for this user.
func unseen(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// mkdirAll makes a directory and those above it, whatever this process's umask.
func mkdirAll(path string) error {
	err := mkdir(path, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err := mkdirAll(filepath.Dir(path)); err != nil {
			return err
		}
		return mkdir(path, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func copyDir(path, to string, perm fs.FileMode) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return unseen(err)
	}
	if err := mkdir(to, perm|0o700); err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyTree(filepath.Join(path, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyLink(path, to string) error {
	target, err := os.Readlink(path)
	if err != nil {
		return unseen(err)
	}
	return os.Symlink(target, to)
}

func copyFile(path, to string, perm fs.FileMode) error {
	from, err := os.Open(path)
	if err != nil {
		return unseen(err)
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Chmod(perm|0o600), f.Close())
}
