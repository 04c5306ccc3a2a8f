package pool_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

// capped are options of a pool whose provider ends sandboxes after a day, and whose
// owners want them for a week.
func (w *world) capped() *pool.Options {
	opts := w.options()
	opts.Cap, opts.Lifetime = 24*time.Hour, 5*24*time.Hour
	opts.Interval, opts.Lease = time.Minute, 3*time.Minute
	return opts
}

func TestRollover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		opts := w.capped()
		opts.Configure = func(_ context.Context, r *pool.Record, c *sandbox.Config) error {
			c.Secrets["KEY"] = sandbox.NewSecret("of " + r.Owner)
			return nil
		}
		p := w.open(t, opts)
		s := create(t, p, "acme", &pool.Config{Sandbox: &sandbox.Config{
			Env: map[string]string{"A": "1"}, Secrets: map[string]sandbox.Secret{"GIVEN": sandbox.NewSecret("once")},
		}})
		first, release := use(t, s)
		w.place.write(first.ID(), "work")
		release()
		time.Sleep(23*time.Hour - 2*time.Minute)
		w.diary.want(t)
		time.Sleep(2*time.Minute + lag)
		w.diary.want(t, "rolled_over")
		w.wantWhole(t)
		second, release := use(t, s)
		defer release()
		if second.ID() == first.ID() || w.place.read(second.ID()) != "work" {
			t.Errorf("%s after %s has %q", second, first, w.place.read(second.ID()))
		}
		if made := w.place.made()[0].Secrets; !slices.Equal(made, []string{"GIVEN=once", "KEY=of acme"}) {
			t.Errorf("the first one has %d secrets", len(made))
		}
		c := w.place.made()[1]
		if !slices.Contains(c.Env, "A=1") || !slices.Equal(c.Secrets, []string{"KEY=of acme"}) {
			t.Errorf("the successor has the environment %q", c.Env)
		}
		if _, err := first.Info(t.Context()); err != nil {
			t.Error(err)
		}
		release()
		time.Sleep(2 * 24 * time.Hour)
		w.diary.want(t, "rolled_over", "rolled_over")
		time.Sleep(2*24*time.Hour + 2*time.Hour)
		wantState(t, s, pool.StateTerminated, sandbox.EndLifetime)
		if got := w.bucket.text(record(t, s)); got != "work" {
			t.Errorf("in the end %q is saved", got)
		}
		w.wantWhole(t)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		w.place.wantClosed(t)
	})
}

// A rollover waits for what is running, and not for ever.
func TestRolloverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := create(t, w.open(t, w.capped()), "acme", nil)
		time.Sleep(22 * time.Hour)
		first, release := use(t, s)
		time.Sleep(70 * time.Minute)
		w.diary.want(t, "cut lifetime")
		if len(w.place.running()) != 1 {
			t.Error("it did not wait")
		}
		release()
		time.Sleep(lag)
		w.diary.want(t, "rolled_over")
		time.Sleep(22 * time.Hour)
		second, release := use(t, s)
		time.Sleep(time.Hour)
		w.diary.want(t, "cut lifetime")
		w.place.write(second.ID(), "unfinished work")
		time.Sleep(30 * time.Minute)
		w.diary.want(t, "rolled_over")
		if ids := w.place.running(); len(ids) != 1 || ids[0] == second.ID() || ids[0] == first.ID() || w.place.read(ids[0]) != "unfinished work" {
			t.Errorf("%q run", ids)
		}
		release()
		w.wantWhole(t)
	})
}

