package pool_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

// withSpares are options of a pool that keeps two spares of one kind.
func (w *world) withSpares() *pool.Options {
	opts := w.options()
	opts.Spares = []pool.Spare{{Config: &sandbox.Config{Memory: 1 << 30}, N: 2}}
	return opts
}

func big() *pool.Config { return &pool.Config{Sandbox: &sandbox.Config{Memory: 1 << 30}} }

// spares counts those that are ready.
func (w *world) spares(t *testing.T) int {
	t.Helper()
	list, err := w.store.Records(t.Context(), pool.Query{Pool: "pool", Live: true})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range list {
		if r.Spare != "" && r.Owner == "" && r.State == pool.StateRunning {
			n++
		}
	}
	return n
}

// A claim asks nothing of the provider, and another spare takes the place.
func TestClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var faults sandboxtest.Faults
		opts := w.withSpares()
		opts.Provider = sandbox.NewProvider(sandboxtest.Faulty(w.place, &faults))
		opts.Fill, opts.Idle = nil, time.Hour
		p := w.open(t, opts)
		time.Sleep(10 * time.Minute)
		if n := w.spares(t); n != 2 {
			t.Fatalf("%d spares", n)
		}
		for _, op := range []sandboxtest.Op{sandboxtest.OpCreate, sandboxtest.OpAttach, sandboxtest.OpInfo} {
			faults.On(op, 0, sandboxtest.Fault{Err: errOnPurpose})
		}
		config := big()
		config.ID, config.Labels, config.Sandbox.IdleTimeout = "mine", map[string]string{"a": "b"}, 2*time.Hour
		s := create(t, p, "acme", config)
		_, release := use(t, s)
		release()
		faults.Clear()
		time.Sleep(time.Minute)
		if n := w.spares(t); n != 2 {
			t.Errorf("%d spares after a claim", n)
		}
		r := record(t, s)
		if r.ID != "mine" || r.Labels["a"] != "b" || r.Spare != "" || r.Config.IdleTimeout != 2*time.Hour || !r.ExpiresAt.After(time.Now().Add(23*time.Hour)) {
			t.Errorf("the record is %+v", r)
		}
		w.wantWhole(t)
		time.Sleep(3 * time.Hour)
		wantState(t, s, pool.StateTerminated, sandbox.EndIdle)
		w.diary.want(t, "warning idle", "ended idle")
		w.wantWhole(t)
	})
}

// A spare is filled for its owner; if it cannot be, it is not used.
func TestClaimFills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.bucket.texts = map[string]string{"acme/mine": "work"}
		p := w.open(t, w.withSpares())
		time.Sleep(time.Second)
		config := big()
		config.ID = "mine"
		s := create(t, p, "acme", config)
		sb, release := use(t, s)
		defer release()
		if got := w.place.read(sb.ID()); got != "work" || sb.ID() != "box-0" && sb.ID() != "box-1" {
			t.Errorf("%s has %q", sb.ID(), got)
		}
		if _, err := p.Create(t.Context(), "acme", config); !errors.Is(err, fs.ErrExist) {
			t.Errorf("an ID that is there: %v", err)
		}
		time.Sleep(time.Minute)
		if n := w.spares(t); n != 2 {
			t.Errorf("%d spares", n)
		}
		w.wantWhole(t)
	})
}

// Only what is asked for in the same words is a spare's.
func TestClaimFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.open(t, w.withSpares())
		time.Sleep(time.Second)
		secret := map[string]sandbox.Secret{"KEY": sandbox.NewSecret("k")}
		for _, c := range []*sandbox.Config{
			nil, {Memory: 1 << 29}, {Memory: 1 << 30, Tags: map[string]string{"a": "b"}}, {Memory: 1 << 30, Secrets: secret},
			{Memory: 1 << 30, Timeout: 100 * 24 * time.Hour},
		} {
			create(t, p, "acme", &pool.Config{Sandbox: c})
			if n := w.spares(t); n != 2 {
				t.Fatalf("%+v took a spare", c)
			}
		}
		if env := w.place.made()[5].Secrets; len(env) != 1 || env[0] != "KEY=k" {
			t.Errorf("the secrets are %d", len(env))
		}
		w.wantWhole(t)
	})
}

// Spares are replaced when they are old, made again when that failed, and end with those
// that want them.
func TestSparesAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var faults sandboxtest.Faults
		opts := w.withSpares()
		opts.Provider = sandbox.NewProvider(sandboxtest.Faulty(w.place, &faults))
		p := w.open(t, opts)
		time.Sleep(5*time.Hour + 30*time.Minute)
		if made := len(w.place.made()); w.spares(t) != 2 || made < 8 || made > 14 {
			t.Errorf("%d spares of %d", w.spares(t), made)
		}
		faults.On(sandboxtest.OpCreate, 0, sandboxtest.Fault{Err: driver.ErrInvalid})
		time.Sleep(2 * time.Hour)
		if n := w.spares(t); n != 0 {
			t.Errorf("%d spares when none can be made", n)
		}
		if n := faults.Calls(sandboxtest.OpCreate); n > 1000 {
			t.Errorf("%d attempts in two hours", n)
		}
		faults.Clear()
		time.Sleep(3 * time.Minute)
		if n := w.spares(t); n != 2 {
			t.Errorf("%d spares", n)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		w.open(t, nil) // which wants none
		time.Sleep(2 * time.Hour)
		if n := w.spares(t); n != 0 {
			t.Errorf("%d spares that nobody wants", n)
		}
		w.diary.want(t)
		w.wantWhole(t)
	})
}

// Many who claim at once, in two processes, get different ones.
func TestClaimAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		opts := w.withSpares()
		opts.Spares[0].N = 6
		pools := []*pool.Pool{w.open(t, opts), w.open(t, opts)}
		time.Sleep(time.Second)
		var wg sync.WaitGroup
		var mu sync.Mutex
		boxes := map[string]string{}
		for i := range 10 {
			wg.Go(func() {
				s, err := pools[i%2].Create(t.Context(), fmt.Sprint("owner-", i%3), big())
				if err != nil {
					t.Error(err)
					return
				}
				id := record(t, s).Box.ID
				mu.Lock()
				defer mu.Unlock()
				if boxes[id] != "" {
					t.Errorf("%s and %s have %s", boxes[id], s.ID(), id)
				}
				boxes[id] = s.ID()
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		if n := w.spares(t); n < 6 {
			t.Errorf("%d spares", n)
		}
		w.wantWhole(t)
	})
}

// The owner of a spare is nobody, so what depends on one is not in it.
func TestConfigureSpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		opts := w.withSpares()
		var mu sync.Mutex
		var owners []string
		opts.Configure = func(_ context.Context, r *pool.Record, c *sandbox.Config) error {
			mu.Lock()
			defer mu.Unlock()
			owners = append(owners, r.Owner)
			c.Env["MADE"] = "yes"
			return nil
		}
		p := w.open(t, opts)
		time.Sleep(time.Second)
		create(t, p, "acme", big())
		create(t, p, "acme", nil)
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if len(owners) != 4 {
			t.Errorf("asked for %q", owners)
		}
		if env := w.place.made()[0].Env; len(env) != 1 || env[0] != "MADE=yes" {
			t.Errorf("a spare has the environment %q", env)
		}
	})
}
