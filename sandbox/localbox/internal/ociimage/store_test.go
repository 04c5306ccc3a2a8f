//go:build linux

package ociimage

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openStore(t *testing.T, opts Options) *Store {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { // as an ordinary user t.TempDir cannot
		if err := removeAll(filepath.Join(dir, "images")); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(filepath.Join(dir, "images"), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// archive packs headers, filling in what is usual.
func archive(t testing.TB, entries ...tar.Header) *bytes.Buffer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		body := h.PAXRecords["VIVARIUM.body"]
		delete(h.PAXRecords, "VIVARIUM.body")
		h.Size = int64(len(body))
		if h.Mode == 0 && h.Typeflag != tar.TypeDir {
			h.Mode = 0o644
		}
		h.ModTime = time.Unix(1_700_000_000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

func file(name, body string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, PAXRecords: map[string]string{"VIVARIUM.body": body}}
}

func dir(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}
}

func symlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

func hardlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

func add(t *testing.T, s *Store, base *Root, entries ...tar.Header) *Root {
	t.Helper()
	id, err := s.AddLayer(t.Context(), base, archive(t, entries...))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := s.Lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	return s.Root(rec)
}

// read reads a file of an image, following links within it.
func read(t *testing.T, root *Root, name string) string {
	t.Helper()
	n, err := NewView(root).find(name, true)
	if errors.Is(err, fs.ErrNotExist) {
		return "<none>"
	}
	if err != nil {
		t.Fatal(err)
	}
	if n.isDir() {
		names, err := n.names()
		if err != nil {
			t.Fatal(err)
		}
		return "<" + string(bytes.Join(fields(names), []byte(" "))) + ">"
	}
	f, err := n.open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func fields(names []string) [][]byte {
	var out [][]byte
	for _, n := range names {
		out = append(out, []byte(n))
	}
	return out
}

func wantFiles(t *testing.T, root *Root, want map[string]string) {
	t.Helper()
	for name, body := range want {
		if got := read(t, root, name); got != body {
			t.Errorf("%s: %q, want %q", name, got, body)
		}
	}
}

func TestLayersOnTopOfEachOther(t *testing.T) {
	s := openStore(t, Options{})
	base := add(t, s, nil, dir("etc"), file("etc/a", "a1"), file("etc/b", "b1"), dir("d"), file("d/x", "x1"), file("gone/in/here", "g"), symlink("link", "etc"))
	wantFiles(t, base, map[string]string{"etc/a": "a1", "link/b": "b1", "gone": "<in>"})
	top := add(t, s, base, file("etc/.wh.a", ""), file("etc/c", "c2"), dir("d"), file("d/.wh..wh..opq", ""), file("d/y", "y2"),
		tar.Header{Typeflag: tar.TypeChar, Name: "gone"})
	wantFiles(t, top, map[string]string{"etc/a": "<none>", "etc/b": "b1", "etc/c": "c2", "d": "<y>", "gone": "<none>",
		"": "<d etc link>"})
	wantFiles(t, base, map[string]string{"etc/a": "a1", "etc/c": "<none>", "d": "<x>"})
	again := add(t, s, top, file("gone/new", "n3"), dir("etc"), file("etc/a", "a3"))
	wantFiles(t, again, map[string]string{"gone": "<new>", "etc/a": "a3", "etc/b": "b1"})
	if len(again.Layers) != 3 || !slices.Equal(again.Layers[:2], top.Layers) {
		t.Errorf("layers %q on top of %q", again.Layers, top.Layers)
	}
	whole := add(t, s, again, file(".wh..wh..opq", ""), file("only", "o"))
	wantFiles(t, whole, map[string]string{"": "<only>"})
}

func TestWhiteoutsInOverlayForm(t *testing.T) {
	s := openStore(t, Options{})
	r := add(t, s, nil, file("d/.wh.a", ""), dir("e"), file("e/.wh..wh..opq", ""),
		tar.Header{Typeflag: tar.TypeDir, Name: "f", Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr." + opaque: "y",
			"SCHILY.xattr.user.overlay.redirect": "/etc", "SCHILY.xattr.user.mine": "kept", "SCHILY.xattr.trusted.overlay.redirect": "/etc"}})
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(r.Layers[0], "d/a"), &st); err != nil || !isWhiteout(&st) {
		t.Errorf("d/a: %v, mode %o", err, st.Mode)
	}
	for _, name := range []string{"e", "f"} {
		if !isOpaque(filepath.Join(r.Layers[0], name)) {
			t.Errorf("%s is not opaque", name)
		}
	}
	buf := make([]byte, 256)
	n, err := unix.Listxattr(filepath.Join(r.Layers[0], "f"), buf)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range bytes.Split(bytes.TrimRight(buf[:n], "\x00"), []byte{0}) {
		if a := string(a); a != "user.mine" && a != opaque && a != "security.selinux" {
			t.Errorf("attribute %s", a)
		}
	}
}

// A directory that an archive does not describe is as in the layer below.
func TestUndescribedDirectories(t *testing.T) {
	s := openStore(t, Options{})
	d := dir("secret")
	d.Mode = 0o2711
	base := add(t, s, nil, d, file("secret/a", "a"))
	top := add(t, s, base, file("secret/b", "b"), file("new/b", "b"))
	for name, want := range map[string]uint32{"secret": 0o2711, "new": 0o755} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(top.Layers[1], name), &st); err != nil {
			t.Fatal(err)
		}
		if got := st.Mode & 0o7777; got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
}

