package pgtest_test

import (
	"database/sql"
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

func open(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Two tests do not see each other's tables.
func TestURL(t *testing.T) {
	for range 2 {
		if _, err := open(t, pgtest.URL(t)).ExecContext(t.Context(), "CREATE TABLE mine (n int)"); err != nil {
			t.Error(err)
		}
	}
}

func TestCrash(t *testing.T) {
	s := pgtest.Start(t)
	url := s.URL(t)
	if _, err := open(t, url).ExecContext(t.Context(), "CREATE TABLE kept (n int)"); err != nil {
		t.Fatal(err)
	}
	for _, again := range []func(testing.TB){s.Crash, s.Restart} {
		again(t)
		if _, err := open(t, url).ExecContext(t.Context(), "INSERT INTO kept VALUES (1)"); err != nil {
			t.Error(err)
		}
	}
}
