package runlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/claude/internal/filelock"
)

// Dir keeps logs in a directory, a file each (see file.go), which several processes
// of a machine may use at once. What Append returned from survives the death of the
// process; Finish makes the whole log survive a loss of power too. A tail that a
// crash left torn is never given to anybody, and cut off by the next Writer.
type Dir struct {
	dir string

	mu   sync.Mutex
	wake map[string]*waiters // by run
}

// waiters are those in this process who wait for a run.
type waiters struct {
	n    int
	wake chan struct{} // closed when this process appends to it
}

var _ Store = (*Dir)(nil)

// Open opens a directory of logs, and makes it if it is not there. There is nothing
// to close.
func Open(dir string) (*Dir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Dir{dir: dir, wake: map[string]*waiters{}}, nil
}

const (
	logSuffix  = ".log"
	lockSuffix = ".lock"
)

func (d *Dir) file(run string) string { return filepath.Join(d.dir, run+logSuffix) }

// lease takes the lock of a run. Its file stays, also when the log is deleted: others
// may have it open.
func (d *Dir) lease(run string) (unlock func(), err error) {
	unlock, err = filelock.Try(filepath.Join(d.dir, run+lockSuffix))
	if errors.Is(err, filelock.ErrLocked) {
		err = fmt.Errorf("run %s: %w", run, ErrBusy)
	}
	return unlock, err
}

// Write implements Store.
func (d *Dir) Write(ctx context.Context, run string) (Writer, error) {
	if err := errors.Join(CheckRun(run), context.Cause(ctx)); err != nil {
		return nil, err
	}
	unlock, err := d.lease(run)
	if err != nil {
		return nil, err
	}
	w := &dirWriter{d: d, unlock: unlock}
	if err := w.open(run); err != nil {
		unlock()
		return nil, err
	}
	return w, nil
}

// Read implements Store.
func (d *Dir) Read(ctx context.Context, run string, from int64) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		r, err := d.open(run)
		if err != nil {
			yield(Line{}, err)
			return
		}
		defer func() { _ = r.Close() }() // it was only read
		for {
			rec, err := r.next(from)
			if err == nil {
				err = context.Cause(ctx)
			}
			if errors.Is(err, errTail) {
				return
			}
			if err != nil {
				yield(Line{}, fmt.Errorf("run %s: %w", run, err))
				return
			}
			if rec.kind == kindLine && rec.n >= from && !yield(Line{rec.n, rec.data}, nil) {
				return
			}
		}
	}
}

// open opens a log to read it.
func (d *Dir) open(run string) (*logFile, error) {
	if err := CheckRun(run); err != nil {
		return nil, err
	}
	f, err := os.Open(d.file(run))
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", run, err)
	}
	return newLogFile(f), nil
}

// Stat implements Store. It reads the lengths of all lines, and checks them.
func (d *Dir) Stat(ctx context.Context, run string) (*Info, error) {
	r, err := d.open(run)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it was only read
	if err := r.toEnd(ctx); err != nil {
		return nil, fmt.Errorf("run %s: %w", run, err)
	}
	info := r.info
	info.Run = run
	return &info, nil
}

// lookEvery is how often the file is looked at for what another process appends.
const lookEvery = 50 * time.Millisecond

