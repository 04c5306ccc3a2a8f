package sandboxtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) fsTests() []test {
	return []test{
		{"TestFS", s.testFSTest},
		{"WriteAndRead", s.testWriteRead},
		{"OpenFlags", s.testOpenFlags},
		{"SeekAndReadAt", s.testSeek},
		{"Mkdir", s.testMkdir},
		{"Rename", s.testRename},
		{"Remove", s.testRemove},
		{"Modes", s.testModes},
		{"Times", s.testTimes},
		{"Links", s.testLinks},
		{"LinksNameNothingOutside", s.testLinkEscape},
		{"LinkLoops", s.testLinkLoop},
		{"RemoveAllFollowsNoLinks", s.testRemoveAllLinks},
		{"OddNames", s.testOddNames},
		{"InvalidNames", s.testInvalidNames},
		{"SpecialFilesAreRefused", s.testSpecial},
		{"KernelFilesAreRefused", s.testKernelFiles},
		{"PermissionOfTheSandboxsUser", s.testPermission},
		{"FilesBelongToTheSandboxsUser", s.testOwner},
		{"LargeFile", s.testLargeFile},
		{"ManyEntries", s.testManyEntries},
		{"Errors", s.testFSErrors},
		{"AtOnce", s.testFSConcurrent},
		{"Sub", s.testSub},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *suite) testFSTest(t *testing.T) {
	dir, fsys := s.dir(t)
	files := []string{"a.txt", "empty", "d/b.txt", "d/e/c.txt", "d/e/f/g"}
	must(t, fsys.MkdirAll("d/e/f", 0o755))
	for _, name := range files {
		must(t, fsys.WriteFile(name, []byte("content of "+name), 0o644))
	}
	must(t, fsys.WriteFile("empty", nil, 0o644))
	s.sh(t, s.shared, `cd "$1" && ln -s ../a.txt d/link`, dir)
	if err := fstest.TestFS(fsys, append(files, "d/link")...); err != nil {
		t.Error(err)
	}
}

func (s *suite) testWriteRead(t *testing.T) {
	dir, fsys := s.dir(t)
	must(t, fsys.WriteFile("f", []byte("from outside"), 0o644))
	equal(t, "read inside", s.sh(t, s.shared, `cat "$1/f"`, dir), "from outside")
	s.sh(t, s.shared, `printf 'from inside' > "$1/g"`, dir)
	got, err := fsys.ReadFile("g")
	if err != nil || string(got) != "from inside" {
		t.Errorf("read outside: %q, %v", got, err)
	}
	must(t, fsys.WriteFile("f", []byte("short"), 0o644))
	got, err = fs.ReadFile(fsys, "f")
	if err != nil || string(got) != "short" {
		t.Errorf("written again: %q, %v", got, err)
	}
	if !s.isolated(t) {
		return // what is beside the sandbox's own files is this machine's
	}
	got, err = s.shared.FSAt(s.context(t), "/etc").ReadFile("passwd")
	if err != nil || len(got) == 0 {
		t.Errorf("/etc/passwd of the sandbox: %d bytes, %v", len(got), err)
	}
}

func (s *suite) testOpenFlags(t *testing.T) {
	_, fsys := s.dir(t)
	write := func(flag int, text string) error {
		f, err := fsys.OpenFile("f", flag, 0o600)
		if err != nil {
			return err
		}
		_, err = io.WriteString(f, text)
		return errors.Join(err, f.Close())
	}
	isErr(t, "write to nothing", write(os.O_WRONLY, "x"), fs.ErrNotExist)
	must(t, write(os.O_WRONLY|os.O_CREATE|os.O_EXCL, "one"))
	isErr(t, "exclusive, again", write(os.O_WRONLY|os.O_CREATE|os.O_EXCL, "x"), fs.ErrExist)
	must(t, write(os.O_WRONLY|os.O_APPEND, "two"))
	must(t, write(os.O_WRONLY, "ON"))
	if err := write(os.O_RDONLY, "x"); err == nil {
		t.Error("wrote to a file opened for reading")
	}
	got, err := fsys.ReadFile("f")
	if err != nil || string(got) != "ONetwo" {
		t.Errorf("got %q, %v; want ONetwo", got, err)
	}
	must(t, write(os.O_WRONLY|os.O_TRUNC, ""))
	info, err := fsys.Stat("f")
	if err != nil || info.Size() != 0 || info.Mode() != 0o600 {
		t.Errorf("after truncation: %v, %v", info, err)
	}
	f, err := fsys.OpenFile("f", os.O_WRONLY, 0)
	must(t, err)
	if _, err := f.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read from a file opened for writing: %v", err)
	}
	must(t, f.Close())
	isErr(t, "close again", f.Close(), fs.ErrClosed)
	_, err = f.Write([]byte("x"))
	isErr(t, "write after close", err, fs.ErrClosed)
	if _, err := fsys.OpenFile(".", os.O_RDWR, 0); err == nil {
		t.Error("opened a directory for writing")
	}
}

