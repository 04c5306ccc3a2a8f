package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// open opens a store that commits only when it is told to.
func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, &Options{Interval: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mount(t testing.TB, s *Store, id string, opts *MountOptions) *Mount {
	t.Helper()
	m, err := s.Mount(t.Context(), id, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return m
}

func write(t testing.TB, m *Mount, name, content string) {
	t.Helper()
	p := filepath.Join(m.Dir(), name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func commit(t testing.TB, m *Mount) { t.Helper(); do(t, m.Commit(t.Context())) }
func reload(t testing.TB, m *Mount) { t.Helper(); do(t, m.Reload(t.Context())) }

// tree is everything below dir, one line each.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	names := map[uint64]string{}
	lines := []string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := os.Lstat(p)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		line := rel + " " + info.Mode().String()
		switch kindOf(info.Mode()) {
		case link:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		case regular:
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %q", info.ModTime().UnixNano(), content)
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				if first, ok := names[st.Ino]; ok {
					line += " same as " + first
				} else {
					names[st.Ino] = rel
				}
			}
		}
		lines = append(lines, line)
		return nil
	})
	do(t, err)
	return lines
}

// names is tree without all but the names.
func names(t testing.TB, m *Mount) string {
	t.Helper()
	var out []string
	for _, l := range tree(t, m.Dir()) {
		name, _, _ := strings.Cut(l, " ")
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func TestWritesAreSeenAfterCommitAndReload(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)
	write(t, a, "d/f", "one")
	if got := names(t, b); got != "" {
		t.Errorf("before the commit the other sees %q", got)
	}
	reload(t, a)
	if got := names(t, b); got != "" {
		t.Errorf("before its reload the other sees %q", got)
	}
	reload(t, b)
	if diff := cmp.Diff(tree(t, a.Dir()), tree(t, b.Dir())); diff != "" {
		t.Error(diff)
	}
	if c := mount(t, s, "vo-1", nil); names(t, c) != "d d/f" {
		t.Errorf("a new mount sees %q", names(t, c))
	}
	if c := mount(t, s, "vo-2", nil); names(t, c) != "" {
		t.Errorf("another volume has %q", names(t, c))
	}
}

func TestCloseCommits(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	m, err := s.Mount(t.Context(), "vo-1", nil)
	do(t, err)
	write(t, m, "f", "last words")
	do(t, m.Close(t.Context()))
	do(t, m.Close(t.Context()))
	if _, err := os.Stat(m.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the copy is still there: %v", err)
	}
	if err := m.Commit(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit after Close: %v", err)
	}
	if got := names(t, mount(t, s, "vo-1", nil)); got != "f" {
		t.Errorf("the volume has %q", got)
	}
}

func TestBackgroundCommit(t *testing.T) {
	s, err := Open(t.TempDir(), &Options{Interval: 10 * time.Millisecond})
	do(t, err)
	defer s.Close()
	a, b := mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)
	write(t, a, "f", "one")
	deadline := time.After(10 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); names(t, b) != "f"; {
		select {
		case <-deadline:
			t.Fatal("nothing was committed in the background")
		case <-tick.C:
			reload(t, b)
		}
	}
}

func TestStoreIsReopened(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, &Options{Interval: -1})
	do(t, err)
	m, err := s.Mount(t.Context(), "vo-1", nil)
	do(t, err)
	write(t, m, "d/f", "one")
	do(t, os.Link(filepath.Join(m.Dir(), "d/f"), filepath.Join(m.Dir(), "g")))
	do(t, os.Chmod(filepath.Join(m.Dir(), "g"), 0o4751))
	do(t, os.Symlink("/nowhere", filepath.Join(m.Dir(), "l")))
	commit(t, m)
	want := tree(t, m.Dir())
	write(t, m, "lost", "")
	s2 := open(t, dir) // as after a crash: nothing was closed
	if diff := cmp.Diff(want, tree(t, mount(t, s2, "vo-1", nil).Dir())); diff != "" {
		t.Error(diff)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "mounts", "*")); len(left) != 1 {
		t.Errorf("copies left: %v", left)
	}
}

func TestReadOnly(t *testing.T) {
	s := open(t, t.TempDir())
	a := mount(t, s, "vo-1", nil)
	write(t, a, "d/f", "one")
	write(t, a, "e", "one")
	commit(t, a)
	r := mount(t, s, "vo-1", &MountOptions{ReadOnly: true})
	if diff := cmp.Diff(tree(t, a.Dir()), tree(t, r.Dir())); diff != "" {
		t.Error(diff)
	}
	write(t, a, "d/f", "two")
	do(t, os.Remove(filepath.Join(a.Dir(), "e")))
	write(t, a, "e/sub", "three")
	commit(t, a)
	if got := names(t, r); got != "d d/f e" {
		t.Errorf("before its reload: %q", got)
	}
	reload(t, r)
	if diff := cmp.Diff(tree(t, a.Dir()), tree(t, r.Dir())); diff != "" {
		t.Error(diff)
	}
}

