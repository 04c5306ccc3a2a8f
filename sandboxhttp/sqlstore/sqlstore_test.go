package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
)

// Servers that start at once on an empty database all get it, and make its tables once.
func TestOpenAtOnce(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		var wg sync.WaitGroup
		for i := range 6 {
			db := d.db(t)
			wg.Go(func() {
				s, err := sqlstore.Open(t.Context(), db, d.dialect)
				if err == nil {
					err = saveBoth(t.Context(), s, fmt.Sprint("sb-", i))
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if list, err := d.open(t).Sandboxes(t.Context(), "acme", sandboxhttp.Query{}); err != nil || len(list) != 6 {
			t.Errorf("%d sandboxes, %v", len(list), err)
		}
	})
}

// A program does not touch tables that a later one has changed.
func TestNewer(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		d.open(t)
		d.exec(t, "INSERT INTO vivarium_schema (version) VALUES (900)")
		_, err := sqlstore.Open(t.Context(), d.db(t), d.dialect)
		if !errors.Is(err, sqlstore.ErrNewer) || !strings.Contains(err.Error(), "900") {
			t.Errorf("Open: %v", err)
		}
	})
}

// A step that fails leaves nothing of itself or of those before it, and the next
// attempt begins where it began.
func TestStepsAreWhole(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		steps := [][]string{{"CREATE TABLE one (n int)"}, {"CREATE TABLE two (n int)", "this is not SQL"}}
		if err := sqlstore.Migrate(t.Context(), d.db(t), d.dialect, steps); err == nil || !strings.Contains(err.Error(), "version 2") {
			t.Fatalf("a step that fails: %v", err)
		}
		steps[1] = steps[1][:1]
		for range 2 { // there is nothing to be done the second time
			if err := sqlstore.Migrate(t.Context(), d.db(t), d.dialect, steps); err != nil {
				t.Fatal(err)
			}
		}
		d.exec(t, "INSERT INTO one VALUES (1)", "INSERT INTO two VALUES (1)")
		steps = append(steps, []string{"ALTER TABLE one ADD COLUMN m int"})
		if err := sqlstore.Migrate(t.Context(), d.db(t), d.dialect, steps); err != nil {
			t.Fatal(err)
		}
		d.exec(t, "INSERT INTO one VALUES (1, 2)")
	})
}

// Processes that share a file of SQLite wait for each other.
func TestTwoPools(t *testing.T) {
	d := databases["SQLite"](t)
	var wg sync.WaitGroup
	for pool := range 2 {
		s := d.open(t)
		for i := range 4 {
			wg.Go(func() {
				for n := range 8 {
					if err := saveBoth(t.Context(), s, fmt.Sprintf("sb-%d-%d-%d", pool, i, n)); err != nil {
						t.Error(err)
					}
					if _, err := s.Sandboxes(t.Context(), "acme", sandboxhttp.Query{Limit: 5}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
}

// Who waits for another's lock heeds the context, and spoils nothing for the next call.
func TestContextEndsWhileWaiting(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		s := d.open(t)
		if err := saveBoth(t.Context(), s, "sb"); err != nil {
			t.Fatal(err)
		}
		other, err := d.db(t).Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		for _, statement := range []string{"BEGIN", "UPDATE vivarium_sandboxes SET state = 'held'"} {
			if _, err := other.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer stop()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := saveBoth(ctx, s, "sb"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("while another holds the lock: %v", err)
				}
			})
		}
		wg.Wait()
		if _, err := s.Sandbox(t.Context(), "acme", "sb"); err != nil {
			t.Errorf("reading meanwhile: %v", err)
		}
		if _, err := other.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := saveBoth(t.Context(), s, "sb"); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRefused(t *testing.T) {
	_, err := sqlstore.Open(t.Context(), database{driver: "sqlite3", source: ":memory:"}.db(t), sqlstore.SQLite)
	if err == nil || !strings.Contains(err.Error(), "in memory") {
		t.Errorf("a database in memory: %v", err)
	}
	d := databases["SQLite"](t)
	for _, dialect := range []sqlstore.Dialect{0, 3} {
		if _, err := sqlstore.Open(t.Context(), d.db(t), dialect); err == nil {
			t.Errorf("%v was taken", dialect)
		}
	}
}

// Whatever the driver's defaults are, SQLite waits for others, and a save that has
// returned is on disk.
func TestSettings(t *testing.T) {
	conn, err := databases["SQLite"](t).open(t).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "busy_timeout": "10000"} {
		var got string
		if err := conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", pragma, got, err, want)
		}
	}
}

// Lists are read in the order of an index, and not from those of other accounts.
func TestIndexes(t *testing.T) {
	d := databases["SQLite"](t)
	d.open(t)
	for _, query := range []string{
		"SELECT id, record FROM vivarium_sandboxes WHERE account = x'00' AND (created_at, id) < (1, x'00') ORDER BY created_at DESC, id DESC LIMIT 5",
		"SELECT id, record FROM vivarium_sandboxes WHERE account = x'00' AND state = 'ended' AND (created_at, id) < (1, x'00') ORDER BY created_at DESC, id DESC",
		"SELECT record FROM vivarium_runs WHERE account = x'00' AND sandbox_id = x'00' ORDER BY started_at, id",
		"DELETE FROM vivarium_runs WHERE account = x'00' AND sandbox_id = x'00'",
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
			if strings.HasPrefix(step, "SCAN") || strings.Contains(step, "TEMP B-TREE") {
				t.Errorf("%s: %s", query, step)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// A user who may read and write, but not make tables, is enough once they are there.
func TestFewRights(t *testing.T) {
	d := databases["PostgreSQL"](t)
	d.open(t)
	u, err := url.Parse(d.source)
	if err != nil {
		t.Fatal(err)
	}
	schema := u.Query().Get("search_path")
	role := "of_" + schema
	d.exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'few'", "GRANT USAGE ON SCHEMA "+schema+" TO "+role,
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "+schema+" TO "+role)
	u.User = url.UserPassword(role, "few")
	d.source = u.String()
	if err := saveBoth(t.Context(), d.open(t), "sb"); err != nil {
		t.Error(err)
	}
}
