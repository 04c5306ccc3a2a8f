package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

func ExampleStore_Ledger() {
	dir, err := os.MkdirTemp("", "records-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	db, err := sql.Open("sqlite3", filepath.Join(dir, "records.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := sqlstore.Open(ctx, db, sqlstore.SQLite)
	if err != nil {
		log.Fatal(err)
	}

	ledger := store.Ledger()
	for _, id := range []string{"sb-1", "sb-2"} {
		_, err := ledger.Reserve(ctx, usage.Reservation{
			Account: "acme", Kind: usage.KindSandbox, ID: id, Quota: usage.Quota{SandboxesAtOnce: 1},
		})
		fmt.Println(id, err)
	}
	// Output:
	// sb-1 <nil>
	// sb-2 an account may have 1 sandboxes at once, and has 1: delete one first
}
