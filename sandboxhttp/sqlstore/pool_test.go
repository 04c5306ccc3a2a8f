package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandbox/pool/pooltest"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
)

func TestPoolConformance(t *testing.T) {
	for name, empty := range databases {
		t.Run(name, func(t *testing.T) {
			pooltest.Exercise(t, func(t *testing.T) pool.Store { return empty(t).open(t).Pool() })
		})
	}
}

// Processes with pools of connections of their own claim each spare once.
func TestClaimsOfTwoProcesses(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		first := d.open(t).Pool()
		for i := range 20 {
			r := &pool.Record{Key: fmt.Sprint("spare-", i), ID: fmt.Sprint("spare-", i), Spare: "kind", State: pool.StateRunning}
			if err := first.Save(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		claims := map[string]int{}
		var wg sync.WaitGroup
		for i := range 3 {
			s := d.open(t).Pool()
			wg.Go(func() {
				list, err := s.Records(t.Context(), pool.Query{Spare: "kind", Live: true})
				if err != nil {
					t.Error(err)
				}
				for _, r := range list {
					r.Owner, r.Spare = fmt.Sprint("owner-", i), ""
					err := s.Save(t.Context(), r)
					if err != nil && !errors.Is(err, pool.ErrConflict) {
						t.Error(err)
					}
					if err == nil {
						mu.Lock()
						claims[r.Key]++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		for key, n := range claims {
			if n != 1 {
				t.Errorf("%s was claimed %d times", key, n)
			}
		}
		if len(claims) != 20 {
			t.Errorf("%d of 20 were claimed", len(claims))
		}
	})
}

// What pools ask for often is found by an index.
func TestPoolIndexes(t *testing.T) {
	d := databases["SQLite"](t)
	d.open(t)
	for _, where := range []string{"key = x'00'", "owner = x'00' AND id = x'00'", "owner = x'00'", "spare = x'00' AND live = 1", "live = 1", "live = 0 AND ended_at < 1"} {
		rows, err := d.db(t).QueryContext(t.Context(), "EXPLAIN QUERY PLAN SELECT record FROM vivarium_pool WHERE pool = x'00' AND "+where)
		if err != nil {
			t.Fatal(err)
		}
		terms := 0
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				t.Fatal(err)
			}
			terms += strings.Count(step, "=?") + strings.Count(step, "<?")
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
		if wanted := 1 + strings.Count(where, "=") + strings.Count(where, "<"); terms < wanted {
			t.Errorf("%s: %d of %d terms are of an index", where, terms, wanted)
		}
	}
}

// Who waits for another's lock heeds the context, and spoils nothing for the next call.
func TestPoolContextEnds(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		s := d.open(t).Pool()
		r := &pool.Record{Key: "sb", ID: "sb", Owner: "acme"}
		if err := s.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		other, err := d.db(t).Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		for _, statement := range []string{"BEGIN", "UPDATE vivarium_pool SET live = 0"} {
			if _, err := other.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer stop()
		if err := s.Save(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while another holds the lock: %v", err)
		}
		if _, err := other.ExecContext(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		r, err = s.Record(t.Context(), "", "sb") // which may have been saved
		if err == nil {
			err = s.Save(t.Context(), r)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

func ExampleStore_Pool() {
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

	// A pool uses it as pool.Options.Store.
	records := store.Pool()
	r := &pool.Record{Pool: "pool", Key: "sb-1", Owner: "acme", ID: "sb-1", State: pool.StateRunning}
	stale := *r
	fmt.Println(records.Save(ctx, r), r.Revision)
	fmt.Println(errors.Is(records.Save(ctx, &stale), pool.ErrConflict))
	// Output:
	// <nil> 1
	// true
}

// Two servers with a database and a provider in common have their pools in common: what
// one made the other uses and ends, and what a third one left behind is taken over.
func TestPoolsOfTwoServers(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		provider := sandboxtest.NewProvider(t, nil)
		open := func() *pool.Pool {
			p, err := pool.Open(t.Context(), &pool.Options{Provider: provider, Store: d.open(t).Pool(), Spares: []pool.Spare{{N: 1}}})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		killed := open()
		left, err := killed.Create(t.Context(), "acme", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := killed.Close(); err != nil {
			t.Fatal(err)
		}
		pools := []*pool.Pool{open(), open()}
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { passOn(t, pools[i%2], pools[(i+1)%2]) })
		}
		wg.Wait()
		if err := pools[0].Terminate(t.Context(), "acme", left.ID(), nil); err != nil {
			t.Error(err)
		}
		for _, p := range pools {
			if list, err := p.List(t.Context(), "acme"); err != nil || len(list) != 5 {
				t.Errorf("%d sandboxes, %v", len(list), err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// passOn makes a sandbox in one server, and uses and ends it in another.
func passOn(t *testing.T, from, to *pool.Pool) {
	made, err := from.Create(t.Context(), "acme", nil)
	if err != nil {
		t.Error(err)
		return
	}
	s, err := to.Get(t.Context(), "acme", made.ID())
	if err != nil {
		t.Error(err)
		return
	}
	sb, release, err := s.Use(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	if err := sb.Command(t.Context(), "true").Run(); err != nil {
		t.Error(err)
	}
	release()
	if err := s.Terminate(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if r, err := made.Record(t.Context()); err != nil || r.State != pool.StateTerminated {
		t.Errorf("%+v, %v", r, err)
	}
}
