package pooltest

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// counter has many count in one record at once, each with the revision that it read: no
// count is lost. Run it under the race detector.
func counter(t *testing.T, s pool.Store) {
	save(t, s, blank("acme", "sb-1"))
	const writers, rounds = 6, 8
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range rounds {
				if err := count(t, s); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	r, err := s.Record(t.Context(), "pool", "sb-1")
	if err != nil || r.Error != strconv.Itoa(writers*rounds) || r.Revision != writers*rounds+1 {
		t.Errorf("counted to %s in revision %d, %v", r.Error, r.Revision, err)
	}
}

func count(t *testing.T, s pool.Store) error {
	for {
		r, err := s.Record(t.Context(), "pool", "sb-1")
		if err != nil {
			return err
		}
		n, _ := strconv.Atoi(r.Error) // "" is 0
		r.Error = strconv.Itoa(n + 1)
		err = s.Save(t.Context(), r)
		if !errors.Is(err, pool.ErrConflict) {
			return err
		}
	}
}

// oneClaims has many claim the same spares at once: each goes to one of them.
func oneClaims(t *testing.T, s pool.Store) {
	const spares, claimers = 4, 6
	for i := range spares {
		r := blank("", fmt.Sprint("spare-", i))
		r.Spare = "kind"
		save(t, s, r)
	}
	var claimed atomic.Int32
	var wg sync.WaitGroup
	for i := range claimers {
		wg.Go(func() {
			list, err := s.Records(t.Context(), pool.Query{Pool: "pool", Spare: "kind", Live: true})
			if err != nil {
				t.Error(err)
			}
			for _, r := range list {
				r.Owner, r.Spare = fmt.Sprint("owner-", i), ""
				switch err := s.Save(t.Context(), r); {
				case err == nil:
					claimed.Add(1)
				case !errors.Is(err, pool.ErrConflict):
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := claimed.Load(); n != spares {
		t.Errorf("%d spares were claimed %d times", spares, n)
	}
}

// oneAdds has many add a record with one ID, or give theirs that ID, at once: one gets it.
func oneAdds(t *testing.T, s pool.Store) {
	for round := range 8 {
		id := fmt.Sprint("id-", round)
		var added atomic.Int32
		var wg sync.WaitGroup
		for i := range 6 {
			r := blank("acme", fmt.Sprintf("sb-%d-%d", round, i))
			if i%2 == 0 {
				save(t, s, r)
			}
			r.ID = id
			wg.Go(func() {
				switch err := s.Save(t.Context(), r); {
				case err == nil:
					added.Add(1)
				case !errors.Is(err, fs.ErrExist):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := added.Load(); n != 1 {
			t.Errorf("%d have the ID %s", n, id)
		}
	}
}
