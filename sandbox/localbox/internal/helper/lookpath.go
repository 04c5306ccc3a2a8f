//go:build unix

package helper

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// lookPath finds the program name as a shell in the sandbox would: in the PATH
// of env, relative entries and names taken from dir.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if err := executable(path); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return "", &notFound{name, err}
			}
			return "", &fs.PathError{Op: "exec", Path: name, Err: err}
		}
		return path, nil
	}
	var denied error
	for _, elem := range filepath.SplitList(pathOf(env)) {
		if !filepath.IsAbs(elem) {
			elem = filepath.Join(dir, elem)
		}
		path := filepath.Join(elem, name)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if errors.Is(err, fs.ErrPermission) && denied == nil {
			denied = &fs.PathError{Op: "exec", Path: path, Err: err}
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// notFound is a program named by a path that leads nowhere: as os/exec, it
// matches what the system says; also, it is a program that is not found.
type notFound struct {
	name string
	err  error
}

func (e *notFound) Error() string   { return "exec " + e.name + ": " + e.err.Error() }
func (e *notFound) Unwrap() []error { return []error{exec.ErrNotFound, e.err} }

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return err
	}
	if info.IsDir() {
		return syscall.EACCES
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

func pathOf(env []string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], "PATH="); ok {
			return v
		}
	}
	return ""
}

// programDirs are searched after the usual ones where they exist.
var programDirs = []string{"/usr/local/go/bin", "/opt/claude", "/opt/homebrew/bin"}

// baseEnv is the environment of every command; nothing of it is the host's.
// user is who commands run as, with an image.
func baseEnv(boot *wire.Boot, user *identity) []string {
	if boot.Image {
		env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + user.home}
		return mergeEnv(env, boot.Env)
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, dir := range programDirs {
		if _, err := os.Stat(dir); err == nil {
			path += ":" + dir
		}
	}
	env := []string{"PATH=" + path, "USER=user", "LOGNAME=user", "LANG=C.UTF-8"}
	if boot.Plain {
		env = append(env, "HOME="+boot.Root+"/home", "TMPDIR="+boot.Root+"/tmp")
	} else {
		env = append(env, "HOME=/home/user")
	}
	return mergeEnv(env, boot.Env)
}
