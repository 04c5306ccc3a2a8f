package fstools

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// maxLinks is how many symbolic links Linux follows in one path.
const maxLinks = 40

// write takes stdin for a file's new content, which appears all at once when
// stdin has ended.
func (t *tool) write(name string) error {
	name, old, err := t.resolve(name)
	if err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if old != nil {
		if perm, err = t.writable(name); err != nil {
			return err
		}
	}
	temp := path.Join(path.Dir(name), ".modal-sandbox-fs-tmp-"+rand.Text()[:12])
	f, err := t.create(temp, perm)
	if err != nil {
		if old != nil && errors.Is(err, fs.ErrPermission) {
			return t.overwrite(name)
		}
		return err
	}
	_, err = t.stdin.WriteTo(f)
	info, serr := f.Stat()
	err = errors.Join(err, serr, f.Close())
	if err == nil && info.Mode()&settable != perm { // the umask, or a bit that open(2) does not set
		err = t.fsys.Chmod(t.ctx, temp, perm)
	}
	if err == nil {
		err = t.fsys.Rename(t.ctx, temp, name)
	}
	if err != nil {
		return errors.Join(err, t.cleanUp(temp))
	}
	return nil
}

// settable are the bits of a mode that can be set.
const settable = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// create makes a file, and its directory where that is missing: each question to
// the sandbox takes as long as a small file's content.
func (t *tool) create(name string, perm fs.FileMode) (driver.File, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err := t.fsys.OpenFile(t.ctx, name, flags, perm.Perm())
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := t.fsys.MkdirAll(t.ctx, path.Dir(name), 0o755); err != nil {
		return nil, err
	}
	return t.fsys.OpenFile(t.ctx, name, flags, perm.Perm())
}

// resolve follows symbolic links of the last name, since what a link points to
// is written, not the link. info is nil when there is nothing yet.
func (t *tool) resolve(name string) (_ string, info fs.FileInfo, err error) {
	for range maxLinks {
		info, err = t.fsys.Lstat(t.ctx, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return name, nil, nil
		case err != nil:
			return "", nil, err
		case info.IsDir():
			return "", nil, fail(kindIsDirectory)
		case info.Mode()&fs.ModeSymlink == 0:
			return name, info, nil
		}
		target, err := t.fsys.ReadLink(t.ctx, name)
		if err != nil {
			return "", nil, err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		name = path.Clean(target)
	}
	return "", nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
}

// writable asks whether the file itself could be written, as a rename would not,
// and gives its permissions.
func (t *tool) writable(name string) (fs.FileMode, error) {
	f, err := t.fsys.OpenFile(t.ctx, name, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	return info.Mode() & settable, nil
}

// overwrite is for a file in a directory where none can be made.
func (t *tool) overwrite(name string) error {
	f, err := t.fsys.OpenFile(t.ctx, name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = t.stdin.WriteTo(f)
	return errors.Join(err, f.Close())
}

// cleanUp removes what was not finished, also when the tool was killed.
func (t *tool) cleanUp(name string) error {
	ctx, cancel := afterKill(t.ctx)
	defer cancel()
	err := t.fsys.Remove(ctx, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, driver.ErrEnded) {
		return nil
	}
	return err
}

func (t *tool) mkdir(r *makeRequest) error {
	if !r.Parents {
		return t.fsys.Mkdir(t.ctx, r.Path, 0o755)
	}
	err := t.fsys.MkdirAll(t.ctx, r.Path, 0o755)
	if err == nil {
		return nil
	}
	if info, serr := t.fsys.Stat(t.ctx, r.Path); serr == nil && !info.IsDir() {
		return fail(kindAlreadyExists)
	}
	return err
}

func (t *tool) remove(r *removeRequest) error {
	if !r.Recursive {
		return t.fsys.Remove(t.ctx, r.Path)
	}
	// RemoveAll takes nothing there for success.
	if _, err := t.fsys.Lstat(t.ctx, r.Path); err != nil {
		return err
	}
	return t.fsys.RemoveAll(t.ctx, r.Path)
}
