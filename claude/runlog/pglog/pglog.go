// Package pglog keeps logs of runs in PostgreSQL, for several servers at once: each can
// follow what another records.
//
// A log is a row, and a row for each batch of lines. The lease of a Writer is an advisory
// lock of one connection of the process, which PostgreSQL takes back when that ends. A
// process that has lost the connection and does not know yet cannot write behind the next
// one's back: every change names the lease's number, and only the newest is taken.
package pglog

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"sync"

	"github.com/vivarium-go/vivarium/claude/runlog"
)

// Channel is where changes are told of (NOTIFY), with the number of the log.
const Channel = "vivarium_runlog"

// Options of a Store. The zero value, and nil, are usable.
type Options struct {
	// Listen passes on what is notified on a channel until ctx ends or the connection
	// is lost: it calls got with "" once it listens, and then with every payload. It is
	// called again where it has returned. database/sql has no call for it: see the
	// example. Nil: followers look for what other servers write up to every half second.
	Listen func(ctx context.Context, channel string, got func(payload string)) error
}

// Store is a runlog.Store in PostgreSQL 11 or later. Its methods are safe for concurrent
// use.
type Store struct {
	db     *sql.DB
	locks  locks
	listen listener

	mu     sync.Mutex
	wakers map[int64]*waker // of logs that are followed here
}

var _ runlog.Store = (*Store)(nil)

//go:embed schema.sql
var schema string

// Open makes a store of a database, and its tables where they are missing. The caller
// closes the Store, and after it the database, of which it uses one connection for
// itself while it writes.
func Open(ctx context.Context, db *sql.DB, opts *Options) (*Store, error) {
	if opts == nil {
		opts = &Options{}
	}
	s := &Store{db: db, wakers: map[int64]*waker{}}
	s.locks.db = db
	if err := s.migrate(ctx); err != nil {
		return nil, fmt.Errorf("pglog: make the tables: %w", err)
	}
	if opts.Listen != nil {
		s.listen.start(opts.Listen, s.got)
	}
	return s, nil
}

// Close ends listening, and gives the leases back. Nothing is to be done with the store
// after it.
func (s *Store) Close() error {
	s.listen.end()
	s.locks.close()
	return nil
}

// migrate makes the tables, one process at a time.
func (s *Store) migrate(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.vivarium_runlog', 0))`)
	if err == nil {
		_, err = tx.ExecContext(ctx, schema)
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// record is a log's row.
type record struct {
	id   int64
	info runlog.Info
}

const columns = `id, run, lines, bytes, ending`

type scanner interface{ Scan(...any) error }

func scan(row scanner) (*record, error) {
	var r record
	var ending []byte
	err := row.Scan(&r.id, &r.info.Run, &r.info.Lines, &r.info.Bytes, &ending)
	if errors.Is(err, sql.ErrNoRows) {
		err = fs.ErrNotExist
	}
	if err == nil && ending != nil {
		r.info.End = new(runlog.End)
		if json.Unmarshal(ending, r.info.End) != nil {
			err = fmt.Errorf("%w: its end is %q", runlog.ErrCorrupt, ending)
		}
	}
	return &r, err
}

// record finds a log by its name.
func (s *Store) record(ctx context.Context, run string) (*record, error) {
	if err := runlog.CheckRun(run); err != nil {
		return nil, err
	}
	r, err := scan(s.db.QueryRowContext(ctx, `SELECT `+columns+` FROM vivarium_runlogs WHERE run = $1`, run))
	if err != nil {
		return nil, named(run, err)
	}
	return r, nil
}

func named(run string, err error) error { return fmt.Errorf("pglog: run %s: %w", run, err) }

// Stat implements runlog.Store.
func (s *Store) Stat(ctx context.Context, run string) (*runlog.Info, error) {
	r, err := s.record(ctx, run)
	if err != nil {
		return nil, err
	}
	return &r.info, nil
}

// List implements runlog.Store. It holds a connection while it is ranged over.
func (s *Store) List(ctx context.Context) iter.Seq2[*runlog.Info, error] {
	return func(yield func(*runlog.Info, error) bool) {
		rows, err := s.db.QueryContext(ctx, `SELECT `+columns+` FROM vivarium_runlogs ORDER BY run`)
		if err != nil {
			yield(nil, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			r, err := scan(rows)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(&r.info, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// Delete implements runlog.Store.
func (s *Store) Delete(ctx context.Context, run string) error {
	if err := runlog.CheckRun(run); err != nil {
		return err
	}
	unlock, err := s.locks.take(ctx, run)
	if err != nil {
		return named(run, err)
	}
	defer unlock()
	var id int64
	err = s.db.QueryRowContext(ctx, `WITH gone AS (DELETE FROM vivarium_runlogs WHERE run = $1 RETURNING id)
		SELECT id FROM gone, pg_notify($2, id::text)`, run, Channel).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return named(run, err)
	}
	s.wake(id)
	return nil
}
