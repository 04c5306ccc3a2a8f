package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// migrations has, for each dialect, a file for each step from one version of the
// tables to the next. The first is 1, and none is left out. What was released is
// never changed.
//
//go:embed migrations
var migrations embed.FS

// lockKey is what programs that migrate a PostgreSQL database lock: any number that
// others do not.
const lockKey = 7310579617386391

// steps gives the statements of each step.
func (d Dialect) steps() ([][]string, error) {
	if d != SQLite && d != PostgreSQL {
		return nil, errors.New("use SQLite or PostgreSQL, not " + d.String())
	}
	dir := "migrations/" + strings.ToLower(d.String())
	entries, err := fs.ReadDir(migrations, dir)
	if err != nil {
		return nil, err
	}
	var steps [][]string
	for i, entry := range entries { // sorted by name
		number, _, _ := strings.Cut(entry.Name(), "_")
		if n, err := strconv.Atoi(number); err != nil || n != i+1 {
			return nil, fmt.Errorf("%s/%s is not step %d", dir, entry.Name(), i+1)
		}
		text, err := fs.ReadFile(migrations, dir+"/"+entry.Name())
		if err != nil {
			return nil, err
		}
		// One at a time, as not every driver takes several.
		steps = append(steps, strings.Split(strings.TrimSpace(string(text)), "\n\n"))
	}
	return steps, nil
}

// migrate brings the tables up to date.
func (s *Store) migrate(ctx context.Context, steps [][]string) error {
	conn, err := s.migrator(ctx)
	if err != nil {
		return err
	}
	have, err := s.version(ctx, conn)
	if err == nil && have < len(steps) {
		err = s.transaction(ctx, conn, func() error { return s.apply(ctx, conn, steps) })
	}
	if err == nil && have > len(steps) {
		err = fmt.Errorf("%w: its tables are at version %d, this program knows %d: run a newer program", ErrNewer, have, len(steps))
	}
	return errors.Join(err, conn.Close())
}

func (s *Store) migrator(ctx context.Context) (*sql.Conn, error) {
	if s.dialect == SQLite {
		return s.conn(ctx)
	}
	return s.db.Conn(ctx)
}

// version gives the version of the tables, 0 where there are none.
func (s *Store) version(ctx context.Context, conn *sql.Conn) (int, error) {
	exists := "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'vivarium_schema'"
	if s.dialect == PostgreSQL {
		exists = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('vivarium_schema')"
	}
	var n int
	if err := conn.QueryRowContext(ctx, exists).Scan(&n); err != nil || n == 0 {
		return 0, err
	}
	err := conn.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM vivarium_schema").Scan(&n)
	return n, err
}

// apply takes the steps that are missing. Others wait.
func (s *Store) apply(ctx context.Context, conn *sql.Conn, steps [][]string) error {
	have, err := s.version(ctx, conn) // another may just have done it
	if err != nil {
		return err
	}
	if have == 0 {
		if _, err := conn.ExecContext(ctx, "CREATE TABLE vivarium_schema (version bigint NOT NULL PRIMARY KEY)"); err != nil {
			return err
		}
	}
	for version := have + 1; version <= len(steps); version++ {
		for _, statement := range steps[version-1] {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("bring the tables to version %d: %w", version, err)
			}
		}
		if _, err := conn.ExecContext(ctx, s.dialect.bind("INSERT INTO vivarium_schema (version) VALUES (?)"), int64(version)); err != nil {
			return err
		}
	}
	return nil
}

// transaction does fn under a lock that one process at a time has, wholly or not at
// all. It begins by hand, as SQLite must have the lock from the beginning on.
func (s *Store) transaction(ctx context.Context, conn *sql.Conn, fn func() error) error {
	begin := []string{"BEGIN IMMEDIATE"}
	if s.dialect == PostgreSQL {
		begin = []string{"BEGIN", fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", lockKey)}
	}
	var err error
	for _, statement := range begin {
		if err == nil {
			_, err = conn.ExecContext(ctx, statement)
		}
	}
	if err == nil {
		err = fn()
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, "COMMIT")
	}
	if err == nil {
		return nil
	}
	if _, rollback := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK"); rollback != nil {
		// Nobody is to get a connection that is in a transaction.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // it answers what it was told
	}
	return err
}
