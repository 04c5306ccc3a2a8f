package sandboxhttp_test

import (
	"database/sql"
	"path/filepath"
	"slices"
	"testing"

	_ "github.com/ncruces/go-sqlite3/driver"

	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// openLedger opens a ledger in a file, as one of several processes would.
func openLedger(t *testing.T, file string) usage.Ledger {
	t.Helper()
	db, err := sql.Open("sqlite3", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	store, err := sqlstore.Open(t.Context(), db, sqlstore.SQLite)
	if err != nil {
		t.Fatal(err)
	}
	return store.Ledger()
}

// Two servers that share nothing but the ledger give an account's last place once.
func TestTwoServersAndTheLastPlace(t *testing.T) {
	p, file := newPlace(t, talk), filepath.Join(t.TempDir(), "usage.db")
	var servers []*server
	for range 2 {
		l := openLedger(t, file) // closed after its server
		servers = append(servers, serve(t, p, metered(l, usage.Quota{SandboxesAtOnce: 1}, func(c *sandboxhttp.Config) { c.Limits.Ended = 1 })))
	}
	type outcome struct {
		server *server
		status int
		box    string
	}
	for round := range 100 {
		got := make(chan outcome, len(servers))
		for _, s := range servers {
			go func() {
				resp := s.request("POST", "/sandbox", "")
				got <- outcome{s, resp.StatusCode, resp.Header.Get("Location")}
			}()
		}
		both := []outcome{<-got, <-got}
		slices.SortFunc(both, func(a, b outcome) int { return a.status - b.status })
		if both[0].status != 201 || both[1].status != 429 || p.alive() != 1 {
			t.Fatalf("race %d: %v, %d alive; want one sandbox and one refusal", round, both, p.alive())
		}
		both[0].server.ask(200, "DELETE", "/"+both[0].box, "")
	}
	counts(t, openLedger(t, file), 0, 100)
}