func TestSameLayerIsKeptOnce(t *testing.T) {
	s := openStore(t, Options{})
	a := add(t, s, nil, file("a", "1"))
	b := add(t, s, nil, file("a", "1"))
	if !slices.Equal(a.Layers, b.Layers) || a.ID == b.ID {
		t.Errorf("%v and %v", a, b)
	}
	if c := add(t, s, a); !slices.Equal(c.Layers, a.Layers) {
		t.Errorf("an archive without entries made a layer: %v", c)
	}
	if err := s.Delete(a.ID); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, b, map[string]string{"a": "1"})
	if _, err := s.Lookup(a.ID); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("lookup of a deleted image: %v", err)
	}
	if err := s.Delete(a.ID); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("second deletion: %v", err)
	}
}

func TestDeleteWaitsForUsers(t *testing.T) {
	s := openStore(t, Options{})
	root := add(t, s, nil, file("a", "1"))
	held, err := Hold(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(root.ID); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, root, map[string]string{"a": "1"})
	if _, err := Hold(root); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("a deleted image could be held: %v", err)
	}
	held.Close()
	if _, err := Open(s.dir, s.opts); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(root.Layers[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the layer is still there: %v", err)
	}
}

func TestDeleteTakesSteps(t *testing.T) {
	s := openStore(t, Options{})
	step := func(base *Root, name string) *Root {
		r := add(t, s, base, file(name, name))
		rec, err := s.Lookup(r.ID)
		if err != nil {
			t.Fatal(err)
		}
		rec.Step = true
		if err := s.Put(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		return r
	}
	base := add(t, s, nil, file("base", ""))
	one := step(base, "one")
	two := step(one, "two")
	end, other := add(t, s, two, file("end", "")), add(t, s, one, file("other", ""))
	if err := s.Delete(end.ID); err != nil {
		t.Fatal(err)
	}
	for r, there := range map[*Root]bool{base: true, one: true, two: false, end: false, other: true} {
		if _, err := s.Lookup(r.ID); (err == nil) != there {
			t.Errorf("%v: %v", r.Layers, err)
		}
		if _, err := os.Lstat(r.Layers[len(r.Layers)-1]); (err == nil) != there {
			t.Errorf("%v: %v", r.Layers, err)
		}
	}
}

// What a killed process was making is removed, unless another one is at work.
func TestOpenRemovesLeftovers(t *testing.T) {
	s := openStore(t, Options{})
	left := filepath.Join(s.dir, "tmp", "layer-x", "shut")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	orphan := filepath.Join(s.dir, "layers", "0123")
	if err := os.Mkdir(orphan, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(left, 0); err != nil {
		t.Fatal(err)
	}
	end, err := s.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	reopen := func() {
		if _, err := Open(s.dir, s.opts); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	if _, err := os.Lstat(orphan); err != nil {
		t.Errorf("removed while somebody is at work: %v", err)
	}
	end()
	reopen()
	for _, path := range []string{left, orphan} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestKeys(t *testing.T) {
	s := openStore(t, Options{})
	if s.Key("a", "bc") == s.Key("ab", "c") {
		t.Error("two lists have one key")
	}
	other := openStore(t, Options{})
	if s.Key("a") == other.Key("a") {
		t.Error("a key can be told without the store's secret")
	}
	key := s.Key("k")
	if _, err := s.Find(key); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("unknown key: %v", err)
	}
	root := add(t, s, nil, file("a", ""))
	if err := s.SetKey(t.Context(), key, root.ID); err != nil {
		t.Fatal(err)
	}
	if rec, err := s.Find(key); err != nil || rec.ID != root.ID {
		t.Errorf("%v, %v", rec, err)
	}
	if err := s.Delete(root.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(key); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("key of a deleted image: %v", err)
	}
}

func TestLock(t *testing.T) {
	s := openStore(t, Options{})
	f, err := s.Lock(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Lock(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("taken twice: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		f, err := s.Lock(context.Background(), "x")
		if err == nil {
			f.Close()
		}
		got <- err
	}()
	f.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
}
