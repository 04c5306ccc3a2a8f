package pool_test

import (
	"context"
	"errors"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// process is what a pool does to the world before it is killed: so many calls. What comes
// later does not happen, and of the last one it never hears.
type process struct {
	mu    sync.Mutex
	armed bool
	left  int
	after bool // the last call happens
}

var errKilled = errors.New("the process was killed")

// act does one call.
func (k *process) act(fn func() error) error {
	k.mu.Lock()
	if !k.armed {
		k.mu.Unlock()
		return fn()
	}
	k.left--
	left, after := k.left, k.after
	k.mu.Unlock()
	switch {
	case left > 0:
		return fn()
	case left == 0 && after:
		_ = fn() // nobody hears
	}
	return errKilled
}

func (k *process) arm(left int, after bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.armed, k.left, k.after = true, left, after
}

// mend lets all happen again.
func (k *process) mend() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.armed = false
}

// survived reports whether it had calls left.
func (k *process) survived() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.left > 0
}

// options has all that a pool does go through the process.
func (k *process) options(o *pool.Options) *pool.Options {
	opts := *o
	opts.Provider = sandbox.NewProvider(&mortalPlace{Provider: o.Provider.Driver(), k: k})
	opts.Store = &mortalStore{Store: o.Store, k: k}
	opts.Save, opts.Fill = k.hook(o.Save), k.hook(o.Fill)
	opts.Notify = func(ctx context.Context, e pool.Event) {
		_ = k.act(func() error { o.Notify(ctx, e); return nil })
	}
	return &opts
}

func (k *process) hook(hook func(context.Context, *pool.Record, *sandbox.Sandbox) error) func(context.Context, *pool.Record, *sandbox.Sandbox) error {
	return func(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
		return k.act(func() error { return hook(ctx, r, sb) })
	}
}

type mortalStore struct {
	pool.Store
	k *process
}

func (s *mortalStore) Save(ctx context.Context, r *pool.Record) error {
	return s.k.act(func() error { return s.Store.Save(ctx, r) })
}

func (s *mortalStore) Record(ctx context.Context, name, key string) (r *pool.Record, err error) {
	err = s.k.act(func() error { r, err = s.Store.Record(ctx, name, key); return err })
	return r, err
}

func (s *mortalStore) Records(ctx context.Context, q pool.Query) (list []*pool.Record, err error) {
	err = s.k.act(func() error { list, err = s.Store.Records(ctx, q); return err })
	return list, err
}

func (s *mortalStore) Delete(ctx context.Context, r *pool.Record) error {
	return s.k.act(func() error { return s.Store.Delete(ctx, r) })
}

type mortalPlace struct {
	driver.Provider
	k *process
}

func (p *mortalPlace) wrap(sb driver.Sandbox, err error) (driver.Sandbox, error) {
	if err != nil {
		return nil, err
	}
	return &mortalSandbox{Sandbox: sb, k: p.k}, nil
}

func (p *mortalPlace) Create(ctx context.Context, cfg *driver.Config) (sb driver.Sandbox, err error) {
	err = p.k.act(func() error { sb, err = p.Provider.Create(ctx, cfg); return err })
	return p.wrap(sb, err)
}

func (p *mortalPlace) Attach(ctx context.Context, id string) (sb driver.Sandbox, err error) {
	err = p.k.act(func() error { sb, err = p.Provider.Attach(ctx, id); return err })
	return p.wrap(sb, err)
}

func (p *mortalPlace) Lookup(ctx context.Context, name string) (id string, err error) {
	err = p.k.act(func() error { id, err = p.Provider.Lookup(ctx, name); return err })
	return id, err
}

func (p *mortalPlace) List(ctx context.Context, filter *driver.Filter) iter.Seq2[*driver.Info, error] {
	return func(yield func(*driver.Info, error) bool) {
		if err := p.k.act(func() error { return nil }); err != nil {
			yield(nil, err)
			return
		}
		p.Provider.List(ctx, filter)(yield)
	}
}

type mortalSandbox struct {
	driver.Sandbox
	k *process
}

func (s *mortalSandbox) Terminate(ctx context.Context) error {
	return s.k.act(func() error { return s.Sandbox.Terminate(ctx) })
}

// killedAt has a process killed at each of its calls in turn, before the call and after
// it, until there are none left; live is what it does until then.
func killedAt(t *testing.T, options func(*world) *pool.Options, live func(t *testing.T, w *world, p *pool.Pool, k *process, arm func()), check func(t *testing.T, w *world, next *pool.Pool)) {
	calls := 0
	for _, after := range []bool{false, true} {
		for n, survived := 1, false; !survived; n++ {
			synctest.Test(t, func(t *testing.T) {
				w, k := newWorld(), new(process)
				p := w.open(t, k.options(options(w)))
				live(t, w, p, k, func() { k.arm(n, after) })
				survived = k.survived()
				k.arm(0, false) // if it has not come to its end
				if err := p.Close(); err != nil {
					t.Error(err)
				}
				next := w.open(t, options(w))
				time.Sleep(15 * time.Minute)
				w.wantWhole(t)
				check(t, w, next)
			})
			if t.Failed() {
				t.Fatalf("killed at call %d, after it: %v", n, after)
			}
			calls = n
		}
	}
	if calls < 5 {
		t.Errorf("only %d calls were made", calls)
	}
}

