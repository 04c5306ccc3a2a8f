//go:build unix

package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// What a sandbox puts into its copy leads nowhere, and blocks nobody.
func TestHostileCopy(t *testing.T) {
	outside := t.TempDir()
	do(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("of the host"), 0o600))
	s := open(t, t.TempDir())
	a, b := mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)
	at := func(name string) string { return filepath.Join(a.Dir(), name) }
	do(t, os.Symlink(outside, at("out")))
	do(t, os.Symlink(filepath.Join(outside, "secret"), at("file")))
	do(t, os.Symlink("../../../../../../../../../../../../etc", at("up")))
	do(t, os.Symlink("loop", at("loop")))
	do(t, os.Symlink("../stage", at("stage")))
	do(t, syscall.Mkfifo(at("fifo"), 0o600))
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	do(t, err)
	defer syscall.Close(fd)
	do(t, os.Chdir(a.Dir())) // a socket's path is short
	defer os.Chdir("/")
	do(t, syscall.Bind(fd, &syscall.SockaddrUnix{Name: "socket"}))
	do(t, os.WriteFile(at("\xff\n\\"), []byte("odd name"), 0o600))
	commit(t, a)
	reload(t, b)
	if got := strings.Join(tree(t, b.Dir()), "\n"); strings.Contains(got, "fifo") || strings.Contains(got, "socket") ||
		!strings.Contains(got, "out Lrwxrwxrwx -> "+outside) || !strings.Contains(got, "odd name") {
		t.Errorf("the other has %s", got)
	}
	// The other now has the links' names as directories, which must not be written through.
	remove(t, a, "out")
	write(t, a, "out/secret", "of the sandbox")
	remove(t, a, "up")
	write(t, a, "up/passwd", "of the sandbox")
	commit(t, a)
	do(t, os.Remove(filepath.Join(b.Dir(), "file")))
	do(t, os.Symlink(filepath.Join(outside, "new"), filepath.Join(b.Dir(), "file")))
	reload(t, b)
	if got := strings.Join(tree(t, outside), "\n"); !strings.HasPrefix(got, "secret ") || !strings.HasSuffix(got, `"of the host"`) {
		t.Errorf("outside there is %s", got)
	}
	if got := strings.Join(tree(t, b.Dir()), "\n"); !strings.Contains(got, "out/secret") || !strings.Contains(got, "up/passwd") {
		t.Errorf("the other has %s", got)
	}
}

// A directory that keeps turning into a link to outside and back never leads
// there, in either direction.
func TestSwappedDirectory(t *testing.T) {
	outside := t.TempDir()
	do(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("of the host"), 0o600))
	s := open(t, t.TempDir())
	a, b := mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)
	write(t, a, "d/secret", "of the sandbox")
	write(t, b, "d/secret", "of the sandbox")
	do(t, os.Symlink(outside, filepath.Join(a.Dir(), "l")))
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		d, l, x := filepath.Join(a.Dir(), "d"), filepath.Join(a.Dir(), "l"), filepath.Join(a.Dir(), "x")
		for ctx.Err() == nil {
			os.Rename(d, x)
			os.Rename(l, d)
			os.Rename(d, l)
			os.Rename(x, d)
		}
	})
	inside, err := os.OpenRoot(b.Dir()) // the link gets here too, and is not for this test to follow
	do(t, err)
	defer inside.Close()
	for i := 0; ctx.Err() == nil; i++ {
		inside.WriteFile("d/secret", []byte("of the sandbox"+strings.Repeat("!", i%7)), 0o600)
		inside.WriteFile("d/more", []byte{byte(i)}, 0o600)
		commit(t, b)
		reload(t, a)
		reload(t, b)
	}
	wg.Wait()
	c := mount(t, s, "vo-1", nil)
	for _, m := range []*Mount{a, b, c} {
		for _, line := range tree(t, m.Dir()) {
			if strings.Contains(line, "of the host") {
				t.Errorf("a file of the host got into a volume: %s", line)
			}
		}
	}
	if got := tree(t, outside); len(got) != 1 || !strings.Contains(got[0], "of the host") {
		t.Errorf("outside there is %v", got)
	}
}

