package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// scheduler lets the calls of several processes happen one at a time, in an order
// and with pauses that a seed says. It runs in a synctest bubble, so that a month
// takes no time.
type scheduler struct {
	rng    *rand.Rand
	bucket storage.Bucket
	skew   time.Duration // of the bucket's clock
	mu     sync.Mutex
	queue  []*turn
	strays int
	dead   map[int]bool
	closed bool        // all are dead
	rank   map[int]int // of processes; the highest goes first, but for those that are equal
}

// turn is a call, or its answer, that waits.
type turn struct {
	process int
	op      storagetest.Op
	release chan verdict
}

type verdict int

const (
	proceed verdict = iota
	fail
	late // a put that is carried out later, though it was given up
)

func (s *scheduler) wait(process int, op storagetest.Op) verdict {
	s.mu.Lock()
	if s.closed || s.dead[process] {
		s.mu.Unlock()
		return fail
	}
	t := &turn{process, op, make(chan verdict, 1)}
	s.queue = append(s.queue, t)
	s.mu.Unlock()
	return <-t.release
}

// step lets one thing happen. It reports false when nothing waits.
func (s *scheduler) step() bool {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return false
	}
	top := slices.MaxFunc(s.queue, func(a, b *turn) int { return s.rank[a.process] - s.rank[b.process] })
	var ready []int
	for i, t := range s.queue {
		if s.rank[t.process] == s.rank[top.process] {
			ready = append(ready, i)
		}
	}
	i := ready[s.rng.IntN(len(ready))]
	t := s.queue[i]
	s.queue = slices.Delete(s.queue, i, i+1)
	t.release <- s.fate(t)
	return true
}

// fate is now and then a death or a lost put.
func (s *scheduler) fate(t *turn) verdict {
	switch n := s.rng.IntN(400); {
	case t.process >= strayProcess:
	case n == 0:
		s.dead[t.process] = true
		return fail
	case n < 4:
		return fail
	case n < 10 && t.op == storagetest.OpPut:
		return late
	}
	return proceed
}

// drain ends what still waits.
func (s *scheduler) drain() {
	s.mu.Lock()
	s.closed = true
	for _, t := range s.queue {
		t.release <- fail
	}
	s.queue = nil
	s.mu.Unlock()
}

// strayProcess and above are puts whose processes gave them up.
const strayProcess = 1000

// view is the bucket as one process sees it.
type view struct {
	*scheduler
	process int
}

func (v *view) do(op storagetest.Op, act func() error) error {
	if v.wait(v.process, op) != proceed {
		return storagetest.ErrInjected
	}
	err := act()
	if v.wait(v.process, "") != proceed {
		return storagetest.ErrInjected
	}
	return err
}

func (v *view) Get(ctx context.Context, key string, offset, length int64) (r io.ReadCloser, err error) {
	err = v.do(storagetest.OpGet, func() (err error) {
		r, err = v.bucket.Get(ctx, key, offset, length)
		return err
	})
	return r, err
}

func (v *view) Put(ctx context.Context, key string, r io.Reader, opts *storage.PutOptions) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	switch v.wait(v.process, storagetest.OpPut) {
	case fail:
		return storagetest.ErrInjected
	case late:
		go func() {
			v.mu.Lock()
			v.strays++
			stray := strayProcess + v.strays
			v.rank[stray] = v.rank[v.process] - v.strays%3
			v.mu.Unlock()
			if v.wait(stray, storagetest.OpPut) == proceed {
				_ = v.bucket.Put(context.Background(), key, bytes.NewReader(data), opts)
			}
		}()
		return errors.Join(storagetest.ErrInjected, storagetest.ErrTimeout)
	}
	err = v.bucket.Put(ctx, key, bytes.NewReader(data), opts)
	if v.wait(v.process, "") != proceed {
		return storagetest.ErrInjected
	}
	return err
}

func (v *view) Stat(ctx context.Context, key string) (o storage.Object, err error) {
	err = v.do(storagetest.OpStat, func() (err error) {
		o, err = v.bucket.Stat(ctx, key)
		o.Modified = o.Modified.Add(v.skew)
		return err
	})
	return o, err
}

