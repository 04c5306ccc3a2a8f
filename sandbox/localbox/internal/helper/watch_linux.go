package helper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/inotify"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// watch makes an inotify descriptor, or adds to the one that came with the
// request: the client holds it, and nothing is left here. The reply names what
// is watched, in its Text the first, with links resolved.
func (b *box) watch(s *session, req *wire.Request, fds []int) (reply wire.Reply, out []int, err error) {
	if err := checkPath(req.Path); err != nil {
		return reply, nil, err
	}
	b.files <- struct{}{}
	defer func() { <-b.files }()
	w := &watcher{box: b, session: s, id: req.ID, recursive: req.Num&wire.WatchBelow != 0, list: req.Num&wire.WatchList != 0}
	switch len(fds) {
	case 0:
		if w.fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
			return reply, nil, watchError(err)
		}
		out = []int{w.fd}
	case 1:
		w.fd = fds[0]
	default:
		return reply, nil, fmt.Errorf("%d descriptors came with a watch: %w", len(fds), driver.ErrInvalid)
	}
	reply.Text, err = w.top(req.Path)
	if err != nil {
		wire.CloseFDs(out)
		return reply, nil, err
	}
	reply.Infos = w.found
	return reply, out, nil
}

// watcher adds watches for one request.
type watcher struct {
	box             *box
	session         *session
	id              uint64
	fd              int
	recursive, list bool
	found           []wire.FileInfo // not sent yet
}

// top watches what the request names, and what is below it.
func (w *watcher) top(name string) (resolved string, err error) {
	info, err := w.box.tree.stat(name, true)
	if err != nil {
		return "", err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return "", notPlain(name, unix.ENXIO)
	}
	f, err := w.box.tree.open(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if resolved, err = os.Readlink(procPath(f)); err != nil {
		return "", err
	}
	wd, err := w.add(f)
	if err != nil {
		return "", err
	}
	w.tell(resolved, wd, info.Mode())
	if !info.IsDir() || !w.recursive {
		return resolved, nil
	}
	return resolved, w.below(f, resolved)
}

func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// add watches an open file: by its descriptor, since its name may lead
// elsewhere by now.
func (w *watcher) add(f *os.File) (int, error) {
	wd, err := unix.InotifyAddWatch(w.fd, procPath(f), inotify.Mask)
	if err != nil {
		return 0, watchError(err)
	}
	return wd, nil
}

// watchError says which of the machine's limits was met (inotify(7)).
func watchError(err error) error {
	switch {
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("%w: as many watches run as fs.inotify.max_user_instances allows: %w", driver.ErrExhausted, err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: as many directories are watched as fs.inotify.max_user_watches allows: %w", driver.ErrExhausted, err)
	}
	return os.NewSyscallError("inotify", err)
}

// below watches the directories in an open one that is watched already, so that
// what is made while it is read comes as an event.
func (w *watcher) below(dir *os.File, name string) error {
	entries, err := dir.ReadDir(-1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		at := path.Join(name, e.Name())
		if !e.IsDir() {
			if w.list {
				w.tell(at, 0, e.Type())
			}
			continue
		}
		if err := w.descend(at); err != nil {
			return err
		}
	}
	return nil
}

// descend watches a directory that a walk has come to. One that is gone by now,
// or that the sandbox's user may not read, is left out.
func (w *watcher) descend(name string) error {
	f, err := w.box.tree.open(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return err
	case err != nil:
		if w.list && errors.Is(err, fs.ErrPermission) {
			w.tell(name, 0, fs.ModeDir)
		}
		return nil
	}
	defer f.Close()
	wd, err := w.add(f)
	if err != nil {
		return err
	}
	w.tell(name, wd, fs.ModeDir)
	return w.below(f, name)
}

func (w *watcher) tell(name string, wd int, mode fs.FileMode) {
	w.found = append(w.found, wire.FileInfo{Base: name, Bytes: int64(wd), Perm: mode})
	if len(w.found) >= pageSize {
		w.session.pushSlowly(wire.Reply{ID: w.id, More: true, Infos: w.found})
		w.found = nil
	}
}