func TestSubPath(t *testing.T) {
	s := open(t, t.TempDir())
	sub := mount(t, s, "vo-1", &MountOptions{SubPath: "/a//b/"})
	write(t, sub, "c/f", "one")
	write(t, sub, "g", "one")
	commit(t, sub)
	whole := mount(t, s, "vo-1", nil)
	if got := names(t, whole); got != "a a/b a/b/c a/b/c/f a/b/g" {
		t.Errorf("the volume has %q", got)
	}
	write(t, whole, "a/b/h", "two")
	write(t, whole, "a/other", "two")
	do(t, os.RemoveAll(filepath.Join(whole.Dir(), "a/b/c")))
	commit(t, whole)
	reload(t, sub)
	if got := names(t, sub); got != "g h" {
		t.Errorf("the directory has %q", got)
	}
	do(t, os.Remove(filepath.Join(sub.Dir(), "g")))
	commit(t, sub)
	reload(t, whole)
	if got := names(t, whole); got != "a a/b a/b/h a/other" {
		t.Errorf("the volume has %q", got)
	}
}

func TestSubPathRefused(t *testing.T) {
	s := open(t, t.TempDir())
	m := mount(t, s, "vo-1", nil)
	write(t, m, "file", "")
	do(t, os.Symlink("/", filepath.Join(m.Dir(), "link")))
	commit(t, m)
	for _, p := range []string{"..", "a/../..", "../x", "/..", "a/..", "a\x00b", "file", "file/x", "link", "link/etc", strings.Repeat("x/", 4000)} {
		if _, err := s.Mount(t.Context(), "vo-1", &MountOptions{SubPath: p}); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("sub path %.20q: %v", p, err)
		}
	}
	for _, id := range []string{"", "..", "a/b", ".", "vo 1", "vo-\x00"} {
		if _, err := s.Mount(t.Context(), id, nil); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("volume %q: %v", id, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "mounts", "*")); len(left) != 1 {
		t.Errorf("copies left: %v", left)
	}
}

func TestDelete(t *testing.T) {
	s := open(t, t.TempDir())
	m := mount(t, s, "vo-1", nil)
	write(t, m, "f", "one")
	commit(t, m)
	do(t, s.Delete("vo-1"))
	do(t, s.Delete("vo-1"))
	write(t, m, "g", "two")
	reload(t, m) // goes on with what it has
	if got := names(t, m); got != "f g" {
		t.Errorf("the mount has %q", got)
	}
	if got := names(t, mount(t, s, "vo-1", nil)); got != "" {
		t.Errorf("a new volume of the id has %q", got)
	}
}

// Of two that changed the same path the last to commit wins; paths that only
// one of them changed are merged.
func TestConflicts(t *testing.T) {
	tests := []struct {
		name string
		a, b func(m *Mount, t *testing.T)
		want string // names, and the content of f, once a and then b have committed
	}{
		{"both write", func(m *Mount, t *testing.T) { write(t, m, "d/f", "a") },
			func(m *Mount, t *testing.T) { write(t, m, "d/f", "b") }, "d d/f d/g b"},
		{"written and removed", func(m *Mount, t *testing.T) { write(t, m, "d/f", "a") },
			func(m *Mount, t *testing.T) { remove(t, m, "d/f") }, "d d/g"},
		{"removed and written", func(m *Mount, t *testing.T) { remove(t, m, "d") },
			func(m *Mount, t *testing.T) { write(t, m, "d/f", "b") }, "d d/f b"},
		{"added to a removed directory", func(m *Mount, t *testing.T) { write(t, m, "d/new", "a") },
			func(m *Mount, t *testing.T) { remove(t, m, "d") }, "d d/new"},
		{"a file for a directory", func(m *Mount, t *testing.T) { write(t, m, "d/new", "a") },
			func(m *Mount, t *testing.T) { remove(t, m, "d"); write(t, m, "d", "b") }, "d"},
		{"a directory for a file", func(m *Mount, t *testing.T) { write(t, m, "d/f", "a") },
			func(m *Mount, t *testing.T) { remove(t, m, "d/f"); write(t, m, "d/f/x", "b") }, "d d/f d/f/x d/g"},
		{"written below what became a file", func(m *Mount, t *testing.T) { remove(t, m, "d"); write(t, m, "d", "a") },
			func(m *Mount, t *testing.T) { write(t, m, "d/f", "b") }, "d d/f b"},
		{"both add", func(m *Mount, t *testing.T) { write(t, m, "x", "a") },
			func(m *Mount, t *testing.T) { write(t, m, "y", "b") }, "d d/f d/g x y one"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			a := mount(t, s, "vo-1", nil)
			write(t, a, "d/f", "one")
			write(t, a, "d/g", "one")
			commit(t, a)
			b := mount(t, s, "vo-1", nil)
			tt.a(a, t)
			tt.b(b, t)
			commit(t, a)
			commit(t, b)
			reload(t, a)
			reload(t, b)
			if diff := cmp.Diff(tree(t, a.Dir()), tree(t, b.Dir())); diff != "" {
				t.Error(diff)
			}
			got := names(t, a)
			if content, err := os.ReadFile(filepath.Join(a.Dir(), "d/f")); err == nil {
				got += " " + string(content)
			}
			if got != tt.want {
				t.Errorf("the volume has %q, want %q", got, tt.want)
			}
		})
	}
}

