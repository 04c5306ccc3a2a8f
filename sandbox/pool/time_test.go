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
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

// lag is more than pool.Options.Interval in every test.
const lag = 70 * time.Second

func TestLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := create(t, w.open(t, nil), "acme", &pool.Config{Sandbox: &sandbox.Config{Timeout: time.Hour}})
		sb, release := use(t, s) // whatever runs in it
		defer release()
		w.place.write(sb.ID(), "work")
		time.Sleep(54 * time.Minute)
		w.diary.want(t)
		time.Sleep(time.Minute + lag)
		events := w.diary.take()
		if len(events) != 1 || events[0].Kind != pool.EventWarning || events[0].Reason != sandbox.EndLifetime || !events[0].At.Equal(record(t, s).ExpiresAt) {
			t.Fatalf("events %+v", events)
		}
		wantState(t, s, pool.StateRunning, "")
		time.Sleep(5 * time.Minute)
		wantState(t, s, pool.StateTerminated, sandbox.EndLifetime)
		events = w.diary.take()
		if len(events) != 1 || events[0].Kind != pool.EventEnded || !events[0].Saved || w.bucket.text(events[0].Record) != "work" {
			t.Errorf("events %+v", events)
		}
		w.wantWhole(t)
	})
}

// A sandbox that is in use is not idle, from however many places, and however long.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		opts := w.options()
		opts.Idle = 20 * time.Minute
		p := w.open(t, opts)
		s := create(t, p, "acme", nil)
		_, turn := use(t, s)
		if r := record(t, s); len(r.Busy) != 1 {
			t.Errorf("in use by %v", r.Busy)
		}
		_, question := use(t, s)
		time.Sleep(3 * time.Hour)
		turn()
		turn() // again does nothing
		if r := record(t, s); len(r.Busy) != 1 {
			t.Errorf("after one of two let go it is in use by %v", r.Busy)
		}
		time.Sleep(3 * time.Hour)
		wantState(t, s, pool.StateRunning, "")
		w.diary.want(t)
		question()
		time.Sleep(15*time.Minute + lag)
		w.diary.want(t, "warning idle")
		_, again := use(t, s) // withdraws it
		again()
		time.Sleep(15 * time.Minute)
		wantState(t, s, pool.StateRunning, "")
		time.Sleep(lag)
		w.diary.want(t, "warning idle")
		time.Sleep(5 * time.Minute)
		w.diary.want(t, "ended idle")
		wantState(t, s, pool.StateTerminated, sandbox.EndIdle)
		w.wantWhole(t)
	})
}

// One process does not end what another one uses, until that one is gone.
func TestIdleInTwoProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		opts := w.options()
		opts.Idle = 10 * time.Minute
		p, other := w.open(t, opts), w.open(t, opts)
		s := create(t, p, "acme", nil)
		use(t, s)
		time.Sleep(2 * time.Hour)
		got, err := other.Get(t.Context(), "acme", s.ID())
		if err != nil {
			t.Fatal(err)
		}
		wantState(t, got, pool.StateRunning, "")
		if err := p.Close(); err != nil { // without release, as when it is killed
			t.Fatal(err)
		}
		time.Sleep(11*time.Minute + lag)
		wantState(t, got, pool.StateTerminated, sandbox.EndIdle)
		w.diary.want(t, "warning idle", "ended idle")
	})
}

// An end that was due while no process ran is announced first.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.open(t, nil)
		s := create(t, p, "acme", &pool.Config{Sandbox: &sandbox.Config{Timeout: time.Hour}})
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90 * time.Minute)
		again := w.open(t, nil)
		got, err := again.Get(t.Context(), "acme", s.ID())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Minute)
		wantState(t, got, pool.StateRunning, "")
		time.Sleep(2 * time.Minute)
		wantState(t, got, pool.StateTerminated, sandbox.EndLifetime)
		w.diary.want(t, "warning lifetime", "ended lifetime")
	})
}

