package pglog

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io/fs"
	"time"

	"github.com/vivarium-go/vivarium/claude/runlog"
)

// writer has the lease of a log.
type writer struct {
	s      *Store
	unlock func()
	id     int64
	epoch  int64
	info   runlog.Info
	broken error // after a change of which nobody knows whether it was made
	closed bool
}

// Write implements runlog.Store.
func (s *Store) Write(ctx context.Context, run string) (runlog.Writer, error) {
	if err := runlog.CheckRun(run); err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	unlock, err := s.locks.take(ctx, run)
	if err != nil {
		return nil, named(run, err)
	}
	w := &writer{s: s, unlock: unlock}
	if err := w.open(ctx, run); err != nil {
		unlock()
		return nil, named(run, err)
	}
	return w, nil
}

// open makes the log, or begins a lease of it.
func (w *writer) open(ctx context.Context, run string) error {
	var r *record
	err := w.s.db.QueryRowContext(ctx, `INSERT INTO vivarium_runlogs (run, epoch) VALUES ($1, 1)
		ON CONFLICT (run) DO UPDATE SET epoch = vivarium_runlogs.epoch + 1 RETURNING epoch`, run).Scan(&w.epoch)
	if err == nil {
		r, err = w.s.record(ctx, run)
	}
	if err != nil {
		return err
	}
	w.id, w.info = r.id, r.info
	return nil
}

// Info implements runlog.Writer.
func (w *writer) Info() runlog.Info { return w.info }

// Append implements runlog.Writer.
func (w *writer) Append(ctx context.Context, lines [][]byte) error {
	if err := w.usable(ctx); err != nil || len(lines) == 0 {
		return err
	}
	data := bytes.Join(lines, nil)
	var sizes []byte
	for _, line := range lines {
		sizes = binary.AppendUvarint(sizes, uint64(len(line)))
	}
	n := int64(len(lines))
	err := w.change(ctx, `WITH log AS (
			UPDATE vivarium_runlogs SET lines = lines + $5, bytes = bytes + $6
			WHERE id = $1 AND epoch = $2 AND lines = $3 AND ending IS NULL RETURNING id
		), added AS (
			INSERT INTO vivarium_runlog_lines SELECT id, $3::bigint + 1, $3::bigint + 1 + $5, $7, $8 FROM log
		) SELECT count(*) FROM log, pg_notify($4, id::text)`, n, int64(len(data)), sizes, data)
	if err != nil {
		return err
	}
	w.info.Lines += n
	w.info.Bytes += int64(len(data))
	return nil
}

// Finish implements runlog.Writer.
func (w *writer) Finish(ctx context.Context, end runlog.End) error {
	if err := w.usable(ctx); err != nil {
		return err
	}
	if end.Time.IsZero() {
		end.Time = time.Now().UTC().Round(0)
	}
	text, err := json.Marshal(end)
	if err != nil {
		return err
	}
	err = w.change(ctx, `WITH log AS (
			UPDATE vivarium_runlogs SET ending = $5
			WHERE id = $1 AND epoch = $2 AND lines = $3 AND ending IS NULL RETURNING id
		) SELECT count(*) FROM log, pg_notify($4, id::text)`, text)
	if err == nil {
		w.info.End = &end
	}
	return err
}

func (w *writer) usable(ctx context.Context) error {
	switch {
	case w.closed:
		return fs.ErrClosed
	case w.broken != nil:
		return w.broken
	case w.info.End != nil:
		return runlog.ErrEnded
	}
	return context.Cause(ctx)
}

// change makes one that counts the rows it has found: none where the lease is over.
func (w *writer) change(ctx context.Context, query string, args ...any) error {
	args = append([]any{w.id, w.epoch, w.info.Lines, Channel}, args...)
	var found int
	err := w.s.db.QueryRowContext(ctx, query, args...).Scan(&found)
	if err == nil && found == 0 {
		err = runlog.ErrBusy
	}
	if err != nil {
		w.broken = named(w.info.Run, err)
		return w.broken
	}
	w.s.wake(w.id)
	return nil
}

// Close implements runlog.Writer.
func (w *writer) Close() error {
	if !w.closed {
		w.closed = true
		w.unlock()
	}
	return nil
}