// While a successor takes over, Use waits for it.
func TestUseWaitsForRollover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		opts := w.capped()
		gate := make(chan struct{})
		save := opts.Save
		opts.Save = func(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
			<-gate
			return save(ctx, r, sb)
		}
		s := create(t, w.open(t, opts), "acme", nil)
		old := record(t, s).Box.ID
		time.Sleep(23*time.Hour + time.Minute)
		got := make(chan string)
		go func() {
			sb, release, err := s.Use(t.Context())
			if err != nil {
				t.Error(err)
				close(got)
				return
			}
			release()
			got <- sb.ID()
		}()
		time.Sleep(time.Minute)
		select {
		case id := <-got:
			t.Errorf("it was given %s while that is being saved", id)
		default:
		}
		close(gate)
		if id := <-got; id == old {
			t.Errorf("it was given %s, which is replaced", id)
		}
	})
}

// What goes wrong leaves the sandbox as it is, for another attempt.
func TestRolloverFails(t *testing.T) {
	for name, test := range map[string]struct {
		op    sandboxtest.Op
		fault sandboxtest.Fault
		save  bool
	}{
		"not made":         {op: sandboxtest.OpCreate, fault: sandboxtest.Fault{Err: driver.ErrExhausted}},
		"made in secret":   {op: sandboxtest.OpCreate, fault: sandboxtest.Fault{Lose: driver.ErrUnavailable}},
		"made to no avail": {op: sandboxtest.OpCreate, fault: sandboxtest.Fault{Lose: errOnPurpose}},
		"not ended":        {op: sandboxtest.OpTerminate, fault: sandboxtest.Fault{Err: driver.ErrUnavailable}},
		"not saved":        {save: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				var faults sandboxtest.Faults
				opts := w.capped()
				opts.Provider = sandbox.NewProvider(sandboxtest.Faulty(w.place, &faults))
				s := create(t, w.open(t, opts), "acme", nil)
				sb, release := use(t, s)
				w.place.write(sb.ID(), "work")
				release()
				time.Sleep(22*time.Hour + 59*time.Minute)
				if test.save {
					w.bucket.fail(errOnPurpose)
				} else {
					faults.On(test.op, 0, test.fault)
				}
				time.Sleep(10 * time.Minute)
				wantState(t, s, pool.StateRunning, "")
				faults.Clear()
				w.bucket.fail(nil)
				time.Sleep(5 * time.Minute)
				w.wantWhole(t)
				if id := record(t, s).Box.ID; id == sb.ID() || w.place.read(id) != "work" {
					t.Errorf("%s has %q", id, w.place.read(id))
				}
				if events := said(w.diary.take()); events[len(events)-1] != "rolled_over" {
					t.Errorf("events %q", events)
				}
			})
		})
	}
}

// A sandbox that could not be saved by the time that its provider ends it is said to be
// lost: it does not go on with an older workspace.
func TestRolloverNeverSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := create(t, w.open(t, w.capped()), "acme", nil)
		w.bucket.fail(errOnPurpose)
		time.Sleep(24*time.Hour + 2*time.Minute)
		wantState(t, s, pool.StateTerminated, sandbox.EndLifetime)
		events := w.diary.take()
		if got := strings.Join(said(events), ", "); got != "unsaved, ended lifetime" || events[1].Saved {
			t.Errorf("events %s", got)
		}
		w.wantWhole(t)
	})
}

// Terminate in the middle of a rollover ends both.
func TestTerminateDuringRollover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var faults sandboxtest.Faults
		opts := w.capped()
		opts.Provider = sandbox.NewProvider(sandboxtest.Faulty(w.place, &faults))
		fill := opts.Fill
		filling := make(chan struct{}, 1)
		opts.Fill = func(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
			if r.Rollover == nil {
				return fill(ctx, r, sb)
			}
			filling <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		s := create(t, w.open(t, opts), "acme", nil)
		<-filling
		if err := s.Terminate(t.Context(), nil); err != nil {
			t.Error(err)
		}
		wantState(t, s, pool.StateTerminated, sandbox.EndCancelled)
		if _, _, err := s.Use(t.Context()); !errors.Is(err, sandbox.ErrEnded) {
			t.Errorf("Use: %v", err)
		}
		w.wantWhole(t)
	})
}
