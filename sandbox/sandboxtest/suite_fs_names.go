package sandboxtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

func (s *suite) testLinks(t *testing.T) {
	dir, fsys := s.dir(t)
	must(t, fsys.MkdirAll("d", 0o755))
	must(t, fsys.WriteFile("d/f", []byte("linked"), 0o644))
	links := map[string]string{"rel": "d/f", "abs": dir + "/d/f", "d/up": "../d/f", "dir": "d"}
	through := []string{"rel", "d/up", "dir/f", "dir/up", "abs"}
	if !s.isolated(t) { // an absolute path is one of this machine
		delete(links, "abs")
		through = through[:4]
	}
	for name, target := range links {
		must(t, fsys.Symlink(target, name))
		got, err := fsys.ReadLink(name)
		if err != nil || got != target {
			t.Errorf("ReadLink %s: %q, %v; want %q", name, got, err, target)
		}
		info, err := fsys.Lstat(name)
		if err != nil || info.Mode().Type() != fs.ModeSymlink {
			t.Errorf("Lstat %s: %v, %v", name, info, err)
		}
	}
	for _, name := range through {
		got, err := fsys.ReadFile(name)
		if err != nil || string(got) != "linked" {
			t.Errorf("through %s: %q, %v", name, got, err)
		}
		info, err := fsys.Stat(name)
		if err != nil || !info.Mode().IsRegular() || info.Size() != 6 {
			t.Errorf("Stat %s: %v, %v", name, info, err)
		}
	}
	isErr(t, "a link that is there", fsys.Symlink("x", "rel"), fs.ErrExist)
	must(t, fsys.Symlink("nowhere", "dangling"))
	_, err := fsys.Stat("dangling")
	isErr(t, "a dangling link", err, fs.ErrNotExist)
	if _, err := fsys.ReadLink("d/f"); err == nil {
		t.Error("ReadLink of a file")
	}
	must(t, fsys.Remove("rel"))
	if _, err := fsys.Stat("d/f"); err != nil {
		t.Errorf("removing a link removed its target: %v", err)
	}
}

// testLinkEscape: a file of this machine that the sandbox cannot see must not
// be reachable by any name or link.
func (s *suite) testLinkEscape(t *testing.T) {
	if !s.isolated(t) {
		s.lacks(t, Isolation, "sandboxes are plain processes")
	}
	outside := t.TempDir() + "/host-file"
	must(t, os.WriteFile(outside, []byte("host"), 0o644))
	_, fsys := s.dir(t)
	must(t, fsys.Symlink(outside, "abs"))
	must(t, fsys.Symlink(strings.Repeat("../", 40)+outside[1:], "rel"))
	must(t, fsys.Symlink("/proc/1/root"+outside, "proc"))
	must(t, fsys.Symlink("/proc/self/cwd", "self"))
	for _, name := range []string{"abs", "rel", "proc", "self/go.mod", "self"} {
		if got, err := fsys.ReadFile(name); err == nil {
			t.Errorf("read %q through %s", got, name)
		}
		if err := fsys.WriteFile(name, []byte("overwritten"), 0o644); err == nil && name == "proc" {
			t.Errorf("wrote through %s", name)
		}
	}
	got, err := os.ReadFile(outside)
	if err != nil || string(got) != "host" {
		t.Fatalf("the file outside now holds %q, %v", got, err)
	}
}

func (s *suite) testLinkLoop(t *testing.T) {
	_, fsys := s.dir(t)
	must(t, fsys.Symlink("b", "a"))
	must(t, fsys.Symlink("a", "b"))
	if _, err := fsys.Stat("a"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a loop of links: %v", err)
	}
	if _, err := fsys.ReadFile("a/x"); err == nil {
		t.Error("read through a loop of links")
	}
}

func (s *suite) testRemoveAllLinks(t *testing.T) {
	dir, fsys := s.dir(t)
	must(t, fsys.MkdirAll("keep/deep", 0o755))
	must(t, fsys.WriteFile("keep/deep/f", nil, 0o644))
	must(t, fsys.MkdirAll("gone", 0o755))
	must(t, fsys.Symlink(dir+"/keep", "gone/abs"))
	must(t, fsys.Symlink("../keep", "gone/rel"))
	must(t, fsys.Symlink("keep", "link"))
	must(t, fsys.RemoveAll("gone"))
	must(t, fsys.RemoveAll("link"))
	_, err := fsys.Stat("keep/deep/f")
	must(t, err)
}

