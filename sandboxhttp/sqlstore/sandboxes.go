package sqlstore

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// SaveSandbox implements sandboxhttp.Store.
func (s *Store) SaveSandbox(ctx context.Context, rec *sandboxhttp.Sandbox) error {
	data, err := encodeSandbox(rec)
	if err != nil {
		return described(ctx, "save sandbox", err)
	}
	_, err = s.exec(ctx, "save sandbox", `
		INSERT INTO vivarium_sandboxes (account, id, state, created_at, record) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (account, id) DO UPDATE SET
			state = excluded.state, created_at = excluded.created_at, record = excluded.record`,
		[]byte(rec.Account), []byte(rec.ID), rec.State, nanoseconds(rec.CreatedAt), data)
	return err
}

// Sandbox implements sandboxhttp.Store.
func (s *Store) Sandbox(ctx context.Context, account, id string) (*sandboxhttp.Sandbox, error) {
	list, err := s.sandboxes(ctx, "read sandbox", account,
		"SELECT id, record FROM vivarium_sandboxes WHERE account = ? AND id = ?", []byte(account), []byte(id))
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, sandboxhttp.ErrNotFound
	}
	return list[0], nil
}

// Sandboxes implements sandboxhttp.Store.
func (s *Store) Sandboxes(ctx context.Context, account string, q sandboxhttp.Query) ([]*sandboxhttp.Sandbox, error) {
	query, args := "SELECT id, record FROM vivarium_sandboxes WHERE account = ?", []any{[]byte(account)}
	if q.State != "" {
		query, args = query+" AND state = ?", append(args, q.State)
	}
	if q.After.ID != "" {
		query += " AND (created_at, id) < (?, ?)"
		args = append(args, nanoseconds(q.After.CreatedAt), []byte(q.After.ID))
	}
	query += " ORDER BY created_at DESC, id DESC"
	if q.Limit > 0 {
		query, args = query+" LIMIT ?", append(args, int64(q.Limit))
	}
	return s.sandboxes(ctx, "list sandboxes", account, query, args...)
}

// sandboxes reads rows of id and record.
func (s *Store) sandboxes(ctx context.Context, op, account, query string, args ...any) ([]*sandboxhttp.Sandbox, error) {
	var list []*sandboxhttp.Sandbox
	scan := func(rows *sql.Rows) error {
		var id, data []byte
		if err := rows.Scan(&id, &data); err != nil {
			return err
		}
		rec, err := decodeSandbox(account, string(id), data)
		if err != nil {
			return fmt.Errorf("the record of sandbox %q: %w", id, err)
		}
		list = append(list, rec)
		return nil
	}
	if err := s.query(ctx, op, scan, query, args...); err != nil {
		return nil, err
	}
	return list, nil
}

// DeleteSandbox implements sandboxhttp.Store. The database deletes the runs with it.
func (s *Store) DeleteSandbox(ctx context.Context, account, id string) error {
	_, err := s.exec(ctx, "delete sandbox",
		"DELETE FROM vivarium_sandboxes WHERE account = ? AND id = ?", []byte(account), []byte(id))
	return err
}
