package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	_ "github.com/ncruces/go-sqlite3/driver" // or another driver
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "records-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()

	// With PostgreSQL: sql.Open("pgx", "postgres://…") and sqlstore.PostgreSQL.
	db, err := sql.Open("sqlite3", filepath.Join(dir, "records.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := sqlstore.Open(ctx, db, sqlstore.SQLite)
	if err != nil {
		log.Fatal(err)
	}

	// A handler uses it as sandboxhttp.Config.Store.
	if err := store.SaveSandbox(ctx, &sandboxhttp.Sandbox{Account: "acme", ID: "sb-1", State: sandboxhttp.StateEnded}); err != nil {
		log.Fatal(err)
	}
	list, err := store.Sandboxes(ctx, "acme", sandboxhttp.Query{State: sandboxhttp.StateEnded})
	if err != nil {
		log.Fatal(err)
	}
	for _, rec := range list {
		fmt.Println(rec.ID, rec.State)
	}
	// Output: sb-1 ended
}
