package sqlstore

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// SaveRun implements sandboxhttp.Store.
func (s *Store) SaveRun(ctx context.Context, rec *sandboxhttp.Run) error {
	data, err := encodeRun(rec)
	if err != nil {
		return described(ctx, "save run", err)
	}
	lock := ""
	if s.dialect == PostgreSQL {
		lock = "FOR KEY SHARE" // a deletion of the sandbox comes before or after, not between
	}
	running := int64(0)
	if rec.State == sandboxhttp.StateRunning {
		running = 1
	}
	saved, err := s.exec(ctx, "save run", `
		INSERT INTO vivarium_runs (account, sandbox_id, id, started_at, running, record)
			SELECT account, id, ?, ?, ?, ? FROM vivarium_sandboxes WHERE account = ? AND id = ? `+lock+`
		ON CONFLICT (account, sandbox_id, id) DO UPDATE SET
			started_at = excluded.started_at, running = excluded.running, record = excluded.record`,
		[]byte(rec.ID), nanoseconds(rec.StartedAt), running, data, []byte(rec.Account), []byte(rec.SandboxID))
	if err == nil && saved == 0 {
		return sandboxhttp.ErrNotFound
	}
	return err
}

// Run implements sandboxhttp.Store.
func (s *Store) Run(ctx context.Context, account, sandboxID, id string) (*sandboxhttp.Run, error) {
	var rec *sandboxhttp.Run
	scan := func(rows *sql.Rows) error {
		var data []byte
		err := rows.Scan(&data)
		if err == nil {
			rec, err = decodeRun(account, sandboxID, id, data)
		}
		return err
	}
	err := s.query(ctx, "read run", scan, "SELECT record FROM vivarium_runs WHERE account = ? AND sandbox_id = ? AND id = ?",
		[]byte(account), []byte(sandboxID), []byte(id))
	if err == nil && rec == nil {
		err = sandboxhttp.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// Runs implements sandboxhttp.Store. One query tells a sandbox without runs from none.
func (s *Store) Runs(ctx context.Context, account, sandboxID string) ([]*sandboxhttp.Run, error) {
	found, list := false, []*sandboxhttp.Run{}
	scan := func(rows *sql.Rows) error {
		found = true
		var id, data []byte
		if err := rows.Scan(&id, &data); err != nil || data == nil {
			return err
		}
		rec, err := decodeRun(account, sandboxID, string(id), data)
		if err != nil {
			return fmt.Errorf("the record of run %q: %w", id, err)
		}
		list = append(list, rec)
		return nil
	}
	err := s.query(ctx, "list runs", scan, `
		SELECT r.id, r.record FROM vivarium_sandboxes s
			LEFT JOIN vivarium_runs r ON r.account = s.account AND r.sandbox_id = s.id
		WHERE s.account = ? AND s.id = ? ORDER BY r.started_at, r.id`, []byte(account), []byte(sandboxID))
	if err == nil && !found {
		err = sandboxhttp.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}

// RunningRuns implements sandboxhttp.Store.
func (s *Store) RunningRuns(ctx context.Context) ([]*sandboxhttp.Run, error) {
	list := []*sandboxhttp.Run{}
	scan := func(rows *sql.Rows) error {
		var account, sandboxID, id, data []byte
		if err := rows.Scan(&account, &sandboxID, &id, &data); err != nil {
			return err
		}
		rec, err := decodeRun(string(account), string(sandboxID), string(id), data)
		if err != nil {
			return fmt.Errorf("the record of run %q: %w", id, err)
		}
		list = append(list, rec)
		return nil
	}
	err := s.query(ctx, "list running runs", scan,
		"SELECT account, sandbox_id, id, record FROM vivarium_runs WHERE running = 1 ORDER BY started_at, id")
	if err != nil {
		return nil, err
	}
	return list, nil
}

// DeleteRun implements sandboxhttp.Store.
func (s *Store) DeleteRun(ctx context.Context, account, sandboxID, id string) error {
	_, err := s.exec(ctx, "delete run", "DELETE FROM vivarium_runs WHERE account = ? AND sandbox_id = ? AND id = ?",
		[]byte(account), []byte(sandboxID), []byte(id))
	return err
}
