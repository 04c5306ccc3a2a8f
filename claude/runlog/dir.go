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
// process; Finish writes the whole log to disk, to survive a loss of power too. A tail that a
// crash left torn is never given to anybody, and cut off by the next Writer.
type Dir struct {
	dir string

	mu      sync.Mutex
	files   map[string]*followed // by run
	writers map[string]bool      // of this process, by run
}

var _ Store = (*Dir)(nil)

// Open opens a directory of logs, and makes it if it is not there. There is nothing
// to close.
func Open(dir string) (*Dir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Dir{dir: dir, files: map[string]*followed{}, writers: map[string]bool{}}, nil
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
	d.setWriter(run, true)
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
		if _, err := r.give(ctx, from, yield); err != nil {
			yield(Line{}, fmt.Errorf("run %s: %w", run, err))
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
	d.forget(run)
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
	w.d.setWriter(w.log.info.Run, false)
	w.unlock()
	return err
}
