package pglog

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"sync"
	"time"

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

// lockTime bounds what is asked of the connection, which all leases depend on: the end
// of somebody's context must not break it.
const lockTime = 10 * time.Second

// ask asks the connection something about a run. One that gives an error is thrown away:
// what it held is free then.
func (l *locks) ask(ctx context.Context, query, run string) (yes bool, err error) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), lockTime)
	defer stop()
	if l.conn == nil {
		if l.conn, err = l.db.Conn(ctx); err != nil {
			return false, err
		}
	}
	if err = l.conn.QueryRowContext(ctx, query, run).Scan(&yes); err != nil {
		l.discard()
	}
	return yes, err
}

// discard ends the connection. Closing it only would give it back to the pool, with the
// locks.
func (l *locks) discard() {
	_ = l.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = l.conn.Close()
	l.conn = nil
}

// take takes the lock of a run, or gives ErrBusy.
func (l *locks) take(ctx context.Context, run string) (unlock func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if l.held[run] { // PostgreSQL would give it to the same connection again
		return nil, runlog.ErrBusy
	}
	const query = `SELECT pg_try_advisory_lock(` + lockKey + `)`
	got, err := l.ask(ctx, query, run)
	if err != nil { // the connection may have died since
		got, err = l.ask(ctx, query, run)
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
	if l.conn != nil {
		_, _ = l.ask(context.Background(), `SELECT pg_advisory_unlock(`+lockKey+`)`, run) // or it is gone with the connection
	}
}

func (l *locks) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.discard()
	}
}
