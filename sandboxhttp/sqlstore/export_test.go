package sqlstore

import (
	"context"
	"database/sql"
)

// Migrate brings a database to the last of some steps.
func Migrate(ctx context.Context, db *sql.DB, dialect Dialect, steps [][]string) error {
	return (&Store{db: db, dialect: dialect}).migrate(ctx, steps)
}
