package pool_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// hookedStore calls saved after each save.
type hookedStore struct {
	pool.Store
	saved func(*pool.Record)
}

func (s *hookedStore) Save(ctx context.Context, r *pool.Record) error {
	err := s.Store.Save(ctx, r)
	if err == nil && s.saved != nil {
		s.saved(r)
	}
	return err
}

// Who begins to use a sandbox at the moment at which it was about to be ended, or to be
// replaced, keeps it.
func TestUsedAtTheLastMoment(t *testing.T) {
	for name, wait := range map[string]time.Duration{"idle": 30 * time.Minute, "rollover": 23 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				opts := w.capped()
				if name == "idle" {
					opts.Idle, opts.Grace = wait, -1
				}
				var s *pool.Sandbox
				var armed, used atomic.Bool
				opts.Store = &hookedStore{Store: w.store, saved: func(r *pool.Record) {
					if r.Lease.Holder != "" && armed.CompareAndSwap(true, false) { // it is about to be
						use(t, s)
						used.Store(true)
					}
				}}
				s = create(t, w.open(t, opts), "acme", nil)
				box := record(t, s).Box.ID
				armed.Store(true)
				time.Sleep(wait + 10*time.Minute)
				if r := record(t, s); !used.Load() || r.State != pool.StateRunning || r.Box.ID != box || r.Rollover != nil {
					t.Errorf("it is %s in %s, and was used: %v", r.State, r.Box.ID, used.Load())
				}
			})
		})
	}
}