func TestKilledWhileCreating(t *testing.T) {
	made := 0
	killedAt(t, (*world).options, func(t *testing.T, _ *world, p *pool.Pool, _ *process, arm func()) {
		synctest.Wait() // for what Open begins
		arm()
		_, _ = p.Create(t.Context(), "acme", &pool.Config{ID: "one"})
	}, func(t *testing.T, w *world, next *pool.Pool) {
		s, err := next.Get(t.Context(), "acme", "one")
		if errors.Is(err, sandbox.ErrNotFound) {
			return // it was not even intended
		}
		if err != nil {
			t.Fatal(err)
		}
		if r := record(t, s); r.State == pool.StateRunning {
			made++
			use(t, s)
		}
	})
	if made < 5 {
		t.Errorf("taken over %d times only", made)
	}
}

func TestKilledWhileTerminating(t *testing.T) {
	killedAt(t, (*world).options, func(t *testing.T, w *world, p *pool.Pool, _ *process, arm func()) {
		s := create(t, p, "acme", &pool.Config{ID: "one"})
		w.place.write(record(t, s).Box.ID, "work")
		synctest.Wait()
		arm()
		_ = s.Terminate(t.Context(), nil)
	}, func(t *testing.T, w *world, next *pool.Pool) {
		s, err := next.Get(t.Context(), "acme", "one")
		if err != nil {
			t.Fatal(err)
		}
		r := record(t, s)
		if r.State == pool.StateTerminated && w.bucket.text(r) != "work" {
			t.Errorf("%q was saved", w.bucket.text(r))
		}
		if ended := said(w.diary.take()); r.State == pool.StateTerminated && len(ended) == 0 {
			t.Error("nobody was told")
		}
	})
}

func TestKilledWhileRollingOver(t *testing.T) {
	capped := func(w *world) *pool.Options {
		opts := w.capped()
		opts.Cap = 3 * time.Hour
		return opts
	}
	killedAt(t, capped, func(t *testing.T, w *world, p *pool.Pool, _ *process, arm func()) {
		s := create(t, p, "acme", &pool.Config{ID: "one"})
		w.place.write(record(t, s).Box.ID, "work")
		time.Sleep(2*time.Hour - time.Second)
		arm()
		time.Sleep(2 * time.Second)
	}, func(t *testing.T, w *world, next *pool.Pool) {
		s, err := next.Get(t.Context(), "acme", "one")
		if err != nil {
			t.Fatal(err)
		}
		r := record(t, s)
		if r.State != pool.StateRunning || r.Box.ID == "box-0" || w.place.read(r.Box.ID) != "work" {
			t.Errorf("%s is %s with %q", r.Box.ID, r.State, w.place.read(r.Box.ID))
		}
		if events := said(w.diary.take()); len(events) == 0 {
			t.Error("nobody was told")
		}
		use(t, s)
	})
}

func TestKilledWhileClaiming(t *testing.T) {
	spares := func(w *world) *pool.Options {
		opts := w.options()
		opts.Spares = []pool.Spare{{N: 2}}
		return opts
	}
	killedAt(t, spares, func(t *testing.T, w *world, p *pool.Pool, _ *process, arm func()) {
		time.Sleep(time.Second)
		if len(w.place.running()) != 2 {
			t.Fatal("there are no spares")
		}
		arm()
		_, _ = p.Create(t.Context(), "acme", &pool.Config{ID: "one"})
		time.Sleep(time.Second)
	}, func(t *testing.T, w *world, next *pool.Pool) {
		list, err := w.store.Records(t.Context(), pool.Query{Pool: "pool", Live: true})
		spares := 0
		for _, r := range list {
			if r.Spare != "" {
				spares++
			}
		}
		if err != nil || spares != 2 || len(list) > 3 {
			t.Errorf("%d spares of %d, %v", spares, len(list), err)
		}
		s, err := next.Get(t.Context(), "acme", "one")
		if err == nil && record(t, s).State == pool.StateRunning {
			use(t, s)
		}
	})
}

// Nothing answers from some call on, and later all does. Create leaves nothing when it
// failed.
func TestOutageWhileCreating(t *testing.T) {
	for _, spares := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			for n, survived := 1, false; !survived; n++ {
				synctest.Test(t, func(t *testing.T) {
					survived = outage(t, n, after, spares)
				})
				if t.Failed() {
					t.Fatalf("without an answer to call %d, which happens: %v; with spares: %v", n, after, spares)
				}
			}
		}
	}
}

func outage(t *testing.T, n int, after, spares bool) (survived bool) {
	w, k := newWorld(), new(process)
	opts := k.options(w.options())
	if spares {
		opts.Spares = []pool.Spare{{N: 1}}
	}
	p := w.open(t, opts)
	time.Sleep(time.Second)
	k.arm(n, after)
	ctx, stop := context.WithTimeout(t.Context(), time.Hour)
	defer stop()
	_, err := p.Create(ctx, "acme", nil)
	survived = k.survived()
	time.Sleep(time.Minute)
	k.mend()
	time.Sleep(30 * time.Minute)
	list, listErr := p.List(t.Context(), "acme")
	if listErr != nil {
		t.Fatal(listErr)
	}
	running := 0
	for _, r := range list {
		if r.State == pool.StateRunning {
			running++
		}
	}
	if err == nil && running != 1 || err != nil && running != 0 {
		t.Errorf("Create: %v, and %d run", err, running)
	}
	w.wantWhole(t)
	return survived
}
