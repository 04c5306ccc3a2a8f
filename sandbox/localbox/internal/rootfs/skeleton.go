//go:build linux

package rootfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
)

// points are directories that something is mounted on, or that commands need,
// whatever the image has.
var points = map[string]fs.FileMode{
	"proc": 0o555, "dev": 0o755, "sys": 0o555, "etc": 0o755, "run": 0o755,
	"tmp": 0o777 | fs.ModeSticky,
}

// hostDirs are the other directories of a root with this machine's programs.
var hostDirs = map[string]fs.FileMode{
	"root": 0o700, "home": 0o755, "opt": 0o755, "srv": 0o755, "mnt": 0o755, "media": 0o755, "workspace": 0o755,
	"run/lock": 0o777 | fs.ModeSticky,
	"var":      0o755, "var/backups": 0o755, "var/cache": 0o755, "var/lib": 0o755, "var/local": 0o755,
	"var/log": 0o755, "var/mail": 0o755, "var/opt": 0o755, "var/spool": 0o755,
	"var/tmp": 0o777 | fs.ModeSticky,
}

// blank makes the lowest layer: what must be there although an image has it not.
func (b *builder) blank() error {
	if err := os.Mkdir(blankDir, 0o755); err != nil {
		return err
	}
	if err := makeDirs(blankDir, points); err != nil {
		return err
	}
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		if err := os.WriteFile(filepath.Join(blankDir, "etc", name), nil, 0o644); err != nil {
			return err
		}
	}
	if !b.spec.Image.Host {
		return nil
	}
	if err := makeDirs(blankDir, hostDirs); err != nil {
		return err
	}
	return b.hostBlank()
}

func makeDirs(base string, dirs map[string]fs.FileMode) error {
	names := make([]string, 0, len(dirs))
	for name := range dirs {
		names = append(names, name)
	}
	sort.Strings(names) // a directory before what is in it
	for _, name := range names {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(path, dirs[name]); err != nil {
			return err
		}
	}
	return nil
}

// hostBlank copies what may be seen of this machine's /etc, so that the inside
// can change it, and makes places and links for programs.
func (b *builder) hostBlank() error {
	for _, path := range programs {
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case info.Mode()&fs.ModeSymlink != 0:
			err = copyLink(path, filepath.Join(blankDir, path))
		case info.IsDir():
			err = os.Mkdir(filepath.Join(blankDir, path), 0o755)
		}
		if err != nil {
			return err
		}
	}
	for link, to := range map[string]string{"var/run": "/run", "var/lock": "/run/lock", "etc/mtab": "/proc/mounts"} {
		if err := os.Symlink(to, filepath.Join(blankDir, link)); err != nil {
			return err
		}
	}
	for _, path := range etcShown {
		if err := copyTree(path, filepath.Join(blankDir, path)); err != nil {
			return err
		}
	}
	shell := b.shell("/")
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:" + shell + "\n" + nobodyPasswd,
		"group":  "root:x:0:\n" + nobodyGroup,
	} {
		if err := writeEtc(blankDir, name, text); err != nil {
			return err
		}
	}
	return writeEtcCommon(blankDir, shell)
}

// copyTree copies what everybody may read at path; the rest is left out, as is
// what is neither file, directory nor link.
func copyTree(path, to string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return unseen(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return copyLink(path, to)
	case info.Mode().IsRegular() && info.Mode()&0o004 != 0:
		return copyFile(path, to, info.Mode().Perm())
	case info.IsDir():
		return copyDir(path, to)
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

func copyDir(path, to string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return unseen(err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
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
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm|0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