func (v *view) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		var all []storage.Object
		err := v.do(storagetest.OpList, func() error {
			for o, err := range v.bucket.List(ctx, prefix) {
				if err != nil {
					return err
				}
				o.Modified = o.Modified.Add(v.skew)
				all = append(all, o)
			}
			return nil
		})
		if err != nil {
			yield(storage.Object{}, err)
			return
		}
		for _, o := range all {
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (v *view) Delete(ctx context.Context, key string) error {
	return v.do(storagetest.OpDelete, func() error { return v.bucket.Delete(ctx, key) })
}

// world is what several processes do to one volume.
type world struct {
	*testing.T
	*scheduler
	memory storagetest.Memory
	seed   uint64
	wg     sync.WaitGroup

	mu        sync.Mutex
	contents  map[string]map[string]string // by note
	made      map[string]bool              // notes of versions whose Sync succeeded
	forgotten map[string]bool              // notes that a Prune was not told to keep
	edits     int
	done      []string
}

// shelf is a bucket of plain objects, which Import reads as a directory. Sizes are
// never used twice, as a size and a time tell whether a file changed.
func (w *world) edit(shelf map[string]string, rng *rand.Rand, large bool) {
	w.mu.Lock()
	w.edits++
	n := w.edits
	w.mu.Unlock()
	size := 1000 + n
	if large {
		size += 5 << 20 // so that older versions are looked at for contents
	}
	shelf[fmt.Sprint("dir/file", rng.IntN(3))] = strings.Repeat(fmt.Sprintf("%x.", rng.IntN(4)), size)[:size]
	shelf["same"] = "as ever"
	if rng.IntN(3) == 0 {
		shelf[fmt.Sprint("new", n)] = fmt.Sprint("new", n)
	}
}

func (w *world) put(shelf map[string]string) storage.Bucket {
	b := new(storagetest.Memory)
	for key, data := range shelf {
		if err := b.Put(context.Background(), key, strings.NewReader(data), nil); err != nil {
			w.Error(err)
		}
	}
	return b
}

func (w *world) writer(process int, seed uint64, times int, large bool) {
	rng := rand.New(rand.NewPCG(seed, uint64(process)))
	shelf := map[string]string{}
	for i := range times {
		w.edit(shelf, rng, large)
		note := fmt.Sprintf("writer %d, version %d", process, i)
		w.mu.Lock()
		w.contents[note] = maps.Clone(shelf)
		w.mu.Unlock()
		opts := &storage.Options{Note: note, KeepConflict: rng.IntN(4) == 0}
		_, err := storage.NewVolume(&view{w.scheduler, process}, "acme", opts).Import(w.Context(), w.put(shelf), "")
		w.mu.Lock()
		if err == nil {
			w.made[note] = true
		}
		w.done = append(w.done, fmt.Sprintf("%s: %v", note, err))
		w.mu.Unlock()
		switch {
		case err == nil, errors.Is(err, storage.ErrConflict), errors.Is(err, storagetest.ErrInjected), errors.Is(err, context.DeadlineExceeded):
		case errors.Is(err, storage.ErrCorrupt) && errors.Is(err, fs.ErrNotExist): // asleep for longer than the grace
		default:
			w.Errorf("seed %d: %s: %v", w.seed, note, err)
		}
	}
}

// grace is that of all prunes of a world.
const grace = time.Hour

func (w *world) pruner(process int, seed uint64, times int) {
	rng := rand.New(rand.NewPCG(seed, uint64(process)))
	for range times {
		keep := storage.Keep{Last: 1 + rng.IntN(2), Grace: grace, Also: func(v *storage.Version) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.forgotten[v.Note] = true
			return false
		}}
		_, err := storage.NewVolume(&view{w.scheduler, process}, "acme", nil).Prune(w.Context(), keep)
		w.mu.Lock()
		w.done = append(w.done, fmt.Sprintf("prune: %v", err))
		w.mu.Unlock()
		if err != nil && !errors.Is(err, storagetest.ErrInjected) && !errors.Is(err, context.DeadlineExceeded) {
			w.Errorf("seed %d: prune: %v", w.seed, err)
		}
	}
}

// check looks at the bucket as it stands: everything that is listed is what was
// synced, there is one line of versions, and none that was made is missing but for
// those that a Prune was not told to keep.
func (w *world) check() {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	v := storage.NewVolume(&w.memory, "acme", nil)
	listed, children := map[string]bool{}, map[string]string{}
	for version, err := range v.Versions(context.Background()) {
		if err != nil {
			w.Fatalf("seed %d: %v\n%s", w.seed, err, strings.Join(w.done, "\n"))
		}
		listed[version.Note] = true
		if got := w.read(v, version.ID); !maps.Equal(got, w.contents[version.Note]) {
			w.Fatalf("seed %d: %s (%s) has other contents", w.seed, version.ID, version.Note)
		}
		if other := children[version.Parent]; !version.Conflict && other != "" {
			w.Fatalf("seed %d: %s and %s both follow %q", w.seed, version.ID, other, version.Parent)
		} else if !version.Conflict {
			children[version.Parent] = version.ID
		}
	}
	for note := range w.made {
		if !listed[note] && !w.forgotten[note] {
			w.Fatalf("seed %d: %s was made, and is not listed\n%s", w.seed, note, strings.Join(w.done, "\n"))
		}
	}
}

func (w *world) read(v *storage.Volume, id string) map[string]string {
	w.Helper()
	fsys, err := v.FS(context.Background(), id)
	if err != nil {
		w.Fatalf("seed %d: %v\n%s", w.seed, err, strings.Join(w.done, "\n"))
	}
	got := map[string]string{}
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(fsys, name)
		got[name] = string(data)
		return err
	})
	if err != nil {
		w.Fatalf("seed %d: %s: %v\n%s", w.seed, id, err, strings.Join(w.done, "\n"))
	}
	return got
}

