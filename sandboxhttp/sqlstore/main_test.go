package sqlstore_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/ncruces/go-sqlite3/driver"
	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/pgtest"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
	"github.com/vivarium-go/vivarium/sandboxhttp/storetest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		child()
	}
	if os.Getenv(racerVariable) != "" {
		racer()
	}
	goleak.VerifyTestMain(pgtest.Main(m))
}

// database is somewhere to open a store.
type database struct {
	driver, source string
	dialect        sqlstore.Dialect
}

// databases give an empty database of each kind.
var databases = map[string]func(t *testing.T) database{
	"SQLite": func(t *testing.T) database {
		return database{"sqlite3", filepath.Join(t.TempDir(), "records.db"), sqlstore.SQLite}
	},
	"PostgreSQL": func(t *testing.T) database {
		return database{"pgx", pgtest.URL(t), sqlstore.PostgreSQL}
	},
}

// each runs a test on every kind of database.
func each(t *testing.T, test func(t *testing.T, d database)) {
	for name, empty := range databases {
		t.Run(name, func(t *testing.T) { test(t, empty(t)) })
	}
}

func (d database) db(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open(d.driver, d.source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func (d database) open(t testing.TB) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), d.db(t), d.dialect)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (d database) exec(t testing.TB, statements ...string) {
	t.Helper()
	db := d.db(t)
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func TestConformance(t *testing.T) {
	for name, empty := range databases {
		t.Run(name, func(t *testing.T) {
			storetest.Exercise(t, func(t *testing.T) sandboxhttp.Store { return empty(t).open(t) })
		})
	}
}
