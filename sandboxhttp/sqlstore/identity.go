package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"strings"
)

// ID gives a random word of letters and digits that names the database: the same for all
// who open it, and another for every other one. As a pool.Options.Name it keeps servers
// apart that share a provider and not their records. It is in the table vivarium_identity.
func (s *Store) ID(ctx context.Context) (string, error) {
	name, err := s.name(ctx)
	if err != nil || name != "" {
		return name, err
	}
	_, err = s.exec(ctx, "name the database", "INSERT INTO vivarium_identity (singleton, name) VALUES (1, ?) ON CONFLICT DO NOTHING",
		[]byte(strings.ToLower(rand.Text())))
	if err != nil {
		return "", err
	}
	return s.name(ctx) // which may be another's
}

// name is "" where there is none yet.
func (s *Store) name(ctx context.Context) (name string, err error) {
	var text []byte
	err = s.query(ctx, "name the database", func(rows *sql.Rows) error { return rows.Scan(&text) }, "SELECT name FROM vivarium_identity")
	return string(text), err
}
