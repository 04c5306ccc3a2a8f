package localbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/inotify"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// watch is one Watch: an inotify descriptor that the helper made, read here.
type watch struct {
	box   *box
	ctx   context.Context
	file  *os.File
	tree  *inotify.Tree
	queue inotify.Queue
	root  string // with links resolved
	yield func(driver.Change, error) bool
	buf   []byte
}

// Watch implements driver.Watcher with inotify(7).
func (b *box) Watch(ctx context.Context, name string, recursive bool) (iter.Seq2[driver.Change, error], error) {
	var how int64
	if recursive {
		how = wire.WatchBelow
	}
	r, fds, err := b.call(ctx, &wire.Request{Op: wire.OpWatch, Path: name, Num: how}, nil)
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 || len(r.Infos) == 0 {
		wire.CloseFDs(fds)
		return nil, errors.New("the helper did not say what it watches")
	}
	w := &watch{box: b, ctx: ctx, file: os.NewFile(uintptr(fds[0]), "inotify"), root: r.Text}
	found := entries(r.Infos)
	w.tree = inotify.NewTree(w.root, found[0].WD, recursive)
	w.tree.Learn(found)
	// Also for a sequence that nobody ranges over.
	forget := context.AfterFunc(ctx, func() { w.file.Close() })
	var used atomic.Bool
	return func(yield func(driver.Change, error) bool) {
		if used.Swap(true) {
			yield(driver.Change{}, fmt.Errorf("a watch is ranged over twice: %w", driver.ErrInvalid))
			return
		}
		defer forget()
		w.run(yield)
	}, nil
}

func entries(infos []wire.FileInfo) []inotify.Entry {
	list := make([]inotify.Entry, len(infos))
	for i, info := range infos {
		list[i] = inotify.Entry{Path: info.Base, WD: int32(info.Bytes)}
	}
	return list
}

// errStopped ends a watch over which nobody ranges any more.
var errStopped = errors.New("nobody ranges over the watch any more")

// run yields changes until there is a reason to end.
func (w *watch) run(yield func(driver.Change, error) bool) {
	w.yield, w.buf = yield, make([]byte, 64<<10)
	var waiting sync.WaitGroup
	stop := make(chan struct{})
	waiting.Go(func() {
		select {
		case <-w.box.client.Down():
			w.file.Close() // a read of it ends
		case <-stop:
		}
	})
	err := w.changes()
	close(stop)
	w.file.Close()
	waiting.Wait()
	if !errors.Is(err, errStopped) {
		yield(driver.Change{}, err)
	}
}

func (w *watch) changes() error {
	var until time.Time
	for {
		if err := w.read(until); err != nil {
			return err
		}
		for {
			ev, to, wait, ok := w.queue.Next(time.Now())
			if until = wait; !ok {
				break
			}
			if err := w.handle(w.tree.Event(ev, to)); err != nil {
				return err
			}
		}
	}
}

// read waits for events, until the time given if it is not zero.
func (w *watch) read(until time.Time) error {
	if err := w.file.SetReadDeadline(until); err != nil {
		return w.over(err)
	}
	if until.IsZero() && w.drained() {
		w.tree.Drained()
	}
	n, err := w.file.Read(w.buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		return w.over(err)
	}
	events, err := inotify.Parse(w.buf[:n])
	if err != nil {
		return err
	}
	w.queue.Add(events, time.Now())
	return nil
}

// drained reports whether no event waits.
func (w *watch) drained() (yes bool) {
	if raw, err := w.file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ) // FIONREAD by its other name
			yes = err == nil && n == 0
		})
	}
	return yes
}

// over says why nothing can be read any more.
func (w *watch) over(err error) error {
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	select {
	case <-w.box.client.Down():
		return w.box.lost(w.ctx, wire.ErrDown)
	default:
		return err
	}
}

func (w *watch) handle(r inotify.Result) error {
	if err := w.tell(r.Changes); err != nil {
		return err
	}
	w.drop(r.Drop)
	switch {
	case r.Gone:
		return w.gone()
	case r.Rescan:
		return w.rescan()
	case r.Scan != "":
		return w.scan(r.Scan)
	}
	return nil
}

func (w *watch) tell(changes []driver.Change) error {
	for _, c := range changes {
		if !w.yield(c, nil) {
			return errStopped
		}
		if w.ctx.Err() != nil {
			return w.ctx.Err()
		}
	}
	return nil
}

// drop ends watches; those that have ended by themselves are no matter.
func (w *watch) drop(wds []int32) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for _, wd := range wds {
			_, _ = unix.InotifyRmWatch(int(fd), uint32(wd))
		}
	})
}

// gone tells a root that was removed from a sandbox that was.
func (w *watch) gone() error {
	if _, err := w.box.Files().Stat(w.ctx, w.root); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return &fs.PathError{Op: "watch", Path: w.root, Err: fs.ErrNotExist}
}

// ask has the helper add watches to the descriptor.
// It returns where path has led.
func (w *watch) ask(path string, how int64) (resolved string, found []inotify.Entry, err error) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return "", nil, w.over(err)
	}
	var r *wire.Reply
	cerr := raw.Control(func(fd uintptr) {
		r, _, err = w.box.call(w.ctx, &wire.Request{Op: wire.OpWatch, Path: path, Num: how}, nil, int(fd))
	})
	switch {
	case cerr != nil:
		return "", nil, w.over(cerr)
	case err != nil:
		return "", nil, err
	}
	return r.Text, entries(r.Infos), nil
}

// scan watches a directory that is new, and tells of what is in it already.
func (w *watch) scan(dir string) error {
	resolved, found, err := w.ask(dir, wire.WatchBelow|wire.WatchList)
	switch {
	case err == nil && resolved != dir:
		return nil // it is a link by now
	case err == nil:
		return w.tell(w.tree.Found(dir, found))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrInvalid),
		errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil // gone or another by now, or closed to the sandbox's user
	}
	return err
}

// rescan finds all directories anew.
func (w *watch) rescan() error {
	resolved, found, err := w.ask(w.root, wire.WatchBelow)
	if errors.Is(err, fs.ErrNotExist) || err == nil && resolved != w.root {
		return w.gone()
	}
	if err != nil {
		return err
	}
	w.drop(w.tree.Learn(found))
	return nil
}
