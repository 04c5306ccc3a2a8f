package sqlstore_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/internal/pgtest"
	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// BenchmarkReserve takes a place for an account that has limits and ten places, beside a
// bare INSERT of such a row into the same database, with the same promise that it is on disk.
func BenchmarkReserve(b *testing.B) {
	b.Run("SQLite", func(b *testing.B) {
		benchmarkReserve(b, "sqlite", database{"sqlite3", filepath.Join(b.TempDir(), "records.db"), sqlstore.SQLite})
	})
	b.Run("PostgreSQL", func(b *testing.B) {
		benchmarkReserve(b, "postgresql", database{"pgx", pgtest.URL(b), sqlstore.PostgreSQL})
	})
}

func benchmarkReserve(b *testing.B, name string, d database) {
	ctx, l := b.Context(), d.open(b).Ledger()
	d.exec(b, "CREATE TABLE bare AS SELECT * FROM vivarium_usage_places", "CREATE UNIQUE INDEX bare_key ON bare (account, kind, id)")
	r := usage.Reservation{Account: "acme", Kind: usage.KindSandbox, Quota: usage.Quota{
		SandboxesAtOnce: 1 << 40, PerDay: usage.Budget{Sandboxes: 1 << 40, Cost: 1 << 40},
	}}
	for _, r.ID = range strings.Split("abcdefghij", "") {
		if _, err := l.Reserve(ctx, r); err != nil {
			b.Fatal(err)
		}
	}
	r.ID = "new"
	conn := connection(b, d)
	defer conn.Close()
	insert := "INSERT INTO bare VALUES ($1, $2, $3, $4, $5, 1, 0, 0, 0, 0, 0)"
	var times figure.Pair
	for b.Loop() {
		times.Measure(func() {
			if _, err := l.Reserve(ctx, r); err != nil {
				b.Fatal(err)
			}
		}, func() {
			if _, err := conn.ExecContext(ctx, insert, []byte("acme"), []byte("sandbox"), []byte("new"), []byte(""), int64(1)); err != nil {
				b.Fatal(err)
			}
		})
		if err := l.Release(ctx, "acme", r.Kind, r.ID); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.ExecContext(ctx, "DELETE FROM bare"); err != nil {
			b.Fatal(err)
		}
	}
	times.Print(os.Stdout, "reserve_"+name, "bare-insert")
}

// connection gives one that has written to disk what it says it has.
func connection(b *testing.B, d database) *sql.Conn {
	conn, err := d.db(b).Conn(b.Context())
	if err == nil && d.dialect == sqlstore.SQLite {
		_, err = conn.ExecContext(b.Context(), "PRAGMA synchronous = FULL")
	}
	if err != nil {
		b.Fatal(err)
	}
	return conn
}