// A sandbox that cannot be saved is kept for SaveWithin, and no longer.
func TestUnsaved(t *testing.T) {
	// What the error is does not matter: it may be the bucket that is not found.
	failed := errors.Join(errOnPurpose, sandbox.ErrNotFound, sandbox.ErrEnded)
	for _, mends := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			s := create(t, w.open(t, nil), "acme", &pool.Config{Sandbox: &sandbox.Config{Timeout: time.Hour}})
			w.bucket.fail(failed)
			time.Sleep(time.Hour + 50*time.Minute)
			wantState(t, s, pool.StateStopping, sandbox.EndLifetime)
			if n := len(w.place.running()); n != 1 {
				t.Errorf("%d sandboxes run", n)
			}
			w.diary.want(t, "warning lifetime", "unsaved lifetime")
			if mends {
				w.bucket.fail(nil)
			}
			time.Sleep(12 * time.Minute)
			wantState(t, s, pool.StateTerminated, sandbox.EndLifetime)
			events := w.diary.take()
			if len(events) != 1 || events[0].Saved != mends || !mends && events[0].Err == nil {
				t.Errorf("events %+v", events)
			}
			w.wantWhole(t)
		})
	}
}

// Terminate goes on with what cannot be saved, unless that is given up.
func TestTerminateUnsaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := create(t, w.open(t, nil), "acme", nil)
		w.bucket.fail(errOnPurpose)
		var unsaved *pool.SaveError
		if err := s.Terminate(t.Context(), nil); !errors.As(err, &unsaved) || !errors.Is(err, errOnPurpose) || unsaved.ID != s.ID() {
			t.Errorf("Terminate: %v", err)
		}
		wantState(t, s, pool.StateRunning, "")
		_, release := use(t, s)
		release()
		if err := s.Terminate(t.Context(), &pool.TerminateOptions{Unsaved: true}); err != nil {
			t.Error(err)
		}
		wantState(t, s, pool.StateTerminated, sandbox.EndCancelled)
		w.wantWhole(t)
	})
}

// Saving that takes long is given up by who asks for that, in another process too.
func TestGiveSavingUp(t *testing.T) {
	for _, sameProcess := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			opts := w.options()
			saving := make(chan struct{})
			opts.Save = func(ctx context.Context, _ *pool.Record, _ *sandbox.Sandbox) error {
				close(saving)
				<-ctx.Done()
				return ctx.Err()
			}
			p := w.open(t, opts)
			s := create(t, p, "acme", nil)
			first := make(chan error)
			go func() { first <- s.Terminate(t.Context(), nil) }()
			<-saving
			other := p
			if !sameProcess {
				other = w.open(t, nil)
			}
			if err := other.Terminate(t.Context(), "acme", s.ID(), &pool.TerminateOptions{Unsaved: true}); err != nil {
				t.Error(err)
			}
			if err := <-first; err != nil {
				t.Errorf("the first one: %v", err)
			}
			wantState(t, s, pool.StateTerminated, sandbox.EndCancelled)
			w.diary.want(t, "ended cancelled")
		})
	}
}

// A sandbox that ends by itself is recorded as what it was, by who looks first.
func TestLost(t *testing.T) {
	for _, looks := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			p := w.open(t, nil)
			s := create(t, p, "acme", nil)
			if err := p.Close(); err != nil { // the next one has no handle
				t.Fatal(err)
			}
			w.place.kill(record(t, s).Box.ID, driver.EndOOM)
			again := w.open(t, nil)
			got, err := again.Get(t.Context(), "acme", s.ID())
			if err != nil {
				t.Fatal(err)
			}
			if looks {
				if _, _, err := got.Use(t.Context()); !errors.Is(err, sandbox.ErrEnded) {
					t.Errorf("Use: %v", err)
				}
			}
			time.Sleep(2 * time.Minute)
			wantState(t, got, pool.StateTerminated, sandbox.EndOOM)
			w.diary.want(t, "ended oom")
		})
	}
}

