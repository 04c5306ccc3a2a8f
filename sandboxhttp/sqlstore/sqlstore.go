// Package sqlstore keeps the records of sandboxes and runs in SQLite or
// PostgreSQL. It imports no database driver: the program does, and opens the
// *sql.DB.
//
//	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
//	store, err := sqlstore.Open(ctx, db, sqlstore.PostgreSQL)
//	h, err := sandboxhttp.New(&sandboxhttp.Config{Store: store, Pool: &pool.Options{Store: store.Pool()}, …})
//
// The tables are vivarium_sandboxes, vivarium_runs, vivarium_usage_places,
// vivarium_usage_entries, vivarium_usage_days, vivarium_pool, vivarium_identity and vivarium_schema; Open
// makes them. In PostgreSQL they are in the first schema of the search_path.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// Store is a [sandboxhttp.Store] in a database. Open makes one. It is safe for
// concurrent use, also by several processes with the same database.
//
// A save that has returned nil is on disk. Records are JSON, so a byte of a text that is
// not UTF-8 becomes U+FFFD; accounts and ids are kept as they are. Times have
// nanoseconds; the order of lists goes by those between the years 1678 and 2261.
// Errors other than sandboxhttp.ErrNotFound are the driver's, with what was to be
// done; when the context has ended they match its error too. After an error a
// change may have been made or not, as with every database; making it again is safe.
type Store struct {
	db      *sql.DB
	dialect Dialect
	writing chan struct{} // in SQLite held by who writes: its own queue is not fair
}

var _ sandboxhttp.Store = (*Store)(nil)

// ErrNewer is what Open returns for a database that a later version of this package
// has changed.
var ErrNewer = errors.New("the database is newer than this program")

// Open gives a store in a database, after bringing its tables up to date: several
// programs may do so at once. Where there is nothing to bring up to date, the
// database's user needs no right to make tables. The caller closes db, after the last
// call of a method.
//
// In SQLite, Open makes the write-ahead log (WAL) the journal, and refuses a database
// in memory, of which each connection would have its own. Each call sets "PRAGMA
// busy_timeout" to 10 s and "PRAGMA synchronous" to FULL on the connection it uses, so
// no setting of the driver's is needed. Foreign keys are not used.
func Open(ctx context.Context, db *sql.DB, dialect Dialect) (*Store, error) {
	s := &Store{db: db, dialect: dialect, writing: make(chan struct{}, 1)}
	steps, err := dialect.steps()
	if err == nil && dialect == SQLite {
		err = s.useWAL(ctx)
	}
	if err == nil {
		err = s.migrate(ctx, steps)
	}
	if err != nil {
		return nil, described(ctx, "open", err)
	}
	return s, nil
}

// described says what was to be done, and that the context had ended if it had.
func described(ctx context.Context, op string, err error) error {
	cause := context.Cause(ctx)
	switch {
	case err == nil:
		return nil
	case cause != nil && !errors.Is(err, cause):
		return fmt.Errorf("sqlstore: %s: %w: %w", op, cause, err)
	}
	return fmt.Errorf("sqlstore: %s: %w", op, err)
}

// querier is a *sql.DB or a *sql.Conn.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// exec changes records, and gives how many.
func (s *Store) exec(ctx context.Context, op, query string, args ...any) (changed int64, err error) {
	if s.dialect == SQLite {
		select {
		case s.writing <- struct{}{}:
			defer func() { <-s.writing }()
		case <-ctx.Done():
			return 0, described(ctx, op, ctx.Err())
		}
	}
	err = s.with(ctx, func(q querier) error {
		result, err := q.ExecContext(ctx, s.dialect.bind(query), args...)
		if err != nil {
			return err
		}
		changed, err = result.RowsAffected()
		return err
	})
	return changed, described(ctx, op, err)
}

// query reads records. scan gets each row.
func (s *Store) query(ctx context.Context, op string, scan func(*sql.Rows) error, query string, args ...any) error {
	err := s.with(ctx, func(q querier) error {
		rows, err := q.QueryContext(ctx, s.dialect.bind(query), args...)
		if err != nil {
			return err
		}
		for rows.Next() {
			if err := scan(rows); err != nil {
				return errors.Join(err, rows.Close())
			}
		}
		return errors.Join(rows.Err(), rows.Close())
	})
	return described(ctx, op, err)
}

// with gives fn something to ask. In PostgreSQL that is the pool, which asks again on
// another connection where one was found to be dead.
func (s *Store) with(ctx context.Context, fn func(querier) error) error {
	if s.dialect != SQLite {
		return fn(s.db)
	}
	conn, err := s.conn(ctx)
	if err != nil {
		return err
	}
	return errors.Join(fn(conn), conn.Close())
}
