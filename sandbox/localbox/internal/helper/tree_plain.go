//go:build unix

package helper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// plainTree is the files of a sandbox that is not isolated: a directory of this
// machine, which names and links cannot leave.
type plainTree struct {
	dir  string
	root *os.Root
}

func newPlainTree(dir string) (tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &plainTree{dir: dir, root: root}, nil
}

// rel is the name below the directory.
func (t *plainTree) rel(name string) (string, error) {
	if name == t.dir {
		return ".", nil
	}
	rel, ok := strings.CutPrefix(name, t.dir+"/")
	if !ok {
		return "", &fs.PathError{Op: "open", Path: name,
			Err: fmt.Errorf("outside of the sandbox's directory %s: %w", t.dir, fs.ErrPermission)}
	}
	return rel, nil
}

// with runs do with the name below the directory.
func (t *plainTree) with(name string, do func(rel string) error) error {
	rel, err := t.rel(name)
	if err != nil {
		return err
	}
	err = do(rel)
	if !escapes(err) {
		return err
	}
	// A link to an absolute path that is inside: os.Root knows only that it is
	// absolute.
	if inside, ok := t.resolve(rel); ok {
		err = do(inside)
	}
	if escapes(err) {
		return &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("leads out of the sandbox: %w", fs.ErrPermission)}
	}
	return err
}

// escapes reports whether os.Root refused a path that leads out.
func escapes(err error) bool {
	var pe *fs.PathError
	var errno unix.Errno
	return errors.As(err, &pe) && !errors.As(err, &errno) && pe.Err.Error() == "path escapes from parent"
}

// maxLinks is how many links a name may go through, as for the kernel.
const maxLinks = 40

// resolve replaces the links in rel that are absolute and lead inside.
func (t *plainTree) resolve(rel string) (string, bool) {
	for range maxLinks {
		next, done, ok := t.step(rel)
		if !ok || done {
			return next, ok
		}
		rel = next
	}
	return "", false
}

// step replaces the first such link.
func (t *plainTree) step(rel string) (next string, done, ok bool) {
	parts := strings.Split(rel, "/")
	for i := range parts {
		at := filepath.Join(parts[:i+1]...)
		link, err := t.root.Readlink(at)
		if err != nil {
			continue
		}
		rest := filepath.Join(parts[i+1:]...)
		if !filepath.IsAbs(link) {
			return filepath.Join(filepath.Dir(at), link, rest), false, true
		}
		inside, err := t.rel(filepath.Clean(link))
		return filepath.Join(inside, rest), false, err == nil
	}
	return rel, true, true
}

func (t *plainTree) open(name string, flag int, perm fs.FileMode) (f *os.File, err error) {
	err = t.with(name, func(rel string) error {
		f, err = t.root.OpenFile(rel, flag, perm.Perm())
		return err
	})
	return f, err
}

func (t *plainTree) stat(name string, follow bool) (info fs.FileInfo, err error) {
	err = t.with(name, func(rel string) error {
		if follow {
			info, err = t.root.Stat(rel)
		} else {
			info, err = t.root.Lstat(rel)
		}
		return err
	})
	return info, err
}

func (t *plainTree) readDir(name string) (infos []wire.FileInfo, err error) {
	err = t.with(name, func(rel string) error {
		infos, err = listRoot(t.root, rel)
		return err
	})
	return infos, err
}

func listRoot(root *os.Root, rel string) ([]wire.FileInfo, error) {
	f, err := root.OpenFile(rel, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	infos := make([]wire.FileInfo, 0, len(names))
	for _, base := range names {
		info, err := root.Lstat(filepath.Join(rel, base))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, wire.NewFileInfo(base, info))
	}
	return infos, nil
}

func (t *plainTree) readLink(name string) (target string, err error) {
	err = t.with(name, func(rel string) error {
		target, err = t.root.Readlink(rel)
		return err
	})
	return target, err
}

func (t *plainTree) mkdir(name string, perm fs.FileMode) error {
	return t.with(name, func(rel string) error { return t.root.Mkdir(rel, perm.Perm()) })
}

func (t *plainTree) mkdirAll(name string, perm fs.FileMode) error {
	return t.with(name, func(rel string) error { return t.root.MkdirAll(rel, perm.Perm()) })
}

func (t *plainTree) rename(from, to string) error {
	return t.with(from, func(a string) error {
		return t.with(to, func(b string) error { return t.root.Rename(a, b) })
	})
}

func (t *plainTree) remove(name string) error {
	return t.with(name, func(rel string) error { return t.root.Remove(rel) })
}

func (t *plainTree) removeAll(name string) error {
	return t.with(name, func(rel string) error { return t.root.RemoveAll(rel) })
}

func (t *plainTree) symlink(target, name string) error {
	return t.with(name, func(rel string) error { return t.root.Symlink(target, rel) })
}

func (t *plainTree) chmod(name string, mode fs.FileMode) error {
	return t.with(name, func(rel string) error { return t.root.Chmod(rel, mode) })
}

func (t *plainTree) chtimes(name string, atime, mtime time.Time) error {
	return t.with(name, func(rel string) error { return t.root.Chtimes(rel, atime, mtime) })
}

func (t *plainTree) saved() map[string]string {
	return map[string]string{
		"workspace": t.dir + "/workspace",
		"home/user": t.dir + "/home",
		"tmp":       t.dir + "/tmp",
	}
}