func TestDeepDirectories(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)
	dir, err := os.OpenRoot(a.Dir())
	do(t, err)
	for range 2500 { // deeper than a path is long
		do(t, dir.Mkdir("d", 0o755))
		sub, err := dir.OpenRoot("d")
		do(t, err)
		dir.Close()
		dir = sub
	}
	dir.Close()
	write(t, a, "f", "one")
	// What can be kept is, and the rest is told of.
	if err := a.Commit(t.Context()); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("Commit: %v", err)
	}
	reload(t, b)
	if _, err := os.Stat(filepath.Join(b.Dir(), "f")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(b.Dir(), strings.Repeat("d/", maxDepth))); err != nil {
		t.Error(err)
	}
	do(t, os.RemoveAll(filepath.Join(a.Dir(), "d")))
	commit(t, a)
}

// What its owner may not use is kept too: root may use everything, and an
// ordinary user's own files are made usable.
func TestUnusableFiles(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)
	write(t, a, "d/e/f", "one")
	write(t, a, "g", "two")
	do(t, os.Chmod(filepath.Join(a.Dir(), "g"), 0))
	do(t, os.Chmod(filepath.Join(a.Dir(), "d/e/f"), 0o200))
	do(t, os.Chmod(filepath.Join(a.Dir(), "d/e"), 0))
	do(t, os.Chmod(filepath.Join(a.Dir(), "d"), 0o500))
	for range 2 { // the second sees what the first has made usable
		commit(t, a)
		reload(t, b)
	}
	if os.Geteuid() == 0 {
		if got := strings.Join(tree(t, b.Dir()), "\n"); !strings.Contains(got, "d/e d---------") || !strings.Contains(got, "g ----------") {
			t.Errorf("the other has %s", got)
		}
		return
	}
	do(t, os.Chmod(filepath.Join(b.Dir(), "g"), 0o600))
	do(t, os.Chmod(filepath.Join(b.Dir(), "d/e/f"), 0o600))
	for name, want := range map[string]string{"g": "two", "d/e/f": "one"} {
		if got, err := os.ReadFile(filepath.Join(b.Dir(), name)); string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestModesAndHardLinks(t *testing.T) {
	s := open(t, t.TempDir())
	a, b := mount(t, s, "vo-1", nil), mount(t, s, "vo-1", nil)
	at := func(name string) string { return filepath.Join(a.Dir(), name) }
	write(t, a, "d/f", "one")
	do(t, os.Link(at("d/f"), at("g")))
	do(t, os.Chmod(at("d/f"), 0o640|os.ModeSetuid))
	do(t, os.Chmod(at("d"), 0o750|os.ModeSticky))
	do(t, os.Chtimes(at("g"), time.Time{}, time.Unix(1e9, 5)))
	check := func() {
		t.Helper()
		commit(t, a)
		reload(t, b)
		if diff := cmp.Diff(tree(t, a.Dir()), tree(t, b.Dir())); diff != "" {
			t.Error(diff)
		}
	}
	check()
	do(t, os.Link(at("g"), at("h"))) // a third name
	check()
	write(t, a, "h", "two") // by one name for all
	check()
	do(t, os.Remove(at("d/f")))
	check()
	do(t, os.Remove(at("h")))
	write(t, a, "h", "its own")
	check()
	// In the other the links are links too: a write is seen by all names.
	do(t, os.Link(at("g"), at("i")))
	check()
	write(t, b, "i", "three")
	commit(t, b)
	reload(t, a)
	if got, _ := os.ReadFile(at("g")); string(got) != "three" {
		t.Errorf("the other name has %q", got)
	}
}
