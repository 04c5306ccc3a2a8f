package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// Pool is a [pool.Store] in the same database as a Store, whose promises are its too. Its
// table is vivarium_pool. Store.Pool gives one.
type Pool struct{ s *Store }

var _ pool.Store = (*Pool)(nil)

// Pool gives the records of pools in the database, for pool.Options.Store.
func (s *Store) Pool() *Pool { return &Pool{s: s} }

// Save implements pool.Store.
func (p *Pool) Save(ctx context.Context, r *pool.Record) error {
	saved := *r
	saved.Revision++
	data, err := json.Marshal(&saved)
	if err != nil {
		return described(ctx, "save pool record", err)
	}
	var changed int64
	if r.Revision == 0 {
		changed, err = p.insert(ctx, r, data)
	} else {
		changed, err = p.update(ctx, r, data)
	}
	if err == nil && changed == 1 {
		r.Revision++
		return nil
	}
	if why := p.refusal(ctx, r); why != nil && (err == nil || errors.Is(why, fs.ErrExist)) {
		return why // two that take an ID at once are told apart by the database's own error
	}
	return err
}

func (p *Pool) insert(ctx context.Context, r *pool.Record, data []byte) (int64, error) {
	return p.s.exec(ctx, "add pool record", `
		INSERT INTO vivarium_pool (pool, key, owner, id, spare, live, created_at, ended_at, revision, record)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT DO NOTHING`,
		[]byte(r.Pool), []byte(r.Key), []byte(r.Owner), []byte(r.ID), []byte(r.Spare), live(r),
		nanoseconds(r.CreatedAt), nanoseconds(r.EndedAt), data)
}

func (p *Pool) update(ctx context.Context, r *pool.Record, data []byte) (int64, error) {
	return p.s.exec(ctx, "save pool record", `
		UPDATE vivarium_pool SET owner = ?, id = ?, spare = ?, live = ?, created_at = ?, ended_at = ?, revision = revision + 1, record = ?
		WHERE pool = ? AND key = ? AND revision = ? AND NOT EXISTS (
			SELECT 1 FROM vivarium_pool other WHERE other.pool = ? AND other.owner = ? AND other.id = ? AND other.key <> ?)`,
		[]byte(r.Owner), []byte(r.ID), []byte(r.Spare), live(r), nanoseconds(r.CreatedAt), nanoseconds(r.EndedAt), data,
		[]byte(r.Pool), []byte(r.Key), r.Revision,
		[]byte(r.Pool), []byte(r.Owner), []byte(r.ID), []byte(r.Key))
}

// refusal says why a record was not saved.
func (p *Pool) refusal(ctx context.Context, r *pool.Record) error {
	var revision int64
	err := p.s.query(ctx, "save pool record", func(rows *sql.Rows) error { return rows.Scan(&revision) },
		"SELECT revision FROM vivarium_pool WHERE pool = ? AND key = ?", []byte(r.Pool), []byte(r.Key))
	switch {
	case err != nil:
		return err
	case revision != r.Revision:
		return pool.ErrConflict
	}
	return fmt.Errorf("a sandbox with the ID %q: %w", r.ID, fs.ErrExist)
}

func live(r *pool.Record) int {
	if r.State == pool.StateTerminated {
		return 0
	}
	return 1
}

// Record implements pool.Store.
func (p *Pool) Record(ctx context.Context, name, key string) (*pool.Record, error) {
	list, err := p.records(ctx, "read pool record",
		"SELECT record FROM vivarium_pool WHERE pool = ? AND key = ?", []byte(name), []byte(key))
	if err == nil && len(list) == 0 {
		err = sandbox.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// Records implements pool.Store.
func (p *Pool) Records(ctx context.Context, q pool.Query) ([]*pool.Record, error) {
	query, args := "SELECT record FROM vivarium_pool WHERE pool = ?", []any{[]byte(q.Pool)}
	for column, text := range map[string]string{"owner": q.Owner, "id": q.ID, "spare": q.Spare} {
		if text != "" {
			query, args = query+" AND "+column+" = ?", append(args, []byte(text))
		}
	}
	if q.Live {
		query += " AND live = 1"
	}
	if !q.EndedBefore.IsZero() {
		query, args = query+" AND live = 0 AND ended_at < ?", append(args, nanoseconds(q.EndedBefore))
	}
	return p.records(ctx, "list pool records", query+" ORDER BY created_at DESC, key DESC", args...)
}

func (p *Pool) records(ctx context.Context, op, query string, args ...any) ([]*pool.Record, error) {
	var list []*pool.Record
	scan := func(rows *sql.Rows) error {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			return err
		}
		var r pool.Record
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("a record: %w", err)
		}
		list = append(list, &r)
		return nil
	}
	if err := p.s.query(ctx, op, scan, query, args...); err != nil {
		return nil, err
	}
	return list, nil
}

// Delete implements pool.Store.
func (p *Pool) Delete(ctx context.Context, r *pool.Record) error {
	deleted, err := p.s.exec(ctx, "delete pool record",
		"DELETE FROM vivarium_pool WHERE pool = ? AND key = ? AND revision = ?", []byte(r.Pool), []byte(r.Key), r.Revision)
	if err != nil || deleted == 1 {
		return err
	}
	if _, err = p.Record(ctx, r.Pool, r.Key); errors.Is(err, sandbox.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = pool.ErrConflict
	}
	return err
}