func (s *suite) testSeek(t *testing.T) {
	_, fsys := s.dir(t)
	f, err := fsys.Create("f")
	must(t, err)
	defer f.Close()
	_, err = io.WriteString(f, "0123456789")
	must(t, err)
	at, err := f.Seek(-4, io.SeekEnd)
	must(t, err)
	equal(t, "offset", at, 6)
	rest, err := io.ReadAll(f)
	if err != nil || string(rest) != "6789" {
		t.Errorf("after Seek: %q, %v", rest, err)
	}
	buf := make([]byte, 4)
	n, err := f.ReadAt(buf, 2)
	if n != 4 || err != nil || string(buf) != "2345" {
		t.Errorf("ReadAt: %q, %v", buf[:n], err)
	}
	n, err = f.ReadAt(buf, 8)
	if n != 2 || err != io.EOF {
		t.Errorf("ReadAt over the end: %d, %v; want 2, EOF", n, err)
	}
	if _, err := f.Seek(-1, io.SeekStart); err == nil {
		t.Error("sought before the start")
	}
	_, err = f.Seek(20, io.SeekStart)
	must(t, err)
	_, err = f.Write([]byte("x"))
	must(t, err)
	info, err := f.Stat()
	if err != nil || info.Size() != 21 || info.Name() != "f" {
		t.Errorf("Stat: %v, %v", info, err)
	}
}

func (s *suite) testMkdir(t *testing.T) {
	_, fsys := s.dir(t)
	must(t, fsys.Mkdir("d", 0o755))
	isErr(t, "mkdir again", fsys.Mkdir("d", 0o755), fs.ErrExist)
	isErr(t, "mkdir below nothing", fsys.Mkdir("x/y", 0o755), fs.ErrNotExist)
	must(t, fsys.MkdirAll("d/e/f", 0o755))
	must(t, fsys.MkdirAll("d/e/f", 0o755))
	must(t, fsys.MkdirAll(".", 0o755))
	must(t, fsys.WriteFile("d/file", nil, 0o644))
	if err := fsys.MkdirAll("d/file/x", 0o755); err == nil {
		t.Error("made a directory below a file")
	}
	if err := fsys.MkdirAll("d/file", 0o755); err == nil {
		t.Error("MkdirAll took a file for a directory")
	}
}

func (s *suite) testRename(t *testing.T) {
	_, fsys := s.dir(t)
	must(t, fsys.WriteFile("a", []byte("a"), 0o644))
	must(t, fsys.WriteFile("b", []byte("b"), 0o644))
	must(t, fsys.Rename("a", "b"))
	got, err := fsys.ReadFile("b")
	if err != nil || string(got) != "a" {
		t.Errorf("replaced file: %q, %v", got, err)
	}
	isErr(t, "the old name", fsys.Rename("a", "c"), fs.ErrNotExist)
	must(t, fsys.MkdirAll("d/e", 0o755))
	must(t, fsys.Rename("d", "f"))
	_, err = fsys.Stat("f/e")
	must(t, err)
	if err := fsys.Rename("f", "f/e/inside"); err == nil {
		t.Error("moved a directory into itself")
	}
	if err := fsys.Rename("b", "f"); err == nil {
		t.Error("replaced a directory by a file")
	}
}

