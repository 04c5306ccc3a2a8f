package pool_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// Processes that share everything are killed at any time while owners create, use and
// terminate, and while sandboxes are idle, roll over and are swept. In the end all is
// whole, and what was written while a sandbox was in use is there.
func TestChaos(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) { chaos(t, rand.New(rand.NewPCG(seed, 1))) })
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}

func chaos(t *testing.T, dice *rand.Rand) {
	w := newWorld()
	options := func() *pool.Options {
		opts := w.options()
		opts.Cap, opts.Lifetime, opts.Idle, opts.Ahead = 2*time.Hour, 12*time.Hour, 90*time.Minute, 40*time.Minute
		opts.Spares, opts.Interval, opts.Sweep = []pool.Spare{{N: 1}}, 5*time.Minute, 5*time.Minute
		return opts
	}
	var wg sync.WaitGroup
	lives := make([]*rand.Rand, 3)
	for i := range lives {
		lives[i] = rand.New(rand.NewPCG(dice.Uint64(), uint64(i)))
	}
	end := time.Now().Add(2 * time.Hour)
	for i, own := range lives {
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				k := new(process)
				p := w.open(t, k.options(options()))
				k.arm(20+own.IntN(400), own.IntN(2) == 0)
				w.live(t, p, k, own, fmt.Sprintf("%d-%d", i, n), end)
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	opts := options()
	opts.Spares = nil
	w.open(t, opts)
	time.Sleep(70 * time.Minute) // longer than the oldest spare has
	w.wantWhole(t)
}

// live is what goes on in a process until it is killed.
func (w *world) live(t *testing.T, p *pool.Pool, k *process, dice *rand.Rand, name string, end time.Time) {
	var mine []*pool.Sandbox
	for n := 0; k.survived() && time.Now().Before(end); n++ {
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		switch at := dice.IntN(6); {
		case at < 2 || len(mine) == 0:
			s, err := p.Create(ctx, []string{"acme", "globex"}[dice.IntN(2)], &pool.Config{ID: fmt.Sprint(name, "-", n)})
			if err == nil {
				mine = append(mine, s)
			}
		case at < 5:
			w.work(t, ctx, mine[dice.IntN(len(mine))], dice)
		default:
			_ = mine[dice.IntN(len(mine))].Terminate(ctx, nil)
		}
		stop()
		time.Sleep(time.Duration(dice.IntN(600)) * time.Second)
	}
}

// work wants the sandbox to have what was last written to it.
func (w *world) work(t *testing.T, ctx context.Context, s *pool.Sandbox, dice *rand.Rand) {
	sb, release, err := s.Use(ctx)
	if err != nil {
		if errors.Is(err, sandbox.ErrNotFound) && !errors.Is(err, sandbox.ErrEnded) {
			t.Errorf("%s is not there: %v", s, err)
		}
		return
	}
	defer release()
	key := s.Owner() + "/" + s.ID()
	w.bucket.mu.Lock()
	want, known := w.written[key]
	w.bucket.mu.Unlock()
	if got := w.place.read(sb.ID()); known && got != want {
		t.Errorf("%s has %q, and %q was written", s, got, want)
	}
	text := fmt.Sprint(dice.Uint64())
	w.place.write(sb.ID(), text)
	w.bucket.mu.Lock()
	if w.written == nil {
		w.written = map[string]string{}
	}
	w.written[key] = text
	w.bucket.mu.Unlock()
	time.Sleep(time.Duration(dice.IntN(300)) * time.Second)
}