// What no record owns is ended, unless it is another pool's, or somebody else's.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		mine, stranger := w.open(t, nil), w.open(t, &pool.Options{Provider: w.place.provider(), Name: "other"})
		kept := []*pool.Sandbox{create(t, mine, "acme", nil), create(t, stranger, "acme", nil)}
		time.Sleep(30 * time.Second)
		for _, tags := range []map[string]string{{pool.TagPool: "pool", pool.TagBox: "sb-gone-1"}, {pool.TagPool: "pool"}, {}} {
			if _, err := w.place.provider().Create(t.Context(), &sandbox.Config{Tags: tags, Timeout: time.Hour}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(50 * time.Second)
		if n := len(w.place.running()); n != 5 {
			t.Errorf("%d sandboxes run before they are a minute old", n)
		}
		time.Sleep(3 * time.Minute)
		if n := len(w.place.running()); n != 3 {
			t.Errorf("%d sandboxes run", n)
		}
		for _, s := range kept {
			wantState(t, s, pool.StateRunning, "")
		}
	})
}

// Records go when they were kept long enough.
func TestPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.open(t, nil)
		s := create(t, p, "acme", nil)
		if err := s.Terminate(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(23 * time.Hour)
		wantState(t, s, pool.StateTerminated, sandbox.EndCancelled)
		time.Sleep(2 * time.Hour)
		if _, err := s.Record(t.Context()); !errors.Is(err, sandbox.ErrNotFound) {
			t.Errorf("Record: %v", err)
		}
	})
}

// Shutdown waits for what is under way, as long as it may.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		opts := w.options()
		finish := make(chan struct{})
		opts.Save = func(ctx context.Context, _ *pool.Record, _ *sandbox.Sandbox) error {
			select {
			case <-finish:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		apart := *opts // so that neither does the other's work
		apart.Name = "other"
		p, hurried := w.open(t, opts), w.open(t, &apart)
		s, other := create(t, p, "acme", nil), create(t, hurried, "globex", nil)
		ended := make(chan error, 2)
		for _, s := range []*pool.Sandbox{s, other} {
			go func() { ended <- s.Terminate(t.Context(), nil) }()
		}
		synctest.Wait()
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if err := hurried.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a Shutdown in a hurry: %v", err)
		}
		if err := <-ended; !errors.Is(err, pool.ErrClosed) {
			t.Errorf("Terminate of a closed pool: %v", err)
		}
		shut := make(chan error)
		go func() { shut <- p.Shutdown(t.Context()) }()
		synctest.Wait()
		if _, err := p.Create(t.Context(), "acme", nil); !errors.Is(err, pool.ErrClosed) {
			t.Errorf("Create: %v", err)
		}
		close(finish)
		if err := errors.Join(<-shut, <-ended); err != nil {
			t.Error(err)
		}
		wantState(t, s, pool.StateTerminated, sandbox.EndCancelled)
		apart.Save = nil
		w.open(t, &apart) // finishes what the hurried one could not
		time.Sleep(time.Minute)
		wantState(t, other, pool.StateTerminated, sandbox.EndCancelled)
		w.wantWhole(t)
		w.place.wantClosed(t)
	})
}

// Two processes of which both would end a sandbox save it once, and end it once.
func TestOneEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var faults sandboxtest.Faults
		opts := w.options()
		opts.Provider = sandbox.NewProvider(sandboxtest.Faulty(w.place, &faults))
		save := opts.Save
		var begun atomic.Int32
		opts.Save = func(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
			begun.Add(1)
			select {
			case <-time.After(2 * time.Minute): // longer than a lease
				return save(ctx, r, sb)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for range 3 {
			w.open(t, opts)
		}
		s := create(t, w.open(t, opts), "acme", &pool.Config{Sandbox: &sandbox.Config{Timeout: time.Hour}})
		time.Sleep(time.Hour + 5*time.Minute)
		wantState(t, s, pool.StateTerminated, sandbox.EndLifetime)
		if begun.Load() != 1 || w.bucket.saves != 1 || faults.Calls(sandboxtest.OpTerminate) > 2 { // one of the provider, one of the sandbox
			t.Errorf("saved %d times, ended %d times", w.bucket.saves, faults.Calls(sandboxtest.OpTerminate))
		}
		w.diary.want(t, "warning lifetime", "ended lifetime")
	})
}
