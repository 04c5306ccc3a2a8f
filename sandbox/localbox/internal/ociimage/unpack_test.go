//go:build linux

package ociimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// tree unpacks into a new directory, which has a neighbour that must not change.
func tree(t testing.TB, r io.Reader) (dir string, err error) {
	t.Helper()
	top := t.TempDir()
	t.Cleanup(func() { removeAll(filepath.Join(top, "tree")) })
	dir = filepath.Join(top, "tree")
	outside := filepath.Join(top, "outside")
	for _, d := range []string{dir, outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "file"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = unpackTar(dir, r, NewView(&Root{}), false, &limits{bytes: 1 << 20, files: 1000})
	names, rerr := os.ReadDir(outside)
	if rerr != nil || len(names) != 1 {
		t.Errorf("the neighbour has %v, %v", names, rerr)
	}
	text, rerr := os.ReadFile(filepath.Join(outside, "file"))
	info, serr := os.Stat(filepath.Join(outside, "file"))
	if rerr != nil || serr != nil || string(text) != "mine" || info.Mode().Perm() != 0o600 || info.Sys().(*syscall.Stat_t).Nlink != 1 {
		t.Errorf("the neighbour's file is %q, %v, %v, %v", text, info, rerr, serr)
	}
	if names, _ := os.ReadDir(top); len(names) != 2 {
		t.Errorf("beside the tree there is %v", names)
	}
	return dir, err
}

func TestUnpackHostile(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"dots":                     {file("../escaped", "x")},
		"dots within":              {file("a/../../escaped", "x")},
		"hard link out":            {hardlink("a", "../outside/file")},
		"hard link to a link out":  {symlink("out", "../outside"), hardlink("a", "out/file")},
		"whiteout of dots":         {file(".wh...", "")},
		"whiteout of nothing":      {file("a/.wh.", "")},
		"links in a circle":        {symlink("a", "b"), symlink("b", "a"), file("a/x", "")},
		"below a file":             {file("a", ""), file("a/b", "")},
		"hard link to nothing":     {hardlink("a", "b")},
		"hard link to a directory": {dir("d"), hardlink("a", "d")},
		"hard link to itself":      {hardlink("a", "a")},
		"unknown type":             {{Typeflag: 'Z', Name: "z"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tree(t, archive(t, entries...)); !errors.Is(err, ErrDamaged) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Links that lead out lead to a place within.
func TestUnpackLinksStayWithin(t *testing.T) {
	d, err := tree(t, archive(t,
		symlink("up", "../outside"), file("up/file", "changed"), file("up/.wh.other", ""), file("up/new", "n"),
		symlink("abs", "/outside"), file("abs/third", "3"), tar.Header{Typeflag: tar.TypeDir, Name: "up", Mode: 0o777},
		symlink("magic", "/proc/self/root"), file("magic/x", "p"), file("/rooted", "r")))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"outside/file": "changed", "outside/new": "n", "outside/third": "3", "rooted": "r", "proc/self/root/x": "p"} {
		if got, err := os.ReadFile(filepath.Join(d, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if info, err := os.Lstat(filepath.Join(d, "up")); err != nil || !info.IsDir() {
		t.Errorf("the link that a directory replaced: %v, %v", info, err)
	}
}

func TestUnpackKeeps(t *testing.T) {
	entries := []tar.Header{
		file("plain", "p"), hardlink("hard", "plain"), symlink("dangling", "/no/where"), hardlink("soft", "dangling"),
		{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o640}, {Typeflag: tar.TypeChar, Name: "dev", Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeReg, Name: "suid", Mode: 0o4755}, {Typeflag: tar.TypeDir, Name: "shut", Mode: 0o0},
		file("shut/in", "i"), {Typeflag: tar.TypeDir, Name: "t", Mode: 0o1777}, file(strings.Repeat("long/", 60)+"name", "l"),
		file("sparse", strings.Repeat("\x00", 200<<10)+"end"), file("hole", strings.Repeat("\x00", 256<<10)),
		file("twice", "1"), dir("twice"), file("twice/2", "2"), dir("back"), file("back/x", ""), file("back", "b"),
	}
	d, err := tree(t, archive(t, entries...))
	if err != nil {
		t.Fatal(err)
	}
	stat := func(name string) (st unix.Stat_t) {
		t.Helper()
		if err := unix.Lstat(filepath.Join(d, name), &st); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return st
	}
	if stat("plain").Ino != stat("hard").Ino || stat("dangling").Ino != stat("soft").Ino {
		t.Error("hard links became files of their own")
	}
	for name, want := range map[string]uint32{"fifo": unix.S_IFIFO | 0o640, "suid": unix.S_IFREG | 0o4755, "shut": unix.S_IFDIR, "t": unix.S_IFDIR | 0o1777} {
		if got := stat(name).Mode; got != want {
			t.Errorf("%s: mode %o, want %o", name, got, want)
		}
	}
	if st := stat("plain"); st.Mtim.Sec != 1_700_000_000 {
		t.Errorf("time %d", st.Mtim.Sec)
	}
	if st := stat("sparse"); st.Size != 200<<10+3 || st.Blocks*512 > 150<<10 {
		t.Errorf("sparse: %d bytes in %d blocks", st.Size, st.Blocks)
	}
	if st := stat("hole"); st.Size != 256<<10 || st.Blocks > 8 {
		t.Errorf("hole: %d bytes in %d blocks", st.Size, st.Blocks)
	}
	if _, err := os.Lstat(filepath.Join(d, "dev")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("device: %v", err)
	}
	for name, want := range map[string]string{"back": "b", "twice/2": "2", strings.Repeat("long/", 60) + "name": "l"} {
		if got, err := os.ReadFile(filepath.Join(d, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// A whiteout and a file of the same name in one layer are the file, alone.
func TestUnpackWhiteoutAndFile(t *testing.T) {
	s := openStore(t, Options{})
	base := add(t, s, nil, file("a/old", "1"), file("b/old", "1"), file("c", "1"), file("d/old", "1"))
	top := add(t, s, base, file(".wh.a", ""), dir("a"), file("a/new", "2"), dir("b"), file("b/new", "2"), file(".wh.b", ""),
		file(".wh.c", ""), file("c", "2"), file(".wh.d", ""), file("d/new", "2"))
	wantFiles(t, top, map[string]string{"a": "<new>", "b": "<new>", "c": "2", "d": "<new>"})
}

// A hard link may name a file that only a layer below has.
func TestUnpackHardLinkBelow(t *testing.T) {
	s := openStore(t, Options{})
	base := add(t, s, nil, file("usr/bin/a", "program"), symlink("bin", "usr/bin"))
	top := add(t, s, base, hardlink("b", "usr/bin/a"))
	wantFiles(t, top, map[string]string{"b": "program", "usr/bin/a": "program"})
}

func TestUnpackLimits(t *testing.T) {
	var many []tar.Header
	for range 1001 {
		many = append(many, dir("d"))
	}
	for name, entries := range map[string][]tar.Header{"files": many, "bytes": {file("a", strings.Repeat("x", 1<<20)), file("b", "x")}} {
		if _, err := tree(t, archive(t, entries...)); !errors.Is(err, driver.ErrExhausted) {
			t.Errorf("too many %s: %v", name, err)
		}
	}
	var huge bytes.Buffer
	w := tar.NewWriter(&huge)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a", Size: 1 << 50}); err != nil {
		t.Fatal(err)
	}
	if _, err := tree(t, &huge); !errors.Is(err, driver.ErrExhausted) {
		t.Errorf("a petabyte: %v", err)
	}
}

// Root keeps whose files they are, and gives nothing to users of this machine
// that a sandbox cannot have.
func TestUnpackOwners(t *testing.T) {
	if !ownsAllIDs() || os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	s := openStore(t, Options{})
	a, b, l := file("a", ""), file("b", ""), symlink("l", "a")
	a.Uid, a.Gid, b.Uid, l.Uid = 1000, 7, 5_000_000, 33
	root := add(t, s, nil, a, b, l)
	for name, want := range map[string][2]uint32{"a": {1000, 7}, "b": {nobody, 0}, "l": {33, 0}} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root.Layers[0], name), &st); err != nil || st.Uid != want[0] || st.Gid != want[1] {
			t.Errorf("%s: %d:%d, %v", name, st.Uid, st.Gid, err)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	for _, e := range [][]tar.Header{
		{dir("a"), file("a/b", "c"), symlink("l", "../.."), file("l/x", "y"), hardlink("h", "a/b")},
		{file(".wh.a", ""), file("a/.wh..wh..opq", ""), dir("a"), file(".wh..wh..opq", "")},
		{symlink("a", "b"), symlink("b", "a"), file("a/c", ""), {Typeflag: tar.TypeChar, Name: "w"}},
	} {
		f.Add(archive(f, e...).Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir, err := tree(t, bytes.NewReader(data))
		if err != nil {
			return
		}
		// What was unpacked can be read as an image, and removed.
		v := NewView(&Root{Layers: []string{dir}})
		_ = (&Copy{From: v, Sources: []string{"/"}, On: v, Dest: "/x/", Mode: -1}).WriteTar(io.Discard)
		if err := removeAll(dir); err != nil {
			t.Error(err)
		}
	})
}
