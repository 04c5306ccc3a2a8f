package pglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vivarium-go/vivarium/claude/runlog"
)

// How often a follower looks for more: soon after there was something, and less and less
// often; where the database tells of changes only to be sure.
const (
	firstLook     = 10 * time.Millisecond
	lastLook      = 500 * time.Millisecond
	lookListening = 30 * time.Second
)

// batchRows is how many batches of lines are asked for at once.
const batchRows = 16

// waker wakes the followers of a log in this process.
type waker struct {
	n    int // followers
	wake chan struct{}
}

// Read implements runlog.Store.
func (s *Store) Read(ctx context.Context, run string, from int64) iter.Seq2[runlog.Line, error] {
	return func(yield func(runlog.Line, error) bool) {
		r, err := s.record(ctx, run)
		if err == nil {
			_, _, err = s.give(ctx, r.id, max(from, 1), yield)
		}
		if err != nil {
			yield(runlog.Line{}, err)
		}
	}
}

// Follow implements runlog.Store.
func (s *Store) Follow(ctx context.Context, run string, from int64) iter.Seq2[runlog.Line, error] {
	return func(yield func(runlog.Line, error) bool) {
		r, err := s.record(ctx, run)
		if err == nil {
			err = s.follow(ctx, r, max(from, 1), yield)
		}
		if err != nil {
			yield(runlog.Line{}, err)
		}
	}
}

// follow gives lines until the run has ended or nobody wants more.
func (s *Store) follow(ctx context.Context, r *record, next int64, yield func(runlog.Line, error) bool) error {
	w := s.enter(r.id)
	defer s.leave(r.id, w)
	for look := firstLook; ; look = min(2*look, lastLook) {
		wake := s.waiting(w) // before looking, so that nothing is missed
		// How the log is first, so that all lines of one that has ended are seen.
		now, err := scan(s.db.QueryRowContext(ctx, `SELECT `+columns+` FROM vivarium_runlogs WHERE id = $1`, r.id))
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err != nil {
			return named(r.info.Run, err)
		}
		was := next
		var goOn bool
		if next, goOn, err = s.give(ctx, r.id, next, yield); err != nil || !goOn {
			return err
		}
		if now.info.End != nil {
			return nil
		}
		if next != was {
			look = firstLook
		}
		if err := s.await(ctx, wake, look); err != nil {
			return err
		}
	}
}

func (s *Store) await(ctx context.Context, wake <-chan struct{}, look time.Duration) error {
	if s.listen.listening.Load() {
		look = lookListening
	}
	timer := time.NewTimer(look)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// give yields the lines that there are from next on, gives the number of the one after
// them, and reports whether the receiver wants more.
func (s *Store) give(ctx context.Context, id, next int64, yield func(runlog.Line, error) bool) (int64, bool, error) {
	for {
		batches, err := s.batches(ctx, id, next)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return next, false, err
		}
		for _, b := range batches {
			for line, err := range b.lines() {
				if err == nil {
					err = context.Cause(ctx)
				}
				if err != nil {
					return next, false, err
				}
				if line.N < next {
					continue
				}
				if line.N > next {
					return next, false, fmt.Errorf("%w: line %d is not there", runlog.ErrCorrupt, next)
				}
				next = line.N + 1
				if !yield(line, nil) {
					return next, false, nil
				}
			}
		}
		if len(batches) < batchRows {
			return next, true, nil
		}
	}
}

// batch is a row of lines.
type batch struct {
	first, next int64
	sizes, data []byte
}

// batches gives some rows from that with a line on.
func (s *Store) batches(ctx context.Context, id, from int64) ([]batch, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT first, next, sizes, data FROM vivarium_runlog_lines
		WHERE id = $1 AND first >= coalesce((SELECT max(first) FROM vivarium_runlog_lines WHERE id = $1 AND first <= $2), 0) AND next > $2
		ORDER BY first LIMIT $3`, id, from, batchRows)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []batch
	for rows.Next() {
		var b batch
		if err := rows.Scan(&b.first, &b.next, &b.sizes, &b.data); err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, rows.Err()
}

// lines gives the lines of a batch.
func (b *batch) lines() iter.Seq2[runlog.Line, error] {
	return func(yield func(runlog.Line, error) bool) {
		sizes, data := b.sizes, b.data
		for n := b.first; n < b.next; n++ {
			size, width := binary.Uvarint(sizes)
			if width <= 0 || size > uint64(len(data)) {
				yield(runlog.Line{}, fmt.Errorf("%w: line %d has no length that fits", runlog.ErrCorrupt, n))
				return
			}
			sizes = sizes[width:]
			if !yield(runlog.Line{N: n, Data: data[:size:size]}, nil) {
				return
			}
			data = data[size:]
		}
		if len(sizes)+len(data) > 0 {
			yield(runlog.Line{}, fmt.Errorf("%w: there is more than lines %d to %d", runlog.ErrCorrupt, b.first, b.next-1))
		}
	}
}

func (s *Store) enter(id int64) *waker {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.wakers[id]
	if w == nil {
		w = &waker{wake: make(chan struct{})}
		s.wakers[id] = w
	}
	w.n++
	return w
}

func (s *Store) leave(id int64, w *waker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.n--; w.n == 0 {
		delete(s.wakers, id)
	}
}

// waiting gives what is closed at the next change.
func (s *Store) waiting(w *waker) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return w.wake
}

// wake wakes the followers of a log.
func (s *Store) wake(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.wakers[id]; w != nil {
		w.now()
	}
}

func (w *waker) now() {
	close(w.wake)
	w.wake = make(chan struct{})
}

// got takes what the database tells of. Where the connection is new, something may have
// been missed by anybody.
func (s *Store) got(payload string) {
	var id int64
	if _, err := fmt.Sscanf(payload, "%d", &id); err == nil {
		s.wake(id)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.wakers {
		w.now()
	}
}

// listener calls Options.Listen again and again.
type listener struct {
	listening atomic.Bool
	stop      context.CancelFunc
	done      sync.WaitGroup
}

func (l *listener) start(listen func(context.Context, string, func(string)) error, got func(string)) {
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.done.Go(func() {
		for wait := firstLook; ; wait = min(2*wait, lastLook) {
			err := listen(ctx, Channel, func(payload string) {
				if payload == "" {
					l.listening.Store(true)
					wait = firstLook
				}
				got(payload)
			})
			l.listening.Store(false)
			got("") // from now on they look for themselves
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
			if ctx.Err() != nil || errors.Is(err, errors.ErrUnsupported) {
				return
			}
		}
	})
}

func (l *listener) end() {
	if l.stop != nil {
		l.stop()
		l.done.Wait()
	}
}
