package pool_test

import (
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// world is what pools of a test share.
type world struct {
	place  *place
	store  *pool.MemoryStore
	bucket *bucket
	diary  *diary

	written map[string]string // by owner and ID, what was last; guarded by the bucket's mutex
}

func newWorld() *world {
	return &world{place: new(place), store: new(pool.MemoryStore), bucket: new(bucket), diary: new(diary)}
}

// options are those of a pool with all of it.
func (w *world) options() *pool.Options {
	return &pool.Options{
		Provider: w.place.provider(), Store: w.store, Save: w.bucket.save(w.place), Fill: w.bucket.fill(w.place), Notify: w.diary.notify,
	}
}

// open opens a pool that is closed at the end of the test.
func (w *world) open(t *testing.T, opts *pool.Options) *pool.Pool {
	t.Helper()
	if opts == nil {
		opts = w.options()
	}
	logged := *opts
	logged.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	p, err := pool.Open(t.Context(), &logged)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func create(t *testing.T, p *pool.Pool, owner string, config *pool.Config) *pool.Sandbox {
	t.Helper()
	s, err := p.Create(t.Context(), owner, config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func use(t *testing.T, s *pool.Sandbox) (*sandbox.Sandbox, func()) {
	t.Helper()
	sb, release, err := s.Use(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sb, release
}

func record(t *testing.T, s *pool.Sandbox) *pool.Record {
	t.Helper()
	r, err := s.Record(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantState(t *testing.T, s *pool.Sandbox, state pool.State, end sandbox.End) {
	t.Helper()
	if r := record(t, s); r.State != state || r.End != end {
		t.Errorf("%s is %s %q (%s), want %s %q", s, r.State, r.End, r.Error, state, end)
	}
}

// wantWhole wants exactly one sandbox of the place for each record that is running, and
// no record of anything under way.
func (w *world) wantWhole(t *testing.T) {
	t.Helper()
	list, err := w.store.Records(t.Context(), pool.Query{Pool: "pool", Live: true})
	if err != nil {
		t.Fatal(err)
	}
	var owned []string
	for _, r := range list {
		if r.State != pool.StateRunning || r.Old != nil || r.Rollover != nil {
			t.Errorf("the record of %s is left %s: %+v", r.ID, r.State, r)
		}
		owned = append(owned, r.Box.ID)
	}
	running := w.place.running()
	slices.Sort(owned)
	slices.Sort(running)
	if !slices.Equal(owned, running) {
		t.Errorf("sandboxes %q run, records own %q", running, owned)
	}
}

var errOnPurpose = errors.New("on purpose")
