package pool_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.open(t, nil)
		s := create(t, p, "acme", &pool.Config{Sandbox: &sandbox.Config{Env: map[string]string{"A": "1"}, Tags: map[string]string{"mine": "yes"}}, Labels: map[string]string{"name": "first"}})
		wantState(t, s, pool.StateRunning, "")
		sb, release := use(t, s)
		w.place.write(sb.ID(), "work")
		release()
		if r := record(t, s); r.Labels["name"] != "first" || r.Owner != "acme" || len(r.Busy) != 0 {
			t.Errorf("the record is %+v", r)
		}
		c := w.place.made()[0]
		if c.Tags[pool.TagPool] != "pool" || c.Tags["mine"] != "yes" || !slices.Contains(c.Env, "A=1") {
			t.Errorf("the sandbox was made of %+v", c)
		}
		if err := s.Terminate(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, pool.StateTerminated, sandbox.EndCancelled)
		if got := w.bucket.text(record(t, s)); got != "work" {
			t.Errorf("saved %q", got)
		}
		if err := s.Terminate(t.Context(), nil); err != nil {
			t.Errorf("a second time: %v", err)
		}
		if _, _, err := s.Use(t.Context()); !errors.Is(err, sandbox.ErrEnded) {
			t.Errorf("Use: %v", err)
		}
		w.diary.want(t, "ended cancelled")
		w.wantWhole(t)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		w.place.wantClosed(t)
	})
}

func TestOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.open(t, nil)
		s := create(t, p, "acme", &pool.Config{ID: "one"})
		other := create(t, p, "globex", &pool.Config{ID: "one"})
		if _, err := p.Create(t.Context(), "acme", &pool.Config{ID: "one"}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("an ID that is there: %v", err)
		}
		if _, err := p.Get(t.Context(), "globex", create(t, p, "acme", nil).ID()); !errors.Is(err, sandbox.ErrNotFound) {
			t.Errorf("another's: %v", err)
		}
		if err := p.Terminate(t.Context(), "initech", "one", nil); !errors.Is(err, sandbox.ErrNotFound) {
			t.Errorf("another's: %v", err)
		}
		if err := p.Terminate(t.Context(), "globex", "one", &pool.TerminateOptions{Reason: "budget"}); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, pool.StateRunning, "")
		wantState(t, other, pool.StateTerminated, "budget")
		if list, err := p.List(t.Context(), "acme"); err != nil || len(list) != 2 {
			t.Errorf("%d of acme, %v", len(list), err)
		}
		got, err := p.Get(t.Context(), "acme", "one")
		if err != nil || got.ID() != "one" || got.Owner() != "acme" {
			t.Errorf("Get: %v, %v", got, err)
		}
		w.wantWhole(t)
	})
}

func TestRefused(t *testing.T) {
	w := newWorld()
	for name, opts := range map[string]*pool.Options{
		"nothing": nil, "no provider": {}, "a name": {Provider: w.place.provider(), Name: "a/b"},
		"a duration": {Provider: w.place.provider(), Lease: -1},
		"a spare":    {Provider: w.place.provider(), Spares: []pool.Spare{{Config: &sandbox.Config{Name: "mine"}}}},
	} {
		if _, err := pool.Open(t.Context(), opts); !errors.Is(err, sandbox.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	secrets := map[string]sandbox.Secret{"KEY": sandbox.NewSecret("k")}
	opts := w.options()
	opts.Cap = 24 * time.Hour
	opts.Admit = func(_ context.Context, r *pool.Record) error {
		if r.Owner == "many" {
			return errOnPurpose
		}
		return nil
	}
	p := w.open(t, opts)
	for name, c := range map[string]*sandbox.Config{
		"a name": {Name: "mine"}, "a tag": {Tags: map[string]string{pool.TagBox: "x"}}, "a value": {CPU: -1},
		"secrets that a successor would lack": {Secrets: secrets},
	} {
		if _, err := p.Create(t.Context(), "acme", &pool.Config{Sandbox: c}); !errors.Is(err, sandbox.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.Create(t.Context(), "", nil); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("no owner: %v", err)
	}
	if _, err := p.Create(t.Context(), "many", nil); !errors.Is(err, errOnPurpose) {
		t.Errorf("not admitted: %v", err)
	}
	if n := len(w.place.made()); n != 0 {
		t.Errorf("%d sandboxes were made", n)
	}
}

// What the provider refuses for the moment is tried again, and an answer that was lost is
// found, so that there is one sandbox in the end.
func TestTransientFailures(t *testing.T) {
	unavailable := sandboxtest.Fault{Err: driver.ErrUnavailable}
	for name, set := range map[string]func(*sandboxtest.Faults){
		"exhausted": func(f *sandboxtest.Faults) {
			f.On(sandboxtest.OpCreate, 1, sandboxtest.Fault{Err: driver.ErrExhausted})
		},
		"not there": func(f *sandboxtest.Faults) { f.On(sandboxtest.OpCreate, 1, unavailable) },
		"answer lost": func(f *sandboxtest.Faults) {
			f.On(sandboxtest.OpCreate, 1, sandboxtest.Fault{Lose: driver.ErrUnavailable})
		},
		"answer lost and not found at once": func(f *sandboxtest.Faults) {
			f.On(sandboxtest.OpCreate, 1, sandboxtest.Fault{Lose: driver.ErrUnavailable})
			f.On(sandboxtest.OpLookup, 1, sandboxtest.Fault{Err: driver.ErrNotFound})
		},
		"looking fails too": func(f *sandboxtest.Faults) {
			f.On(sandboxtest.OpCreate, 1, sandboxtest.Fault{Lose: driver.ErrUnavailable})
			f.On(sandboxtest.OpLookup, 1, unavailable)
			f.On(sandboxtest.OpAttach, 1, unavailable)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				var faults sandboxtest.Faults
				set(&faults)
				opts := w.options()
				opts.Provider = sandbox.NewProvider(sandboxtest.Faulty(w.place, &faults))
				p := w.open(t, opts)
				s := create(t, p, "acme", nil)
				w.wantWhole(t)
				faults.On(sandboxtest.OpTerminate, 1, unavailable)
				if err := s.Terminate(t.Context(), nil); err != nil {
					t.Error(err)
				}
				w.wantWhole(t)
			})
		})
	}
}

