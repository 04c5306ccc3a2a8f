package volume

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// operate does one random thing with the files below each of dirs, the same in
// all. Errors are as good as anything else.
func operate(r *rand.Rand, dirs ...string) {
	name := func() string {
		p := fmt.Sprintf("n%d", r.IntN(6))
		for r.IntN(2) == 0 {
			p = fmt.Sprintf("%s/n%d", p, r.IntN(6))
		}
		return p
	}
	op, one, two := r.IntN(12), name(), name()
	content := []byte(fmt.Sprint(r.Uint32()))[:r.IntN(3)+1]
	mode := os.FileMode([]int{0o644, 0o755, 0o700, 0o777}[r.IntN(4)])
	when := time.Now()
	for _, d := range dirs {
		a, b := filepath.Join(d, one), filepath.Join(d, two)
		switch op {
		case 0, 1, 2:
			if os.WriteFile(a, content, 0o644) == nil {
				os.Chtimes(a, when, when)
			}
		case 3:
			if f, err := os.OpenFile(a, os.O_WRONLY, 0); err == nil {
				f.WriteAt(content, int64(len(content)))
				f.Close()
				os.Chtimes(a, when, when)
			}
		case 4, 5:
			os.MkdirAll(a, 0o755)
		case 6:
			os.Remove(a)
		case 7:
			os.RemoveAll(a)
		case 8, 9:
			os.Rename(a, b)
		case 10:
			os.Symlink(two, a)
		case 11:
			if info, err := os.Lstat(a); err == nil && info.Mode()&os.ModeSymlink == 0 {
				if info.IsDir() {
					mode |= 0o700 // or an ordinary user's test could not look into it
				}
				os.Chmod(a, mode)
				os.Link(a, b)
			}
		}
	}
}

// One after the other, mounts change a volume; each must see exactly what a
// plain directory has in which the same was done.
func TestRandomOperations(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			s := open(t, t.TempDir())
			plain := t.TempDir()
			mounts := []*Mount{mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)}
			readOnly := mount(t, s, "vo-1", &MountOptions{ReadOnly: true})
			for range 60 {
				m := mounts[r.IntN(len(mounts))]
				reload(t, m)
				for range r.IntN(12) {
					operate(r, plain, m.Dir())
					if r.IntN(6) == 0 {
						commit(t, m)
					}
				}
				commit(t, m)
				other := mounts[r.IntN(len(mounts))]
				if r.IntN(3) == 0 {
					other = readOnly
				}
				reload(t, other)
				if diff := cmp.Diff(tree(t, plain), tree(t, other.Dir())); diff != "" {
					t.Fatalf("a mount is not what was done (-plain +mount):\n%s", diff)
				}
			}
			if diff := cmp.Diff(tree(t, plain), tree(t, mount(t, s, "vo-1", nil).Dir())); diff != "" {
				t.Errorf("a new mount is not what was done:\n%s", diff)
			}
		})
	}
}

// All at once, mounts change, commit and reload; afterwards all agree with each
// other and with what is on disk.
func TestConcurrentMountsAgree(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, &Options{Interval: 3 * time.Millisecond})
	do(t, err)
	var mounts []*Mount
	for range 4 {
		mounts = append(mounts, mount(t, s, "vo-1", nil))
	}
	var wg sync.WaitGroup
	for i, m := range mounts {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 2))
			for n := range 600 {
				operate(r, m.Dir())
				if n%20 == 19 {
					if err := m.Reload(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, m := range mounts {
		commit(t, m)
	}
	var want []string
	for _, m := range mounts {
		reload(t, m)
		got := tree(t, m.Dir())
		if want == nil {
			want = got
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("two mounts differ:\n%s", diff)
		}
		do(t, m.Close(t.Context()))
	}
	do(t, s.Close())
	s = open(t, dir)
	if diff := cmp.Diff(want, tree(t, mount(t, s, "vo-1", nil).Dir())); diff != "" {
		t.Errorf("the disk differs:\n%s", diff)
	}
	if staged, _ := filepath.Glob(filepath.Join(dir, "volumes", "*", "stage", "*")); len(staged) != 0 {
		t.Errorf("left in the staging directory: %v", staged)
	}
}

func BenchmarkVolume(b *testing.B) {
	const files = 10_000
	s := open(b, b.TempDir())
	a := mount(b, s, "vo-1", nil)
	for i := range files {
		write(b, a, fmt.Sprintf("d%d/e%d/f%d", i%10, i%100, i), "four kilobytes, nearly")
	}
	commit(b, a)
	b.Run("commit/unchanged", func(b *testing.B) {
		for b.Loop() {
			commit(b, a)
		}
	})
	b.Run("commit/renamed directory", func(b *testing.B) {
		from, to := "d1", "moved"
		for b.Loop() {
			do(b, os.Rename(filepath.Join(a.Dir(), from), filepath.Join(a.Dir(), to)))
			from, to = to, from
			commit(b, a)
		}
	})
	for _, ro := range []bool{false, true} {
		b.Run(fmt.Sprintf("mount/readonly=%v", ro), func(b *testing.B) {
			for b.Loop() {
				m, err := s.Mount(b.Context(), "vo-1", &MountOptions{ReadOnly: ro})
				do(b, err)
				do(b, m.Close(b.Context()))
			}
		})
	}
}
