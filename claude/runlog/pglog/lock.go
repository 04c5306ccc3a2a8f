package pglog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/vivarium-go/vivarium/claude/runlog"
)

// locks are the leases of this process: advisory locks that one connection holds. A lock
// that was lost with the connection is not taken again: who has it finds out by the
// number of the lease when somebody else has one.
type locks struct {
	db *sql.DB

	mu   sync.Mutex
	conn *sql.Conn       // nil until one is needed
	held map[string]bool // by run
}

// lockKey is the lock of a run. Those of different schemas are different.
const lockKey = `hashtextextended(current_schema() || '.vivarium_runlog.' || $1, 0)`

// take takes the lock of a run, or gives ErrBusy.
func (l *locks) take(ctx context.Context, run string) (unlock func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[run] { // PostgreSQL would give it to the same connection again
		return nil, runlog.ErrBusy
	}
	var got bool
	for range 2 { // the connection may have died since
		if l.conn == nil {
			if l.conn, err = l.db.Conn(ctx); err != nil {
				return nil, err
			}
		}
		if err = l.conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock(`+lockKey+`)`, run).Scan(&got); err == nil || ctx.Err() != nil {
			break
		}
		_ = l.conn.Close() // with what it held; the error is told below
		l.conn = nil
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("take the lease: %w", err)
	case !got:
		return nil, runlog.ErrBusy
	}
	if l.held == nil {
		l.held = map[string]bool{}
	}
	l.held[run] = true
	return func() { l.give(run) }, nil
}

// give gives a lock back.
func (l *locks) give(run string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, run)
	if l.conn == nil {
		return
	}
	_, err := l.conn.ExecContext(context.Background(), `SELECT pg_advisory_unlock(`+lockKey+`)`, run)
	if err != nil { // then it is gone with the connection
		_ = l.conn.Close()
		l.conn = nil
	}
}

func (l *locks) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return nil
	}
	_, err := l.conn.ExecContext(context.Background(), `SELECT pg_advisory_unlock_all()`)
	err = errors.Join(err, l.conn.Close())
	l.conn = nil
	return err
}