func (s *suite) testOddNames(t *testing.T) {
	dir, fsys := s.dir(t)
	names := []string{
		" ", "a b", "-rf", "'", `"`, `back\slash`, "$HOME", "*", "new\nline", "tab\t", "ünï🌱", "...", "..a", "a.",
		"%s%n", "CON", strings.Repeat("n", 255), "\x01", "~", "#", "a:b", "é", "e\u0301",
	}
	for _, name := range names {
		must(t, fsys.WriteFile(name, []byte(name), 0o644))
	}
	entries, err := fsys.ReadDir(".")
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
		data, err := fsys.ReadFile(e.Name())
		if err != nil || string(data) != e.Name() {
			t.Errorf("%q holds %q, %v", e.Name(), data, err)
		}
	}
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("ReadDir: got %q, want %q", got, names)
	}
	if err := fsys.WriteFile(strings.Repeat("n", 256), nil, 0o644); err == nil {
		t.Error("wrote a name of 256 bytes")
	}
	deep := strings.TrimSuffix(strings.Repeat(strings.Repeat("d", 100)+"/", 30), "/")
	must(t, fsys.MkdirAll(deep, 0o755))
	must(t, fsys.WriteFile(deep+"/f", nil, 0o644))
	s.sh(t, s.shared, `rm -r "$1"`, dir+"/"+strings.Repeat("d", 100))
}

func (s *suite) testInvalidNames(t *testing.T) {
	_, fsys := s.dir(t)
	for _, name := range []string{"", "/", "/etc/passwd", "..", "../x", "a/../b", "a//b", "a/", "./a", "a\x00b"} {
		_, err := fsys.Open(name)
		isErr(t, fmt.Sprintf("open %q", name), err, fs.ErrInvalid)
		isErr(t, fmt.Sprintf("write %q", name), fsys.WriteFile(name, nil, 0o644), fs.ErrInvalid)
		isErr(t, fmt.Sprintf("remove %q", name), fsys.RemoveAll(name), fs.ErrInvalid)
		isErr(t, fmt.Sprintf("rename to %q", name), fsys.Rename("x", name), fs.ErrInvalid)
	}
}

func (s *suite) testSpecial(t *testing.T) {
	dir, fsys := s.dir(t)
	s.sh(t, s.shared, `mkfifo "$1/fifo"; ln -s fifo "$1/link"`, dir)
	for _, name := range []string{"fifo", "link"} {
		for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR} {
			if f, err := fsys.OpenFile(name, flag, 0); err == nil {
				_ = f.Close()
				t.Errorf("opened a FIFO as a file (%s, flag %d)", name, flag)
			}
		}
	}
	info, err := fsys.Stat("fifo")
	if err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		t.Errorf("Stat of a FIFO: %v, %v", info, err)
	}
	must(t, fsys.Remove("fifo"))
}

// refusedFile: a kernel's file is refused, or is not there at all.
func refusedFile(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: got %v, want one that matches fs.ErrPermission", what, err)
	}
}

func second[T any](_ T, err error) error { return err }

func (s *suite) testKernelFiles(t *testing.T) {
	_, fsys := s.dir(t)
	root := s.shared.FSAt(s.context(t), "/")
	must(t, fsys.Symlink("/proc", "p"))
	must(t, fsys.Symlink("/dev/null", "n"))
	for _, name := range []string{"proc/self/environ", "proc/1/cmdline", "proc/version", "sys/kernel/hostname", "dev/null", "dev/tty"} {
		refusedFile(t, "read /"+name, second(root.ReadFile(name)))
	}
	refusedFile(t, "write /proc/sys/kernel/hostname", root.WriteFile("proc/sys/kernel/hostname", []byte("x"), 0o644))
	refusedFile(t, "readdir /proc", second(root.ReadDir("proc")))
	if _, err := fsys.ReadFile("p/self/environ"); err == nil {
		t.Error("read /proc/self/environ through a link")
	}
	if _, err := fsys.ReadFile("n"); err == nil {
		t.Error("read /dev/null through a link")
	}
}
