package runlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"time"
)

// followed is the file of a log as its followers in this process have it open, all
// the same.
type followed struct {
	file *os.File
	n    int           // how many have it
	wake chan struct{} // closed when this process has changed something
	gone bool          // it was deleted
}

// How often a follower looks for what another process has appended: soon after there
// was something, and less and less often.
const (
	firstLook = 10 * time.Millisecond
	lastLook  = 500 * time.Millisecond
)

// Follow implements Store. Followers of what this process writes are told at once;
// those of what another writes look for it up to half a second later.
func (d *Dir) Follow(ctx context.Context, run string, from int64) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		f, err := d.enter(run)
		if err != nil {
			yield(Line{}, err)
			return
		}
		defer d.leave(run, f)
		r := newLogFile(f.file)
		defer r.back()
		for look := firstLook; ; look = min(2*look, lastLook) {
			wake, here := d.waiting(run, f) // before reading, so that nothing is missed
			at := r.at
			goOn, err := r.give(ctx, from, yield)
			if goOn && r.info.End == nil {
				if r.at != at {
					look = firstLook
				}
				err = d.await(ctx, run, f, wake, here, look)
				goOn = err == nil
			}
			if err != nil {
				yield(Line{}, fmt.Errorf("run %s: %w", run, err))
			}
			if !goOn || r.info.End != nil {
				return
			}
		}
	}
}

// give yields what there is, and reports whether the receiver wants more.
func (l *logFile) give(ctx context.Context, from int64, yield func(Line, error) bool) (bool, error) {
	for {
		rec, err := l.next(from)
		if err == nil {
			err = context.Cause(ctx)
		}
		if errors.Is(err, errTail) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if rec.kind == kindLine && rec.n >= from && !yield(Line{rec.n, rec.data}, nil) {
			return false, nil
		}
	}
}

// await waits until there may be more.
func (d *Dir) await(ctx context.Context, run string, f *followed, wake <-chan struct{}, here bool, look time.Duration) error {
	var tick <-chan time.Time
	if !here {
		timer := time.NewTimer(look)
		defer timer.Stop()
		tick = timer.C
	}
	select {
	case <-wake:
	case <-tick:
		if !f.is(d.file(run)) {
			d.forget(run)
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.gone {
		return fs.ErrNotExist
	}
	return nil
}

// is reports whether the file is the one at path. One that cannot be looked at counts
// as the same.
func (f *followed) is(path string) bool {
	now, err := os.Stat(path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	mine, err := f.file.Stat()
	return err != nil || os.SameFile(now, mine)
}

// enter opens a log for a follower, until leave.
func (d *Dir) enter(run string) (*followed, error) {
	if err := CheckRun(run); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[run]
	if f != nil && !f.is(d.file(run)) {
		d.drop(run)
		f = nil
	}
	if f == nil {
		file, err := os.Open(d.file(run))
		if err != nil {
			return nil, fmt.Errorf("run %s: %w", run, err)
		}
		f = &followed{file: file, wake: make(chan struct{})}
		d.files[run] = f
	}
	f.n++
	return f, nil
}

func (d *Dir) leave(run string, f *followed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f.n--; f.n > 0 {
		return
	}
	_ = f.file.Close() // it was only read
	if d.files[run] == f {
		delete(d.files, run)
	}
}

// waiting gives what is closed at the next change by this process, and whether it
// writes the log, so that no other does.
func (d *Dir) waiting(run string, f *followed) (wake <-chan struct{}, here bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f.wake, d.writers[run]
}

// changed wakes the followers of a log.
func (d *Dir) changed(run string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tell(run)
}

// tell is changed for one who holds mu.
func (d *Dir) tell(run string) {
	if f := d.files[run]; f != nil {
		close(f.wake)
		f.wake = make(chan struct{})
	}
}

// setWriter notes whether this process writes a log.
func (d *Dir) setWriter(run string, here bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if here {
		d.writers[run] = true
	} else {
		delete(d.writers, run)
	}
	d.tell(run)
}

// forget tells the followers of a log that it was deleted.
func (d *Dir) forget(run string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(run)
}

// drop is forget for one who holds mu.
func (d *Dir) drop(run string) {
	if f := d.files[run]; f != nil {
		f.gone = true
		d.tell(run)
		delete(d.files, run)
	}
}
