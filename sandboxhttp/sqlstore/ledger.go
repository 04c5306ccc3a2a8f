package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"hash/fnv"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// Ledger is a [usage.Ledger] in the database of a Store, in the tables
// vivarium_usage_places, vivarium_usage_entries and vivarium_usage_days. It is safe for
// concurrent use, also by several processes with the same database.
//
// In SQLite, who changes something waits for all others who do; in PostgreSQL, who takes
// a place waits for those who take one for the same account. What was said of the Store's
// errors, and of what is on disk, holds for it too.
type Ledger struct{ s *Store }

var _ usage.Ledger = (*Ledger)(nil)

// Ledger gives the ledger in the store's database. It needs no closing.
func (s *Store) Ledger() *Ledger { return &Ledger{s} }

// heldColumns and amountColumns are the numbers of usage.Budget and usage.Amounts.
var (
	heldColumns   = []string{"sandboxes", "claude_time", "cost", "tokens", "bytes_in", "bytes_out"}
	amountColumns = []string{"sandboxes", "runs", "claude_time", "cost",
		"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "bytes_in", "bytes_out"}
)

// heldFields are the fields that the columns are of.
func heldFields(b *usage.Budget) []*int64 {
	return []*int64{&b.Sandboxes, (*int64)(&b.ClaudeTime), (*int64)(&b.Cost), &b.Tokens, &b.BytesIn, &b.BytesOut}
}

func amountFields(a *usage.Amounts) []*int64 {
	return []*int64{&a.Sandboxes, &a.Runs, (*int64)(&a.ClaudeTime), (*int64)(&a.Cost),
		&a.InputTokens, &a.OutputTokens, &a.CacheReadTokens, &a.CacheWriteTokens, &a.BytesIn, &a.BytesOut}
}

// values appends the numbers to a statement's arguments, and targets the places for
// them to what a row is read into.
func values(args []any, fields []*int64) []any {
	for _, field := range fields {
		args = append(args, *field)
	}
	return args
}

func targets(dest []any, fields []*int64) []any {
	for _, field := range fields {
		dest = append(dest, field)
	}
	return dest
}

// each writes something for each column, between commas; "%" is the column.
func each(columns []string, text string) string {
	var list []string
	for _, column := range columns {
		list = append(list, strings.ReplaceAll(text, "%", column))
	}
	return strings.Join(list, ", ")
}

// marks are so many parameters.
func marks(n int) string { return "?" + strings.Repeat(", ?", n-1) }

// What Reserve and Add say to the database.
var (
	// One row in any case: how many places of a kind, what all hold, what the day has
	// used, and the place that is asked for, at -1 if it is not taken.
	stateQuery = `
		SELECT h.of_kind, ` + each(heldColumns, "h.%") + `, ` + each(amountColumns, "coalesce(d.%, 0)") + `,
			p.sandbox_id, coalesce(p.taken_at, -1), ` + each(heldColumns, "coalesce(p.%, 0)") + `
		FROM (
			SELECT count(CASE WHEN kind = ? THEN 1 END) AS of_kind, ` + each(heldColumns, "CAST(coalesce(sum(%), 0) AS bigint) AS %") + `
			FROM vivarium_usage_places WHERE account = ?
		) h
		LEFT JOIN vivarium_usage_days d ON d.account = ? AND d.day = ?
		LEFT JOIN vivarium_usage_places p ON p.account = ? AND p.kind = ? AND p.id = ?`

	insertPlace = "INSERT INTO vivarium_usage_places (account, kind, id, sandbox_id, taken_at, " + each(heldColumns, "%") + ") VALUES (" +
		marks(5+len(heldColumns)) + ")"

	insertEntry = "INSERT INTO vivarium_usage_entries (account, id, kind, place, sandbox_id, run_id, used_at, " + each(amountColumns, "%") + ") VALUES (" +
		marks(7+len(amountColumns)) + ") ON CONFLICT (account, id) DO NOTHING"

	addToDay = "INSERT INTO vivarium_usage_days (account, day, " + each(amountColumns, "%") + ") VALUES (" + marks(2+len(amountColumns)) + `)
		ON CONFLICT (account, day) DO UPDATE SET ` + each(amountColumns, "% = vivarium_usage_days.% + excluded.%")

	takeFromPlace = "UPDATE vivarium_usage_places SET " + each(heldColumns, "% = CASE WHEN % > ? THEN % - ? ELSE 0 END") +
		" WHERE account = ? AND kind = ? AND id = ?"
)

// Reserve implements usage.Ledger.
func (l *Ledger) Reserve(ctx context.Context, r usage.Reservation) (usage.Place, error) {
	r, err := r.Checked()
	if err != nil {
		return usage.Place{}, err
	}
	var place usage.Place
	var refusal error
	err = l.s.atomically(ctx, "reserve", r.Account, func(q querier) error {
		state, have, err := l.state(ctx, q, r)
		if err != nil {
			return err
		}
		if have != nil {
			place = *have
			return nil
		}
		place, refusal = r.Grant(state)
		if refusal == nil {
			args := []any{[]byte(r.Account), []byte(r.Kind), []byte(r.ID), []byte(r.SandboxID), r.Time.UnixNano()}
			_, err = q.ExecContext(ctx, l.s.dialect.bind(insertPlace), values(args, heldFields(&place.Held))...)
		}
		return err
	})
	if err == nil {
		err = refusal
	}
	return place, err
}

// state reads what an account has taken, and the place that is asked for if it is among that.
func (l *Ledger) state(ctx context.Context, q querier, r usage.Reservation) (usage.State, *usage.Place, error) {
	rows, err := q.QueryContext(ctx, l.s.dialect.bind(stateQuery), []byte(r.Kind), []byte(r.Account),
		[]byte(r.Account), dayNumber(r.Time), []byte(r.Account), []byte(r.Kind), []byte(r.ID))
	if err != nil {
		return usage.State{}, nil, err
	}
	defer rows.Close()
	var state usage.State
	var sandboxID []byte
	var at int64
	have := usage.Place{Account: r.Account, Kind: r.Kind, ID: r.ID}
	dest := targets(targets([]any{&state.AtOnce}, heldFields(&state.Held)), amountFields(&state.Used))
	dest = targets(append(dest, &sandboxID, &at), heldFields(&have.Held))
	if !rows.Next() {
		return state, nil, rows.Err()
	}
	if err := rows.Scan(dest...); err != nil {
		return state, nil, err
	}
	if err := rows.Close(); err != nil || at < 0 {
		return state, nil, err
	}
	have.SandboxID, have.Time = string(sandboxID), time.Unix(0, at).UTC()
	return state, &have, nil
}

// Release implements usage.Ledger.
func (l *Ledger) Release(ctx context.Context, account string, kind usage.Kind, id string) error {
	_, err := l.s.exec(ctx, "release", "DELETE FROM vivarium_usage_places WHERE account = ? AND kind = ? AND id = ?",
		[]byte(account), []byte(kind), []byte(id))
	return err
}

// Add implements usage.Ledger. It needs no lock: Reserve reads in one statement, to which
// all of this has happened or nothing.
func (l *Ledger) Add(ctx context.Context, e usage.Entry) error {
	e, err := e.Checked()
	if err != nil {
		return err
	}
	return l.s.atomically(ctx, "add", "", func(q querier) error {
		args := []any{[]byte(e.Account), []byte(e.ID), []byte(e.Kind), []byte(e.Place), []byte(e.SandboxID), []byte(e.RunID), e.Time.UnixNano()}
		result, err := q.ExecContext(ctx, l.s.dialect.bind(insertEntry), values(args, amountFields(&e.Amounts))...)
		if err != nil {
			return err
		}
		if added, err := result.RowsAffected(); err != nil || added == 0 {
			return err
		}
		args = []any{[]byte(e.Account), dayNumber(e.Time)}
		if _, err := q.ExecContext(ctx, l.s.dialect.bind(addToDay), values(args, amountFields(&e.Amounts))...); err != nil {
			return err
		}
		used := e.Amounts.Budget()
		args = nil
		for _, field := range heldFields(&used) {
			args = append(args, *field, *field)
		}
		args = append(args, []byte(e.Account), []byte(e.Kind), []byte(e.Place))
		_, err = q.ExecContext(ctx, l.s.dialect.bind(takeFromPlace), args...)
		return err
	})
}

// dayNumber is a time's day, counted from 1970.
func dayNumber(t time.Time) int64 { return usage.DayOf(t).Unix() / (24 * 60 * 60) }

// atomically does fn wholly or not at all. In PostgreSQL who gives the same name, if it is
// one, waits for its turn, and reads what those before have done: each statement must see
// what was committed until then, which is not every database's default. In SQLite
// everybody waits.
func (s *Store) atomically(ctx context.Context, op, name string, fn func(querier) error) error {
	if s.dialect == SQLite {
		return described(ctx, op, s.alone(ctx, fn))
	}
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return described(ctx, op, err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing, and else the connection is gone
	if name != "" {
		_, err = tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", turn(name))
	}
	if err == nil {
		err = fn(tx)
	}
	if err == nil {
		err = tx.Commit()
	}
	return described(ctx, op, err)
}

// turn is what those lock who take places of an account. Two accounts may have the same
// number, and then wait for each other.
func turn(account string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("vivarium usage\x00" + account)) // never fails
	return int64(h.Sum64())
}

// alone does fn as the only one who writes to a database of SQLite.
func (s *Store) alone(ctx context.Context, fn func(querier) error) error {
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	conn, err := s.conn(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.transaction(ctx, conn, func() error { return fn(conn) }), conn.Close())
}
