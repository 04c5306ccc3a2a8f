package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/pgtest"
	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage/usagetest"
)

// Two servers have a store each, with a *sql.DB of its own.
func TestLedger(t *testing.T) {
	for name, empty := range databases {
		t.Run(name, func(t *testing.T) {
			usagetest.Exercise(t, func(t *testing.T) (one, other usage.Ledger) {
				d := empty(t)
				return d.open(t).Ledger(), d.open(t).Ledger()
			})
		})
	}
}

// The last place is given once whatever isolation the database gives transactions that
// ask for none: some would read what was before they waited for their turn.
func TestLedgerIsolation(t *testing.T) {
	for _, isolation := range []string{"repeatable read", "serializable"} {
		d := databases["PostgreSQL"](t)
		d.source += "&default_transaction_isolation=" + strings.ReplaceAll(isolation, " ", "%20")
		ledgers := []usage.Ledger{d.open(t).Ledger(), d.open(t).Ledger()}
		for round := range 100 {
			got := make(chan error, len(ledgers))
			for i, l := range ledgers {
				go func() {
					_, err := l.Reserve(t.Context(), usage.Reservation{
						Account: fmt.Sprint("account-", round), Kind: usage.KindRun, ID: fmt.Sprint("run-", i), Quota: usage.Quota{RunsAtOnce: 1},
					})
					got <- err
				}()
			}
			first, second := <-got, <-got
			var exceeded *usage.ExceededError
			if (first == nil) == (second == nil) || !errors.As(errors.Join(first, second), &exceeded) {
				t.Fatalf("%s, race %d: %v and %v; want one place and one refusal", isolation, round, first, second)
			}
		}
	}
}

// A server of PostgreSQL that crashes again and again, and writers that say what failed
// once more until they are told that it is there: every use counts once, and the sums of
// days are those of their entries.
func TestLedgerAfterCrashes(t *testing.T) {
	server := pgtest.Start(t)
	d := database{"pgx", server.URL(t), sqlstore.PostgreSQL}
	const writers, each = 3, 60
	failed, half := make(chan int, writers), make(chan struct{}, writers)
	for i := range writers {
		l := d.open(t).Ledger()
		go func() {
			failures := addStubbornly(t.Context(), l, i, 0, each/3)
			half <- struct{}{}
			failed <- failures + addStubbornly(t.Context(), l, i, each/3, each)
		}()
	}
	<-half
	for range 3 {
		server.Crash(t)
	}
	failures := 0
	for range writers {
		failures += <-failed
	}
	t.Logf("%d calls failed", failures)
	l := d.open(t).Ledger()
	entries, err := l.Entries(t.Context(), usage.Query{Account: "acme"})
	days, daysErr := l.Days(t.Context(), usage.Query{Account: "acme"})
	want := usage.Amounts{Runs: writers * each, Cost: 3 * writers * each}
	if err != nil || daysErr != nil || len(entries) != writers*each || len(days) != 1 || days[0].Amounts != want {
		t.Errorf("%d entries, %v; days %v, %v; want %+v", len(entries), err, days, daysErr, want)
	}
}

// addStubbornly adds a writer's entries until it is told that each is there, and gives
// how often it was told otherwise.
func addStubbornly(ctx context.Context, l usage.Ledger, writer, from, to int) (failures int) {
	for n := from; n < to; n++ {
		e := usage.Entry{
			Account: "acme", ID: fmt.Sprintf("run-%d-%d", writer, n), Kind: usage.KindRun, Place: fmt.Sprint("run-", writer),
			Time: time.Unix(int64(n), 0), Amounts: usage.Amounts{Runs: 1, Cost: 3},
		}
		for l.Add(ctx, e) != nil && ctx.Err() == nil {
			failures++
		}
	}
	return failures
}

// A call that is given up while another process holds the lock takes nothing, and spoils
// nothing for the next one.
func TestLedgerContextEndsWhileWaiting(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		l := d.open(t).Ledger()
		conn := holder(t, d)
		defer conn.Close()
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer stop()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				_, err := l.Reserve(ctx, usage.Reservation{Account: "acme", Kind: usage.KindRun, ID: "given up"})
				addErr := l.Add(ctx, usage.Entry{Account: "acme", Kind: usage.KindRun, ID: "given up"})
				if !errors.Is(err, ctx.Err()) || !errors.Is(addErr, ctx.Err()) {
					t.Errorf("while another holds the lock: %v, %v", err, addErr)
				}
			})
		}
		wg.Wait()
		if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := l.Reserve(t.Context(), usage.Reservation{Account: "acme", Kind: usage.KindRun, ID: "run"}); err != nil {
				t.Error(err)
			}
		}
		places, err := l.Places(t.Context(), usage.Query{Account: "acme"})
		entries, entriesErr := l.Entries(t.Context(), usage.Query{Account: "acme"})
		if err != nil || entriesErr != nil || len(places) != 1 || len(entries) != 0 {
			t.Errorf("places %v, %v; entries %v, %v", places, err, entries, entriesErr)
		}
	})
}

// holder gives a connection that holds the lock.
func holder(t *testing.T, d database) *sql.Conn {
	conn, err := d.db(t).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hold := []string{"BEGIN IMMEDIATE"}
	if d.dialect == sqlstore.PostgreSQL {
		hold = []string{"BEGIN", "LOCK TABLE vivarium_usage_places, vivarium_usage_entries"}
	}
	for _, statement := range hold {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

// Pages are read in the order of an index, from where the page before ended.
func TestLedgerIndexes(t *testing.T) {
	d := databases["SQLite"](t)
	d.open(t)
	for _, query := range []string{
		"SELECT * FROM vivarium_usage_entries WHERE used_at >= 1 AND used_at < 9 AND (used_at, account, id) > (1, x'00', x'00') ORDER BY used_at, account, id LIMIT 5",
		"SELECT * FROM vivarium_usage_entries WHERE used_at >= 1 AND used_at < 9 AND account = x'00' AND (used_at, account, id) > (1, x'00', x'00') ORDER BY used_at, account, id LIMIT 5",
		"SELECT * FROM vivarium_usage_places WHERE taken_at >= 1 AND taken_at < 9 ORDER BY taken_at, account, kind, id LIMIT 5",
		"SELECT * FROM vivarium_usage_places WHERE taken_at >= 1 AND taken_at < 9 AND account = x'00' ORDER BY taken_at, account, kind, id LIMIT 5",
		"SELECT * FROM vivarium_usage_days WHERE day >= 1 AND day < 9 ORDER BY day, account LIMIT 5",
		"SELECT * FROM vivarium_usage_days WHERE day >= 1 AND day < 9 AND account = x'00' ORDER BY day, account LIMIT 5",
		"SELECT sum(tokens) FROM vivarium_usage_places WHERE account = x'00'",
	} {
		rows, err := d.db(t).QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(step, "SCAN") || strings.Contains(step, "TEMP B-TREE") || !strings.Contains(step, "(") {
				t.Errorf("%s: %s", query, step)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
