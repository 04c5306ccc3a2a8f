package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Dialect is the kind of a database. The zero value is none, which Open refuses.
type Dialect int

// The kinds of databases.
const (
	SQLite     Dialect = iota + 1 // 3.24 or later
	PostgreSQL                    // 10 or later; tested with 15
)

// String gives the name.
func (d Dialect) String() string {
	switch d {
	case SQLite:
		return "SQLite"
	case PostgreSQL:
		return "PostgreSQL"
	}
	return "Dialect(" + strconv.Itoa(int(d)) + ")"
}

// bind writes the parameters of a query, each a "?", as the dialect does.
func (d Dialect) bind(query string) string {
	if d != PostgreSQL {
		return query
	}
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		query = after
	}
}

// lockedBusy is how long SQLite waits for another process that writes, in
// milliseconds.
const lockedBusy = "10000"

// conn gives a connection to SQLite that waits for others, and that has written to
// disk what it says it has. The caller closes it.
func (s *Store) conn(ctx context.Context) (*sql.Conn, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	for _, pragma := range []string{"PRAGMA busy_timeout = " + lockedBusy, "PRAGMA synchronous = FULL"} {
		if _, err := conn.ExecContext(ctx, pragma); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

// useWAL makes the write-ahead log SQLite's journal, which a database remembers: with
// the others those who read hold up those who write. SQLite does not wait for another
// process that does the same, so this does.
func (s *Store) useWAL(ctx context.Context) error {
	conn, err := s.conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for left := 500; ; left-- {
		var journal string
		err := conn.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&journal)
		switch {
		case err == nil && journal == "wal":
			return nil
		case err == nil && journal == "memory":
			return errors.New("the database is in memory, where each connection has another; use a file, or sandboxhttp.MemoryStore")
		case err == nil:
			return fmt.Errorf("the database's journal is %q and cannot be made a write-ahead log, which needs shared memory: use a local file system", journal)
		case left == 0 || !strings.Contains(err.Error(), "locked"):
			return fmt.Errorf("make the journal a write-ahead log: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
