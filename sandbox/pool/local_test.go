package pool_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

// ready waits until so many spares are.
func ready(t testing.TB, store pool.Store, n int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := store.Records(ctx, pool.Query{Pool: "pool", Live: true})
		if err != nil {
			t.Fatalf("there are not %d spares: %v", n, err)
		}
		have := 0
		for _, r := range list {
			if r.Spare != "" && r.State == pool.StateRunning && r.Lease == (pool.Lease{}) {
				have++
			}
		}
		if have >= n {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// On real sandboxes: a spare is claimed and used, the pool is opened again on its records
// and on none, and nothing is left.
func TestLocal(t *testing.T) {
	provider := sandboxtest.NewProvider(t, nil)
	store := new(pool.MemoryStore)
	saved := ""
	opts := &pool.Options{
		Provider: provider, Store: store, Spares: []pool.Spare{{N: 2}},
		Save: func(ctx context.Context, _ *pool.Record, sb *sandbox.Sandbox) error {
			data, err := sb.FS(ctx).ReadFile("note")
			saved = string(data)
			return err
		},
	}
	p, err := pool.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, store, 2)
	s := create(t, p, "acme", &pool.Config{ID: "one"})
	sb, release := use(t, s)
	if err := sb.FS(t.Context()).WriteFile("note", []byte("work"), 0o644); err != nil {
		t.Fatal(err)
	}
	release()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}

	opts.Spares = nil
	p, err = pool.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = p.Get(t.Context(), "acme", "one"); err != nil {
		t.Fatal(err)
	}
	sb, release = use(t, s)
	out, err := sb.Command(t.Context(), "cat", "note").Output()
	if err != nil || string(out) != "work" {
		t.Errorf("%q, %v", out, err)
	}
	release()
	if err := errors.Join(s.Terminate(t.Context(), nil), p.Close()); err != nil {
		t.Fatal(err)
	}
	if saved != "work" || record(t, s).State != pool.StateTerminated {
		t.Errorf("saved %q", saved)
	}
	for info, err := range provider.List(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(info.Tags[pool.TagBox], "sb-") || info.ID == sb.ID() {
			t.Errorf("%+v is left", info)
		}
	}
}

// BenchmarkClaim: a warm spare given to an owner, and used, beside a sandbox made by the
// provider.
func BenchmarkClaim(b *testing.B) {
	provider := sandboxtest.NewProvider(b, nil)
	store := new(pool.MemoryStore)
	const n = 4
	p, err := pool.Open(b.Context(), &pool.Options{Provider: provider, Store: store, Spares: []pool.Spare{{N: n}}})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	var pair figure.Pair
	for b.Loop() {
		ready(b, store, n)
		var s *pool.Sandbox
		var made *sandbox.Sandbox
		pair.Measure(func() {
			if s, err = p.Create(b.Context(), "acme", nil); err != nil {
				b.Fatal(err)
			}
			_, release, err := s.Use(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			release()
		}, func() {
			if made, err = provider.Create(b.Context(), nil); err != nil {
				b.Fatal(err)
			}
		})
		if err := errors.Join(made.Terminate(b.Context()), made.Close(), s.Terminate(b.Context(), nil)); err != nil {
			b.Fatal(err)
		}
	}
	pair.Print(os.Stdout, "pool_claim", "create")
}
