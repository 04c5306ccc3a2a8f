package sqlstore

import (
	"context"
	"database/sql"
	"math"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// Places implements usage.Ledger.
func (l *Ledger) Places(ctx context.Context, q usage.Query) ([]usage.Place, error) {
	query := newListing("SELECT account, kind, id, sandbox_id, taken_at, " + each(heldColumns, "%") + " FROM vivarium_usage_places")
	query.between("taken_at", q, nanoseconds)
	query.page(q, []string{"taken_at", "account", "kind", "id"},
		nanoseconds(q.After.Time), []byte(q.After.Account), []byte(q.After.Kind), []byte(q.After.ID))
	var list []usage.Place
	err := l.s.query(ctx, "list places", func(rows *sql.Rows) error {
		var account, kind, id, sandboxID []byte
		var at int64
		var p usage.Place
		err := rows.Scan(targets([]any{&account, &kind, &id, &sandboxID, &at}, heldFields(&p.Held))...)
		p.Account, p.Kind, p.ID, p.SandboxID = string(account), usage.Kind(kind), string(id), string(sandboxID)
		p.Time = time.Unix(0, at).UTC()
		list = append(list, p)
		return err
	}, query.String(), query.args...)
	return whole(list, err)
}

// Entries implements usage.Ledger.
func (l *Ledger) Entries(ctx context.Context, q usage.Query) ([]usage.Entry, error) {
	query := newListing("SELECT account, id, kind, place, sandbox_id, run_id, used_at, " + each(amountColumns, "%") + " FROM vivarium_usage_entries")
	query.between("used_at", q, nanoseconds)
	query.page(q, []string{"used_at", "account", "id"}, nanoseconds(q.After.Time), []byte(q.After.Account), []byte(q.After.ID))
	var list []usage.Entry
	err := l.s.query(ctx, "list entries", func(rows *sql.Rows) error {
		var account, id, kind, place, sandboxID, runID []byte
		var at int64
		var e usage.Entry
		err := rows.Scan(targets([]any{&account, &id, &kind, &place, &sandboxID, &runID, &at}, amountFields(&e.Amounts))...)
		e.Account, e.ID, e.Kind, e.Place = string(account), string(id), usage.Kind(kind), string(place)
		e.SandboxID, e.RunID, e.Time = string(sandboxID), string(runID), time.Unix(0, at).UTC()
		list = append(list, e)
		return err
	}, query.String(), query.args...)
	return whole(list, err)
}

// Days implements usage.Ledger.
func (l *Ledger) Days(ctx context.Context, q usage.Query) ([]usage.Day, error) {
	query := newListing("SELECT day, account, " + each(amountColumns, "%") + " FROM vivarium_usage_days")
	query.between("day", q, dayFrom)
	query.page(q, []string{"day", "account"}, dayFrom(q.After.Time), []byte(q.After.Account))
	var list []usage.Day
	err := l.s.query(ctx, "list days", func(rows *sql.Rows) error {
		var day int64
		var account []byte
		var d usage.Day
		err := rows.Scan(targets([]any{&day, &account}, amountFields(&d.Amounts))...)
		d.Date, d.Account = time.Unix(day*24*60*60, 0).UTC(), string(account)
		list = append(list, d)
		return err
	}, query.String(), query.args...)
	return whole(list, err)
}

// dayFrom is the first day that begins at a time or later.
func dayFrom(t time.Time) int64 {
	n := dayNumber(t)
	if !t.Equal(usage.DayOf(t)) {
		n++
	}
	return n
}

// whole gives a list, or nothing where there was an error.
func whole[T any](list []T, err error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	return list, nil
}

// listing is a query being written.
type listing struct {
	strings.Builder
	args []any
}

func newListing(query string) *listing {
	l := new(listing)
	l.WriteString(query)
	return l
}

// between narrows it to a query's times. Where the page before ended bounds them too, so
// that an index is read from there on.
func (l *listing) between(column string, q usage.Query, number func(time.Time) int64) {
	from, to := number(q.From), int64(math.MaxInt64)
	if q.After.Account != "" {
		from = max(from, number(q.After.Time))
	}
	if !q.To.IsZero() {
		to = number(q.To)
	}
	l.WriteString(" WHERE " + column + " >= ? AND " + column + " < ?")
	l.args = append(l.args, from, to)
}

// page narrows it to an account and to those after a position, and puts them in the
// order of the columns.
func (l *listing) page(q usage.Query, columns []string, after ...any) {
	order := strings.Join(columns, ", ")
	if !q.AllAccounts {
		l.WriteString(" AND account = ?")
		l.args = append(l.args, []byte(q.Account))
	}
	if q.After.Account != "" {
		l.WriteString(" AND (" + order + ") > (" + marks(len(columns)) + ")")
		l.args = append(l.args, after...)
	}
	l.WriteString(" ORDER BY " + order)
	if q.Limit > 0 {
		l.WriteString(" LIMIT ?")
		l.args = append(l.args, int64(q.Limit))
	}
}