func (s *suite) testRemove(t *testing.T) {
	_, fsys := s.dir(t)
	must(t, fsys.MkdirAll("d/e", 0o755))
	must(t, fsys.WriteFile("d/f", nil, 0o644))
	if err := fsys.Remove("d"); err == nil {
		t.Error("removed a directory that is not empty")
	}
	must(t, fsys.Remove("d/f"))
	must(t, fsys.Remove("d/e"))
	isErr(t, "remove again", fsys.Remove("d/e"), fs.ErrNotExist)
	must(t, fsys.MkdirAll("d/x/y/z", 0o755))
	must(t, fsys.RemoveAll("d"))
	must(t, fsys.RemoveAll("d"))
	must(t, fsys.RemoveAll("never/there"))
	_, err := fsys.Stat("d")
	isErr(t, "stat after RemoveAll", err, fs.ErrNotExist)
}

func (s *suite) testModes(t *testing.T) {
	dir, fsys := s.dir(t)
	must(t, fsys.WriteFile("f", nil, 0o600))
	must(t, fsys.Chmod("f", 0o751))
	info, err := fsys.Stat("f")
	if err != nil || info.Mode() != 0o751 || info.IsDir() {
		t.Errorf("after Chmod: %v, %v", info.Mode(), err)
	}
	equal(t, "mode inside", s.sh(t, s.shared, `stat -c %a "$1/f"`, dir), "751")
	must(t, fsys.Mkdir("d", 0o700))
	if info, err = fsys.Stat("d"); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	isErr(t, "chmod of nothing", fsys.Chmod("nothing", 0o600), fs.ErrNotExist)
}

func (s *suite) testTimes(t *testing.T) {
	dir, fsys := s.dir(t)
	must(t, fsys.WriteFile("f", nil, 0o644))
	when := time.Date(2001, 2, 3, 4, 5, 6, 789000000, time.UTC)
	must(t, fsys.Chtimes("f", when, when))
	info, err := fsys.Stat("f")
	if err != nil || !info.ModTime().Equal(when) {
		t.Errorf("ModTime %v, %v; want %v", info.ModTime(), err, when)
	}
	equal(t, "time inside", s.sh(t, s.shared, `stat -c %Y "$1/f"`, dir), strconv.FormatInt(when.Unix(), 10))
}

func (s *suite) testPermission(t *testing.T) {
	if s.sh(t, s.shared, "id -u") == "0" {
		t.Skip("the sandbox's user is root: there is nothing it may not do")
	}
	_, fsys := s.dir(t)
	must(t, fsys.WriteFile("unreadable", []byte("x"), 0o200))
	_, err := fsys.ReadFile("unreadable")
	isErr(t, "read", err, fs.ErrPermission)
	must(t, fsys.Mkdir("closed", 0o500))
	isErr(t, "write into a directory without w", fsys.WriteFile("closed/f", nil, 0o644), fs.ErrPermission)
	must(t, fsys.Chmod("closed", 0o700))
	root := s.shared.FSAt(s.context(t), "/")
	for _, name := range []string{"usr/new", "etc/new"} {
		if err := root.WriteFile(name, nil, 0o644); err == nil {
			t.Errorf("the sandbox's user wrote /%s", name)
		}
	}
}

func (s *suite) testOwner(t *testing.T) {
	dir, fsys := s.dir(t)
	must(t, fsys.MkdirAll("d/e", 0o755))
	must(t, fsys.WriteFile("d/e/f", nil, 0o644))
	must(t, fsys.Symlink("f", "d/e/l"))
	who := s.sh(t, s.shared, "id -u")
	for _, name := range []string{"d", "d/e", "d/e/f", "d/e/l"} {
		equal(t, "owner of "+name, s.sh(t, s.shared, `stat -c %u "$1"`, dir+"/"+name), who)
	}
}