// A creation that fails leaves nothing, and one that nobody waits for any more neither.
func TestCreationFails(t *testing.T) {
	for name, test := range map[string]func(f *sandboxtest.Faults, opts *pool.Options) error{
		"invalid": func(f *sandboxtest.Faults, _ *pool.Options) error {
			f.On(sandboxtest.OpCreate, 0, sandboxtest.Fault{Err: driver.ErrInvalid})
			return driver.ErrInvalid
		},
		"exhausted": func(f *sandboxtest.Faults, _ *pool.Options) error {
			f.On(sandboxtest.OpCreate, 0, sandboxtest.Fault{Err: driver.ErrExhausted})
			return driver.ErrExhausted
		},
		"made, and never heard of": func(f *sandboxtest.Faults, _ *pool.Options) error {
			f.On(sandboxtest.OpCreate, 0, sandboxtest.Fault{Lose: driver.ErrUnavailable})
			f.On(sandboxtest.OpLookup, 0, sandboxtest.Fault{Err: driver.ErrUnavailable})
			return driver.ErrUnavailable
		},
		"not configured": func(_ *sandboxtest.Faults, opts *pool.Options) error {
			opts.Configure = func(context.Context, *pool.Record, *sandbox.Config) error { return errOnPurpose }
			return errOnPurpose
		},
		"not filled": func(_ *sandboxtest.Faults, opts *pool.Options) error {
			opts.Fill = func(context.Context, *pool.Record, *sandbox.Sandbox) error { return errOnPurpose }
			return errOnPurpose
		},
		"given up while it is made": func(f *sandboxtest.Faults, _ *pool.Options) error {
			f.On(sandboxtest.OpCreate, 1, sandboxtest.Fault{Gate: sandboxtest.NewGate()})
			return context.DeadlineExceeded
		},
		"given up while it is filled": func(_ *sandboxtest.Faults, opts *pool.Options) error {
			opts.Fill = func(ctx context.Context, _ *pool.Record, _ *sandbox.Sandbox) error {
				<-ctx.Done()
				return ctx.Err()
			}
			return context.DeadlineExceeded
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				var faults sandboxtest.Faults
				opts := w.options()
				opts.Provider = sandbox.NewProvider(sandboxtest.Faulty(w.place, &faults))
				want := test(&faults, opts)
				p := w.open(t, opts)
				ctx, stop := context.WithTimeout(t.Context(), time.Minute)
				defer stop()
				if _, err := p.Create(ctx, "acme", &pool.Config{ID: "one"}); !errors.Is(err, want) {
					t.Errorf("Create: %v, want %v", err, want)
				}
				faults.Clear()
				time.Sleep(10 * time.Minute)
				w.wantWhole(t)
				if _, err := p.Get(t.Context(), "acme", "one"); !errors.Is(err, sandbox.ErrNotFound) && name != "made, and never heard of" {
					t.Errorf("Get: %v", err)
				}
				if made := len(w.place.made()); made > 1 {
					t.Errorf("%d sandboxes were made", made)
				}
			})
		})
	}
}
