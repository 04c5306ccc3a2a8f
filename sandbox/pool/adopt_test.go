package pool_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// adopts is world's options with Adopt, for sandboxes with the tag "owner".
func (w *world) adopts() *pool.Options {
	opts := w.options()
	opts.Configure = func(_ context.Context, r *pool.Record, c *sandbox.Config) error {
		if r.Owner != "" {
			c.Tags["owner"], c.Tags["id"] = r.Owner, r.ID
		}
		return nil
	}
	opts.Adopt = func(_ context.Context, info *sandbox.Info) (string, *pool.Config, error) {
		return info.Tags["owner"], &pool.Config{ID: info.Tags["id"], Labels: map[string]string{"found": "yes"}}, nil
	}
	return opts
}

func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		opts := w.adopts()
		opts.Spares, opts.Idle = []pool.Spare{{N: 1}}, time.Hour
		first := w.open(t, opts)
		s := create(t, first, "acme", &pool.Config{ID: "one", Sandbox: &sandbox.Config{Timeout: 3 * time.Hour, Env: map[string]string{"A": "1"}}})
		sb, release := use(t, s)
		w.place.write(sb.ID(), "work")
		release()
		expires := record(t, s).ExpiresAt
		synctest.Wait() // for the spare
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}

		w.store = new(pool.MemoryStore)
		second := w.adopts()
		second.Store, second.Idle = w.store, time.Hour
		p := w.open(t, second)
		if err := p.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		found, err := p.Get(t.Context(), "acme", "one")
		if err != nil {
			t.Fatal(err)
		}
		r := record(t, found)
		if r.State != pool.StateRunning || r.Box.ID != sb.ID() || !r.ExpiresAt.Equal(expires) || r.Config.IdleTimeout != time.Hour || r.Labels["found"] != "yes" {
			t.Errorf("it was adopted as %+v", r)
		}
		time.Sleep(2 * time.Minute) // fake: the spare is nobody's
		synctest.Wait()
		w.wantWhole(t)
		if err := found.Terminate(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := w.bucket.text(record(t, found)); got != "work" {
			t.Errorf("saved %q", got)
		}
		w.wantWhole(t)
	})
}

// What a record says has ended is not adopted, and neither is a second one by an ID.
func TestAdoptsNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		opts := w.adopts()
		p := w.open(t, opts)
		s := create(t, p, "acme", &pool.Config{ID: "one"})
		for _, tags := range []map[string]string{
			{pool.TagPool: "pool", pool.TagBox: record(t, s).Key + "-7", "owner": "acme", "id": "one"}, // as one that was let go of
			{pool.TagPool: "pool", pool.TagBox: "sb-other-1", "owner": "acme", "id": "one"},
			{pool.TagPool: "pool", pool.TagBox: "nameless", "owner": "acme", "id": "two"},
		} {
			if _, err := w.place.Create(t.Context(), &driver.Config{Name: tags[pool.TagBox], Tags: tags, Timeout: 24 * time.Hour}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Minute) // fake
		synctest.Wait()
		w.wantWhole(t)
		if list, err := p.List(t.Context(), "acme"); err != nil || len(list) != 1 {
			t.Errorf("%d records, %v", len(list), err)
		}
		opts.Adopt = func(context.Context, *sandbox.Info) (string, *pool.Config, error) { return "", nil, errOnPurpose }
		other := w.open(t, opts)
		tags := map[string]string{pool.TagPool: "pool", pool.TagBox: "sb-late-1"}
		if _, err := w.place.Create(t.Context(), &driver.Config{Name: "sb-late-1", Tags: tags, Timeout: 24 * time.Hour}); err != nil {
			t.Fatal(err)
		}
		if err := other.Sweep(t.Context()); !errors.Is(err, errOnPurpose) {
			t.Errorf("Sweep: %v", err)
		}
		if w.place.named("sb-late-1") == nil {
			t.Error("what nobody can tell the owner of was ended")
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		if err := other.Sweep(t.Context()); !errors.Is(err, pool.ErrClosed) {
			t.Errorf("Sweep of a closed pool: %v", err)
		}
	})
}

func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.open(t, nil)
		s := create(t, p, "acme", nil)
		r, info, err := s.Check(t.Context())
		if err != nil || r.State != pool.StateRunning || info == nil || info.ID != r.Box.ID {
			t.Fatalf("%+v, %+v, %v", r, info, err)
		}
		w.place.kill(r.Box.ID, driver.EndOOM)
		ended := time.Now()
		time.Sleep(10 * time.Second) // fake
		for range 2 {
			r, info, err = s.Check(t.Context())
			if err != nil || info != nil || r.State != pool.StateTerminated || r.End != sandbox.EndOOM || !r.EndedAt.Equal(ended) {
				t.Errorf("%+v, %+v, %v", r, info, err)
			}
		}
		w.diary.want(t, "ended oom")
	})
}

func TestEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.open(t, nil)
		s := create(t, p, "acme", &pool.Config{Sandbox: &sandbox.Config{IdleTimeout: time.Hour}})
		if _, _, announced := record(t, s).Ending(); announced {
			t.Error("an end is announced at once")
		}
		time.Sleep(56 * time.Minute) // fake
		synctest.Wait()
		reason, at, announced := record(t, s).Ending()
		if !announced || reason != sandbox.EndIdle || time.Until(at) > 5*time.Minute {
			t.Errorf("%v at %v, %v", reason, at, announced)
		}
		_, release := use(t, s)
		release()
		if _, _, announced := record(t, s).Ending(); announced {
			t.Error("the end is announced still")
		}
	})
}

// barred is a place that lets nobody at its sandboxes.
type barred struct {
	*place
	why atomic.Pointer[error]
}

func (b *barred) Attach(ctx context.Context, id string) (driver.Sandbox, error) {
	if why := b.why.Load(); why != nil {
		return nil, *why
	}
	return b.place.Attach(ctx, id)
}

// One sandbox that cannot be ended is not in the way of the others, and what a list of the
// provider shows that has ended is not adopted.
func TestSweepGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		place, opts := &barred{place: w.place}, w.adopts()
		opts.Provider = sandbox.NewProvider(place)
		p := w.open(t, opts)
		made := func(name string, tags map[string]string) {
			tags[pool.TagPool], tags[pool.TagBox] = "pool", name
			if _, err := w.place.Create(t.Context(), &driver.Config{Name: name, Tags: tags, Timeout: 24 * time.Hour}); err != nil {
				t.Fatal(err)
			}
		}
		unavailable, ended := error(driver.ErrUnavailable), error(driver.ErrEnded)
		place.why.Store(&unavailable)
		made("sb-stubborn-1", map[string]string{})
		time.Sleep(2 * time.Minute) // fake
		if err := p.Sweep(t.Context()); err != nil || w.place.named("sb-stubborn-1") == nil {
			t.Errorf("Sweep: %v", err)
		}
		place.why.Store(&ended)
		made("sb-ghost-1", map[string]string{"owner": "acme", "id": "ghost"})
		if err := p.Sweep(t.Context()); err != nil {
			t.Errorf("Sweep: %v", err)
		}
		if list, err := p.List(t.Context(), "acme"); err != nil || len(list) != 0 {
			t.Errorf("%d were adopted, %v", len(list), err)
		}
	})
}