func (s *suite) testLargeFile(t *testing.T) {
	const size = 64 << 20
	dir, fsys := s.dir(t)
	f, err := fsys.Create("large")
	must(t, err)
	n, err := io.Copy(f, noise(size))
	if err := errors.Join(err, f.Close()); err != nil || n != size {
		t.Fatalf("wrote %d bytes, %v", n, err)
	}
	equal(t, "size inside", s.sh(t, s.shared, `wc -c < "$1/large" | tr -d ' '`, dir), strconv.Itoa(size))
	file, err := fsys.Open("large")
	must(t, err)
	defer file.Close()
	want, got, r := make([]byte, 1<<20), make([]byte, 1<<20), noise(size)
	for range size / len(want) {
		_, err1 := io.ReadFull(r, want)
		_, err2 := io.ReadFull(file, got)
		must(t, errors.Join(err1, err2))
		if !bytes.Equal(want, got) {
			t.Fatal("what was read is not what was written")
		}
	}
	must(t, fsys.Remove("large"))
}

func (s *suite) testManyEntries(t *testing.T) {
	const n = 5000
	dir, fsys := s.dir(t)
	s.sh(t, s.shared, `cd "$1" && i=0; while [ $i -lt 5000 ]; do : > "entry-$i"; i=$((i+1)); done`, dir)
	entries, err := fsys.ReadDir(".")
	must(t, err)
	equal(t, "entries", len(entries), n)
	if !slices.IsSortedFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }) {
		t.Error("the entries are not sorted")
	}
	f, err := fsys.Open(".")
	must(t, err)
	defer f.Close()
	seen := 0
	for {
		part, err := f.(fs.ReadDirFile).ReadDir(700)
		seen += len(part)
		if err == io.EOF {
			break
		}
		must(t, err)
	}
	equal(t, "entries read in parts", seen, n)
}

func (s *suite) testFSErrors(t *testing.T) {
	_, fsys := s.dir(t)
	must(t, fsys.WriteFile("file", nil, 0o644))
	ops := map[string]error{"mkdir": fsys.Mkdir("no/d", 0o755), "remove": fsys.Remove("no"), "chmod": fsys.Chmod("no", 0), "rename": fsys.Rename("no", "x")}
	_, ops["open"] = fsys.Open("no")
	_, ops["stat"] = fsys.Stat("no")
	_, ops["lstat"] = fsys.Lstat("no")
	_, ops["readlink"] = fsys.ReadLink("no")
	_, ops["readdir"] = fsys.ReadDir("no")
	for op, err := range ops {
		isErr(t, op, err, fs.ErrNotExist)
		if pe, ok := errors.AsType[*fs.PathError](err); !ok || pe.Op != op || !strings.HasPrefix(pe.Path, "no") {
			t.Errorf("%s: got %#v, want a PathError with the operation and the caller's name", op, err)
		}
	}
	if _, err := fsys.ReadDir("file"); err == nil {
		t.Error("ReadDir of a file")
	}
	if _, err := fsys.ReadFile("."); err == nil {
		t.Error("ReadFile of a directory")
	}
	if _, err := fsys.ReadFile("file/x"); err == nil {
		t.Error("read below a file")
	}
}

func (s *suite) testFSConcurrent(t *testing.T) {
	_, fsys := s.dir(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 20 {
				name := fmt.Sprintf("f-%d-%d", i, j)
				want := strings.Repeat(name, 500)
				if err := fsys.WriteFile(name, []byte(want), 0o644); err != nil {
					t.Error(err)
				}
				if got, err := fsys.ReadFile(name); err != nil || string(got) != want {
					t.Errorf("%s: %d bytes, %v", name, len(got), err)
				}
				if _, err := fsys.ReadDir("."); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func (s *suite) testSub(t *testing.T) {
	_, fsys := s.dir(t)
	must(t, fsys.MkdirAll("a/b", 0o755))
	must(t, fsys.WriteFile("a/b/f", []byte("deep"), 0o644))
	sub, err := fs.Sub(fsys, "a/b")
	must(t, err)
	got, err := fs.ReadFile(sub, "f")
	if err != nil || string(got) != "deep" {
		t.Errorf("below Sub: %q, %v", got, err)
	}
	if _, ok := sub.(*sandbox.FS); !ok {
		t.Errorf("Sub gives a %T", sub)
	}
}