func remove(t testing.TB, m *Mount, name string) {
	t.Helper()
	do(t, os.RemoveAll(filepath.Join(m.Dir(), name)))
}

// A change right after a commit may leave size and times as they were.
func TestChangeWithinTheClocksGrain(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)
	for i := range 200 {
		content := fmt.Sprintf("%03d", i)
		f, err := os.OpenFile(filepath.Join(a.Dir(), "f"), os.O_RDWR|os.O_CREATE, 0o644)
		do(t, err)
		_, err = f.WriteAt([]byte(content), 0)
		do(t, err)
		do(t, f.Close())
		commit(t, a)
		reload(t, b)
		got, err := os.ReadFile(filepath.Join(b.Dir(), "f"))
		do(t, err)
		if string(got) != content {
			t.Fatalf("after commit %d the file is %q", i, got)
		}
	}
}

// What is only read again because it is new must not undo what another wrote.
func TestUnsettledFileIsNoChange(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)
	write(t, a, "f", "a")
	commit(t, a)
	reload(t, b)
	write(t, b, "f", "b")
	commit(t, b)
	commit(t, a)
	reload(t, a)
	if got, _ := os.ReadFile(filepath.Join(a.Dir(), "f")); string(got) != "b" {
		t.Errorf("the file is %q", got)
	}
}

func TestSparseFile(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("holes are kept on Linux only")
	}
	s := open(t, t.TempDir())
	a, b := mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)
	const size = 1 << 40
	f, err := os.Create(filepath.Join(a.Dir(), "f"))
	do(t, err)
	_, err = f.WriteAt([]byte("middle"), size/2)
	do(t, err)
	do(t, f.Truncate(size))
	do(t, f.Close())
	commit(t, a)
	commit(t, a)
	reload(t, b)
	g, err := os.Open(filepath.Join(b.Dir(), "f"))
	do(t, err)
	defer g.Close()
	got := make([]byte, 6)
	if _, err := g.ReadAt(got, size/2); err != nil || string(got) != "middle" {
		t.Errorf("read %q, %v", got, err)
	}
	var st syscall.Stat_t
	do(t, syscall.Fstat(int(g.Fd()), &st))
	if st.Size != size || st.Blocks > 64 {
		t.Errorf("size %d, %d blocks", st.Size, st.Blocks)
	}
}

func TestReloadKeepsOpenFilesAndTheDirectory(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)
	before, err := os.Stat(b.Dir())
	do(t, err)
	write(t, a, "f", "one")
	commit(t, a)
	reload(t, b)
	f, err := os.Open(filepath.Join(b.Dir(), "f"))
	do(t, err)
	defer f.Close()
	write(t, a, "f", "two")
	commit(t, a)
	reload(t, b)
	got := make([]byte, 3)
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "one" {
		t.Errorf("an open file has %q, %v", got, err)
	}
	after, err := os.Stat(b.Dir())
	do(t, err)
	if !os.SameFile(before, after) {
		t.Error("the directory has become another")
	}
}

func TestTooManyFiles(t *testing.T) {
	s := scan{found: make(map[string]stamp)}
	dir := t.TempDir()
	for i := range maxEntries {
		s.found[fmt.Sprint("x", i)] = stamp{}
	}
	do(t, os.WriteFile(filepath.Join(dir, "one more"), nil, 0o600))
	root, err := os.OpenRoot(dir)
	do(t, err)
	defer root.Close()
	if err := s.dir(t.Context(), root, ""); !errors.Is(err, driver.ErrExhausted) {
		t.Errorf("got %v", err)
	}
}
