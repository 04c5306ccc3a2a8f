package modalbox

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"strings"
	"sync"
	"time"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// touchScript changes nothing but what a watch reports: the file's status.
const touchScript = `m=$(stat -L -c %a -- "$1") && chmod "$m" -- "$1"`

const (
	touchEvery   = 50 * time.Millisecond
	touchAtMost  = 5 * time.Second // then the watch is taken to have begun
	watchBuffers = 64
	endSettles   = time.Second
)

type event struct {
	change driver.Change
	err    error
}

// Watch implements driver.Watcher. Modal does not tell when a watch has begun:
// the watched file's status is changed, to what it is, until that is reported.
// A file that moves out of what is watched, or into it, is a ChangeModify.
func (b *box) Watch(ctx context.Context, name string, recursive bool) (iter.Seq2[driver.Change, error], error) {
	if err := b.check(ctx, name); err != nil {
		return nil, err
	}
	if err := b.watchable(ctx, name); err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(ctx)
	unhook := context.AfterFunc(b.ctx, stop)
	events, begun, err := b.events(run, name, recursive)
	if err == nil {
		err = b.begin(run, name, begun)
	}
	if err != nil {
		unhook()
		stop()
		return nil, b.explain(ctx, "watch", err)
	}
	return func(yield func(driver.Change, error) bool) {
		defer unhook()
		defer stop()
		for e := range events {
			if e.err == nil && run.Err() != nil { // ranged over again, or out of time
				e.err = run.Err()
			}
			if e.err != nil {
				yield(driver.Change{}, b.watchEnd(ctx, e.err))
				return
			}
			if !yield(e.change, nil) {
				return
			}
		}
		yield(driver.Change{}, b.watchEnd(ctx, fs.ErrNotExist))
	}, nil
}

// watchable refuses what is neither a file nor a directory, and what is the kernel's.
func (b *box) watchable(ctx context.Context, name string) error {
	devices, err := b.kernelDevices(ctx)
	if err != nil {
		return err
	}
	return files{b}.do(ctx, `s=$(stat -L -c '%d %f' -- "$1") || { echo "$s"; false; } && case " $2 " in
*" ${s% *} "*) echo "$1: Permission denied"; false ;;
*) case ${s#* } in 4???|8???) : ;; *) echo "$1: Operation not permitted"; false ;; esac ;;
esac`, name, devices)
}

// watchEnd is why a watch has ended.
func (b *box) watchEnd(ctx context.Context, err error) error {
	if errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil && !b.closed.Load() {
		if _, ierr := b.Info(ctx); ierr == nil && b.ended() == nil {
			return err
		}
	}
	b.awaitEnd(ctx)
	return b.explain(ctx, "watch", fileError(err))
}

// awaitEnd gives the end of a sandbox time to be told, as what runs inside ends a
// little before: a watch that broke off is most likely the first to know.
func (b *box) awaitEnd(ctx context.Context) {
	if b.closed.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, endSettles)
	defer cancel()
	_, _ = b.Wait(ctx) // what came of it, explain finds out
}

// events starts the watch, in a goroutine that ends with ctx. begun is closed
// when the first event has come, which is left out where it is our own doing.
func (b *box) events(ctx context.Context, name string, recursive bool) (<-chan event, <-chan struct{}, error) {
	all, err := b.sb.Filesystem.Watch(ctx, name, &modal.SandboxFilesystemWatchParams{Recursive: recursive})
	if err != nil {
		return nil, nil, err
	}
	events, begun := make(chan event, watchBuffers), make(chan struct{})
	var once sync.Once
	go func() {
		defer close(events)
		for e, err := range all {
			change, ok := changeOf(e)
			first := false
			once.Do(func() { close(begun); first = true })
			if err == nil && (!ok || first && isTouch(change, name)) {
				continue
			}
			select {
			case events <- event{change, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
		once.Do(func() { close(begun) })
	}()
	return events, begun, nil
}

// begin changes the watched file's status until the watch has begun.
func (b *box) begin(ctx context.Context, name string, begun <-chan struct{}) error {
	end := time.NewTimer(touchAtMost)
	defer end.Stop()
	for {
		if _, _, err := b.script(ctx, touchScript, name); err != nil {
			return err
		}
		pause := time.NewTimer(touchEvery)
		select {
		case <-begun:
		case <-end.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
			continue
		}
		pause.Stop()
		return nil
	}
}

// isTouch reports whether a change is that of the watched file's own status.
func isTouch(c driver.Change, name string) bool {
	return c.Op == driver.ChangeModify && len(c.Names) == 1 && path.Clean(c.Names[0]) == name
}

func changeOf(e modal.FileWatchEvent) (driver.Change, bool) {
	names := make([]string, 0, len(e.Paths))
	for _, p := range e.Paths {
		names = append(names, strings.TrimSuffix(p, "/"))
	}
	c := driver.Change{Names: names}
	switch e.EventType {
	case modal.FileWatchEventTypeCreate:
		c.Op = driver.ChangeCreate
	case modal.FileWatchEventTypeModify:
		c.Op = driver.ChangeModify
		if len(names) == 2 {
			c.Op = driver.ChangeRename
		}
	case modal.FileWatchEventTypeRemove:
		c.Op = driver.ChangeRemove
	case modal.FileWatchEventTypeAccess:
		c.Op = driver.ChangeAccess
	case modal.FileWatchEventTypeUnknown:
		return driver.Change{Op: driver.ChangeOverflow}, true
	default:
		return driver.Change{}, false
	}
	return c, true
}