// Wait implements Store.
func (d *Dir) Wait(ctx context.Context, run string, n int64) error {
	r, err := d.open(run)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // it was only read
	enter, leave := d.waiting(run)
	defer leave()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		wake := enter() // before looking, so that nothing is missed
		if err := r.toEnd(ctx); err != nil {
			return fmt.Errorf("run %s: %w", run, err)
		}
		if r.info.Lines >= n || r.info.End != nil {
			return nil
		}
		select {
		case <-wake:
		case <-ticker.C:
			if err := r.same(d.file(run)); err != nil {
				return fmt.Errorf("run %s: %w", run, err)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waiting makes the caller one who waits for a run, until leave. enter gives the
// channel that is closed at the next change.
func (d *Dir) waiting(run string) (enter func() <-chan struct{}, leave func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ws := d.wake[run]
	if ws == nil {
		ws = &waiters{wake: make(chan struct{})}
		d.wake[run] = ws
	}
	ws.n++
	enter = func() <-chan struct{} {
		d.mu.Lock()
		defer d.mu.Unlock()
		return ws.wake
	}
	leave = func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if ws.n--; ws.n == 0 {
			delete(d.wake, run)
		}
	}
	return enter, leave
}

func (d *Dir) changed(run string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ws := d.wake[run]; ws != nil {
		close(ws.wake)
		ws.wake = make(chan struct{})
	}
}

// List implements Store.
func (d *Dir) List(ctx context.Context) iter.Seq2[*Info, error] {
	return func(yield func(*Info, error) bool) {
		entries, err := os.ReadDir(d.dir)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, e := range entries {
			run, ok := strings.CutSuffix(e.Name(), logSuffix)
			if !ok || CheckRun(run) != nil {
				continue
			}
			info, err := d.Stat(ctx, run)
			if errors.Is(err, fs.ErrNotExist) {
				continue // deleted since
			}
			if !yield(info, err) || err != nil {
				return
			}
		}
	}
}

// Delete implements Store.
func (d *Dir) Delete(_ context.Context, run string) error {
	if err := CheckRun(run); err != nil {
		return err
	}
	unlock, err := d.lease(run)
	if err != nil {
		return err
	}
	defer unlock()
	err = os.Remove(d.file(run))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	d.changed(run)
	return err
}

// dirWriter appends to a file.
type dirWriter struct {
	d      *Dir
	unlock func()
	log    *logFile // at its end
	broken error    // what went wrong and could not be put right
	closed bool
}

// open finds the end of the log, and cuts a torn tail off.
func (w *dirWriter) open(run string) error {
	f, err := os.OpenFile(w.d.file(run), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	w.log = newLogFile(f)
	if err := w.log.repair(); err != nil {
		return errors.Join(fmt.Errorf("run %s: %w", run, err), f.Close())
	}
	w.log.info.Run = run
	return nil
}

// Info implements Writer.
func (w *dirWriter) Info() Info { return w.log.info }

// Append implements Writer.
func (w *dirWriter) Append(ctx context.Context, lines [][]byte) error {
	var out []byte
	bytes := int64(0)
	for _, line := range lines {
		if len(line) > maxRecord {
			return fmt.Errorf("runlog: a line of %d bytes: %w", len(line), fs.ErrInvalid)
		}
		out = appendRecord(out, w.log.salt, kindLine, line)
		bytes += int64(len(line))
	}
	if err := w.write(ctx, out); err != nil {
		return err
	}
	w.log.info.Lines += int64(len(lines))
	w.log.info.Bytes += bytes
	w.d.changed(w.log.info.Run)
	return nil
}

// Finish implements Writer.
func (w *dirWriter) Finish(ctx context.Context, end End) error {
	if end.Time.IsZero() {
		end.Time = time.Now().UTC().Round(0)
	}
	text, err := json.Marshal(end)
	if err != nil {
		return err
	}
	if err := w.write(ctx, appendRecord(nil, w.log.salt, kindEnd, text)); err != nil {
		return err
	}
	w.log.info.End = &end
	w.d.changed(w.log.info.Run)
	return w.log.f.Sync()
}

// write appends records to the file. Where that fails, what was written of them is
// taken back.
func (w *dirWriter) write(ctx context.Context, out []byte) error {
	switch {
	case w.closed:
		return fs.ErrClosed
	case w.broken != nil:
		return w.broken
	case w.log.info.End != nil:
		return ErrEnded
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if _, err := w.log.f.WriteAt(out, w.log.at); err != nil {
		if cutErr := w.log.f.Truncate(w.log.at); cutErr != nil {
			w.broken = errors.Join(err, cutErr)
			return w.broken
		}
		return err
	}
	w.log.at += int64(len(out))
	return nil
}

// Close implements Writer.
func (w *dirWriter) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	err := w.log.Close()
	w.unlock()
	return err
}
