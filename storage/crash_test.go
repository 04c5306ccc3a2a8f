package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// history is a volume in memory whose versions are known.
type history struct {
	*testing.T
	memory *storagetest.Memory
	want   map[string]map[string]string // contents by note
}

func newHistory(t *testing.T) *history {
	return &history{T: t, memory: new(storagetest.Memory), want: map[string]map[string]string{}}
}

// files is the n-th state of a directory: most of it stays from one to the next.
func files(n int) map[string]string {
	all := map[string]string{fmt.Sprint("only/in", n): "x", "changes": fmt.Sprint("state ", n)}
	for i := range 20 {
		all[fmt.Sprintf("dir%d/file%d", i%3, i)] = strings.Repeat(fmt.Sprint(i), 100)
	}
	return all
}

func shelf(t *testing.T, all map[string]string) storage.Bucket {
	t.Helper()
	b := new(storagetest.Memory)
	for key, data := range all {
		if err := b.Put(context.Background(), key, strings.NewReader(data), nil); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// sync makes version n through a bucket.
func (h *history) sync(b storage.Bucket, n int, opts storage.Options) (*storage.Version, error) {
	h.Helper()
	opts.Note, opts.Paranoid = fmt.Sprint("version ", n), true
	h.want[opts.Note] = files(n)
	return storage.NewVolume(b, "acme", &opts).Import(context.Background(), shelf(h.T, files(n)), "")
}

func (h *history) must(n int) *storage.Version {
	h.Helper()
	v, err := h.sync(h.memory, n, storage.Options{})
	if err != nil {
		h.Fatal(err)
	}
	return v
}

// check reads every version that is listed, and gives their notes, newest first.
func (h *history) check(what string) (notes []string) {
	h.Helper()
	v := storage.NewVolume(h.memory, "acme", nil)
	for version, err := range v.Versions(context.Background()) {
		if err != nil {
			h.Fatalf("%s: %v", what, err)
		}
		notes = append(notes, version.Note)
		fsys, err := v.FS(context.Background(), version.ID)
		if err != nil {
			h.Fatalf("%s: %v", what, err)
		}
		if got := readAll(h.T, fsys); !maps.Equal(got, h.want[version.Note]) {
			h.Fatalf("%s: %s holds %v", what, version.Note, got)
		}
	}
	return notes
}

func readAll(t *testing.T, fsys fs.FS) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(fsys, name)
		got[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// everyFault are all that can go wrong with a request.
func everyFault() []storagetest.Fault {
	all := []storagetest.Fault{storagetest.Cut.After(0), storagetest.Cut.After(50), storagetest.Flip.After(40)}
	for _, err := range []error{storagetest.ErrInternal, storagetest.ErrUnavailable, storagetest.ErrSlowDown, storagetest.ErrTimeout} {
		all = append(all, storagetest.Fail.With(err), storagetest.LoseAnswer.With(err))
	}
	return all
}

// TestCrashOfSync kills a Sync at each of its requests in each way, or has only that
// one request fail.
func TestCrashOfSync(t *testing.T) {
	for _, fault := range everyFault() {
		for _, crash := range []bool{true, false} {
			for n := 1; ; n++ {
				h := newHistory(t)
				for i := range 3 {
					h.must(i)
				}
				plan := storagetest.Nth(n, fault)
				if crash {
					plan = storagetest.Crash(n, fault)
				}
				faulty := &storagetest.Faulty{Bucket: h.memory, Plan: plan}
				_, err := h.sync(faulty, 3, storage.Options{})
				what := fmt.Sprintf("%v at request %d, crash %v: %v", fault, n, crash, err)
				notes := h.check(what)
				old := []string{"version 2", "version 1", "version 0"}
				with := append([]string{"version 3"}, old...)
				switch {
				case slices.Equal(notes, with) && (err == nil || crash || errors.Is(err, storage.ErrUnknownOutcome)):
				case slices.Equal(notes, old) && err != nil:
				default:
					t.Fatalf("%s: versions %q", what, notes)
				}
				h.must(4)
				if notes := h.check(what); notes[0] != "version 4" {
					t.Fatalf("%s: then versions %q", what, notes)
				}
				if faulty.Injected() == 0 {
					break
				}
			}
		}
	}
}

// TestCrashOfPrune kills a Prune at each of its requests. The next one ends its work.
func TestCrashOfPrune(t *testing.T) {
	warm(t)
	for _, fault := range everyFault() {
		for n, over := 1, false; !over; n++ {
			synctest.Test(t, func(t *testing.T) {
				h := newHistory(t)
				for i := range 5 {
					h.must(i)
				}
				keep := storage.Keep{Last: 2, Grace: time.Hour}
				clean := storage.NewVolume(h.memory, "acme", nil)
				if _, err := clean.Prune(t.Context(), storage.Keep{Last: 3, Grace: time.Hour}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(48 * time.Hour)
				h.must(5)
				faulty := &storagetest.Faulty{Bucket: h.memory, Plan: storagetest.Crash(n, fault)}
				_, err := storage.NewVolume(faulty, "acme", nil).Prune(t.Context(), keep)
				over = faulty.Injected() == 0
				what := fmt.Sprintf("%v at request %d: %v", fault, n, err)
				if notes := h.check(what); len(notes) != 2 && (len(notes) != 4 || err == nil) || notes[0] != "version 5" {
					t.Fatalf("%s: versions %q", what, notes)
				}
				for range 3 {
					if _, err := clean.Prune(t.Context(), keep); err != nil {
						t.Fatalf("%s; then %v", what, err)
					}
					time.Sleep(48 * time.Hour)
				}
				if notes := h.check(what); len(notes) != 2 {
					t.Fatalf("%s: versions %q", what, notes)
				}
				if all := keysOf(t, h.memory, "acme/_versions/"); len(all) != 4 { // and two fences
					t.Fatalf("%s: records %q", what, all)
				}
			})
		}
	}
}

// TestCrashOfRestore kills the bucket at each request of a Restore. The directory is
// as it was, or as it is to be.
func TestCrashOfRestore(t *testing.T) {
	h := newHistory(t)
	for i := range 3 {
		h.must(i)
	}
	id := ids(t, storage.NewVolume(h.memory, "acme", nil))[1]
	dir := workdir(t)
	for _, fault := range everyFault() {
		for n := 1; ; n++ {
			write(t, dir, map[string]string{"file": "old"})
			faulty := &storagetest.Faulty{Bucket: h.memory, Plan: storagetest.Crash(n, fault)}
			err := storage.NewVolume(faulty, "acme", nil).Restore(t.Context(), storage.Local{}, dir, id)
			got := readAll(t, os.DirFS(dir))
			switch {
			case err == nil && maps.Equal(got, files(1)):
			case err != nil && maps.Equal(got, map[string]string{"file": "old"}):
			default:
				t.Fatalf("%v at request %d: %v; the directory holds %v", fault, n, err, got)
			}
			if faulty.Injected() == 0 {
				break
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".vivarium*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestStaleLists works through lists that lack the newest changes: no version is
// lost, none that is not valid is listed, and there is one line.
func TestStaleLists(t *testing.T) {
	warm(t)
	for seed := range 60 {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 5))
			h := newHistory(t)
			stale := &storagetest.Faulty{Bucket: h.memory, Lag: 1 + seed%9, Plan: storagetest.Every(storagetest.Stale, storagetest.OpList)}
			listed := []string{}
			for n := range 12 {
				if rng.IntN(3) > 0 || n == 0 {
					if _, err := h.sync(stale, n, storage.Options{}); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
					listed = slices.Insert(listed, 0, fmt.Sprint("version ", n))
				} else {
					_, err := storage.NewVolume(stale, "acme", nil).Prune(t.Context(), storage.Keep{Last: 2, Grace: time.Minute})
					if err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
					listed = listed[:min(2, len(listed))]
				}
				if got := h.check(fmt.Sprint("seed ", seed)); !slices.Equal(got, listed) {
					t.Fatalf("seed %d: versions %q, want %q", seed, got, listed)
				}
				var seen []string
				for v, err := range storage.NewVolume(stale, "acme", nil).Versions(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					seen = append(seen, v.Note)
				}
				if !slices.Equal(seen, listed) {
					t.Fatalf("seed %d: a stale list shows versions %q, want %q", seed, seen, listed)
				}
				time.Sleep(time.Duration(rng.IntN(3)) * time.Hour)
			}
		})
	}
}
