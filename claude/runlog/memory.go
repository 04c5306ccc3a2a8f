package runlog

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"
)

// Memory keeps logs in memory, for tests and for what need not outlive the process.
// The zero value is ready.
type Memory struct {
	mu   sync.Mutex
	runs map[string]*memoryRun
}

type memoryRun struct {
	lines [][]byte
	bytes int64
	end   *End
	busy  bool
	wake  chan struct{} // closed at the next change
}

var _ Store = (*Memory)(nil)

// locked calls f with a run; make makes one that is not there.
func (m *Memory) locked(run string, create bool, f func(*memoryRun) error) error {
	if err := CheckRun(run); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.runs[run]
	if r == nil {
		if !create {
			return fmt.Errorf("runlog: run %s: %w", run, fs.ErrNotExist)
		}
		if m.runs == nil {
			m.runs = map[string]*memoryRun{}
		}
		r = &memoryRun{wake: make(chan struct{})}
		m.runs[run] = r
	}
	return f(r)
}

func (r *memoryRun) changed() {
	close(r.wake)
	r.wake = make(chan struct{})
}

// Write implements Store.
func (m *Memory) Write(ctx context.Context, run string) (Writer, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	w := &memoryWriter{m: m, run: run}
	err := m.locked(run, true, func(r *memoryRun) error {
		if r.busy {
			return ErrBusy
		}
		r.busy, w.r = true, r
		return nil
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Read implements Store.
func (m *Memory) Read(ctx context.Context, run string, from int64) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		var lines [][]byte
		err := m.locked(run, false, func(r *memoryRun) error {
			lines = r.lines[:len(r.lines):len(r.lines)]
			return nil
		})
		for n := max(from, 1); err == nil && n <= int64(len(lines)); n++ {
			if err = context.Cause(ctx); err == nil && !yield(Line{n, bytes.Clone(lines[n-1])}, nil) {
				return
			}
		}
		if err != nil {
			yield(Line{}, err)
		}
	}
}

// Stat implements Store.
func (m *Memory) Stat(_ context.Context, run string) (info *Info, err error) {
	err = m.locked(run, false, func(r *memoryRun) error {
		i := r.info(run)
		info = &i
		return nil
	})
	return info, err
}

func (r *memoryRun) info(run string) Info {
	i := Info{Run: run, Lines: int64(len(r.lines)), Bytes: r.bytes}
	if r.end != nil {
		end := *r.end
		i.End = &end
	}
	return i
}

// Follow implements Store.
func (m *Memory) Follow(ctx context.Context, run string, from int64) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		var r *memoryRun
		next := max(from, 1)
		for {
			lines, ended, wake, err := m.after(run, &r, next)
			for _, line := range lines {
				if err = context.Cause(ctx); err != nil {
					break
				}
				if !yield(Line{next, bytes.Clone(line)}, nil) {
					return
				}
				next++
			}
			if err == nil && len(lines) == 0 && !ended {
				select {
				case <-wake:
				case <-ctx.Done():
					err = context.Cause(ctx)
				}
			}
			if err != nil {
				yield(Line{}, err)
			}
			if err != nil || len(lines) == 0 && ended {
				return
			}
		}
	}
}

// after gives what a follower has not had, or what is closed when there is more. The
// first call sets followed, and later ones do not take another of that name for it.
func (m *Memory) after(run string, followed **memoryRun, next int64) (lines [][]byte, ended bool, wake chan struct{}, err error) {
	err = m.locked(run, false, func(r *memoryRun) error {
		if *followed == nil {
			*followed = r
		} else if *followed != r {
			return fmt.Errorf("runlog: run %s: %w", run, fs.ErrNotExist)
		}
		if n := int64(len(r.lines)); next <= n {
			lines = r.lines[next-1 : n : n]
		}
		ended, wake = r.end != nil, r.wake
		return nil
	})
	return lines, ended, wake, err
}

// List implements Store.
func (m *Memory) List(ctx context.Context) iter.Seq2[*Info, error] {
	return func(yield func(*Info, error) bool) {
		m.mu.Lock()
		var all []*Info
		for _, run := range slices.Sorted(maps.Keys(m.runs)) {
			i := m.runs[run].info(run)
			all = append(all, &i)
		}
		m.mu.Unlock()
		for _, i := range all {
			if err := context.Cause(ctx); err != nil {
				yield(nil, err)
				return
			}
			if !yield(i, nil) {
				return
			}
		}
	}
}

// Delete implements Store.
func (m *Memory) Delete(_ context.Context, run string) error {
	if err := CheckRun(run); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.runs[run]
	if r == nil {
		return nil
	}
	if r.busy {
		return ErrBusy
	}
	delete(m.runs, run)
	r.changed()
	return nil
}

type memoryWriter struct {
	m      *Memory
	run    string
	r      *memoryRun
	closed bool
}

func (w *memoryWriter) Info() Info {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	return w.r.info(w.run)
}

func (w *memoryWriter) change(ctx context.Context, f func()) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	switch {
	case w.closed:
		return fs.ErrClosed
	case w.r.end != nil:
		return ErrEnded
	}
	f()
	w.r.changed()
	return nil
}

// Append implements Writer.
func (w *memoryWriter) Append(ctx context.Context, lines [][]byte) error {
	return w.change(ctx, func() {
		for _, line := range lines {
			w.r.lines = append(w.r.lines, bytes.Clone(line))
			w.r.bytes += int64(len(line))
		}
	})
}

// Finish implements Writer.
func (w *memoryWriter) Finish(ctx context.Context, end End) error {
	if end.Time.IsZero() {
		end.Time = time.Now().UTC().Round(0)
	}
	return w.change(ctx, func() { w.r.end = &end })
}

// Close implements Writer.
func (w *memoryWriter) Close() error {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if !w.closed {
		w.closed, w.r.busy = true, false
	}
	return nil
}