// run does a seed's work to its end.
func (w *world) run() {
	rng := w.rng
	defer w.wg.Wait()
	defer w.drain()
	processes := 0
	start := func(f func(process int)) {
		process := processes
		processes++
		w.wg.Go(func() { f(process) })
	}
	large := w.seed%50 == 7
	for range 2 + rng.IntN(2) {
		seed := rng.Uint64()
		start(func(process int) { w.writer(process, seed, 3, large) })
	}
	for range rng.IntN(3) {
		seed := rng.Uint64()
		start(func(process int) { w.pruner(process, seed, 3) })
	}
	ranked := w.seed%3 != 0 // else everything is picked alike
	for p := range processes {
		if ranked {
			w.rank[p] = rng.IntN(2)
		}
	}
	for n := 0; w.step(); n++ {
		if rng.IntN(12) == 0 {
			w.change(processes, ranked)
		}
		if n%30 == 0 {
			w.check()
		}
	}
	w.wg.Wait()
	w.check()
	w.end()
}

// change lets time pass, and holds a process back, or lets it go on.
func (w *world) change(processes int, ranked bool) {
	if ranked {
		w.scheduler.mu.Lock()
		w.rank[w.rng.IntN(processes)] = w.rng.IntN(4) - 2
		w.scheduler.mu.Unlock()
	}
	pauses := []time.Duration{0, 0, time.Minute, grace / 2, grace, 30 * 24 * time.Hour}
	time.Sleep(pauses[w.rng.IntN(len(pauses))])
}

// end looks at what later work finds: a Sync works, and two Prunes leave nothing
// that no version needs.
func (w *world) end() {
	v := storage.NewVolume(&w.memory, "acme", &storage.Options{Note: "the last"})
	w.contents["the last"] = map[string]string{"x": "y"}
	if _, err := v.Import(w.Context(), w.put(w.contents["the last"]), ""); err != nil {
		w.Fatalf("seed %d: the last sync: %v", w.seed, err)
	}
	keep := storage.Keep{Last: 2, Grace: grace, Also: func(v *storage.Version) bool { w.forgotten[v.Note] = true; return false }}
	for range 3 {
		if _, err := v.Prune(w.Context(), keep); err != nil {
			w.Fatalf("seed %d: %v", w.seed, err)
		}
		time.Sleep(60 * 24 * time.Hour)
	}
	w.check()
	found, err := v.Verify(w.Context())
	if err != nil || len(found.Problems) > 0 || found.Versions > 2 {
		w.Fatalf("seed %d: %+v, %v", w.seed, found, err)
	}
	// Beside the versions stay the last fence and the one that it built on.
	for prefix, most := range map[string]int{"acme/_versions/": found.Versions + 2, "acme/_trees/": found.Versions, "acme/_clock/": 0} {
		if all := keysOf(w.T, &w.memory, prefix); len(all) > most {
			w.Fatalf("seed %d: %d objects where %d would do: %q", w.seed, len(all), most, all)
		}
	}
}

func keysOf(t *testing.T, b storage.Bucket, prefix string) (all []string) {
	t.Helper()
	for o, err := range b.List(context.Background(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o.Key)
	}
	return all
}

// warm makes what lives longer than a test, and must not belong to one's bubble.
func warm(t *testing.T) {
	t.Helper()
	from := new(storagetest.Memory)
	if err := from.Put(t.Context(), "x", strings.NewReader(strings.Repeat("warm", 1000)), nil); err != nil {
		t.Fatal(err)
	}
	v := storage.NewVolume(new(storagetest.Memory), "warm", nil)
	version, err := v.Import(t.Context(), from, "")
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := v.FS(t.Context(), version.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.ReadFile(fsys, "x"); err != nil {
		t.Fatal(err)
	}
}

// TestInterleavings runs Syncs and Prunes at once, with every request of theirs in
// an order of its own, processes that stop for a month, die, or have requests that
// arrive long after they were given up. VIVARIUM_SEEDS sets how many orders it tries.
func TestInterleavings(t *testing.T) {
	warm(t)
	seeds := 150
	if testing.Short() {
		seeds = 40
	}
	if n, err := strconv.Atoi(os.Getenv("VIVARIUM_SEEDS")); err == nil {
		seeds = n
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			w := &world{T: t, seed: uint64(seed), contents: map[string]map[string]string{}, made: map[string]bool{}, forgotten: map[string]bool{}}
			w.scheduler = &scheduler{rng: rand.New(rand.NewPCG(uint64(seed), 99)), bucket: &w.memory, dead: map[int]bool{}, rank: map[int]int{}}
			w.skew = []time.Duration{0, -40 * 24 * time.Hour, 3 * time.Hour}[seed%3]
			w.run()
		})
		if t.Failed() {
			return
		}
	}
}
