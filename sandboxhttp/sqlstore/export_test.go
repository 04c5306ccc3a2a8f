package sqlstore

import (
	"context"
	"database/sql"
)

// Migrate brings a database to the last of some steps.
func Migrate(ctx context.Context, db *sql.DB, dialect Dialect, steps [][]string) error {
	return (&Store{db: db, dialect: dialect}).migrate(ctx, steps)
}

// Conn gives a connection to SQLite as every call uses it.
func (s *Store) Conn(ctx context.Context) (*sql.Conn, error) { return s.conn(ctx) }
