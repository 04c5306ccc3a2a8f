package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) watchTests() []test {
	return []test{
		{"Directory", s.testWatchDirectory},
		{"File", s.testWatchFile},
		{"NotBelow", s.testWatchNotBelow},
		{"Recursive", s.testWatchRecursive},
		{"NewTreeOnce", s.testWatchNewTree},
		{"Moves", s.testWatchMoves},
		{"MovedDirectory", s.testWatchMovedDirectory},
		{"ThroughLink", s.testWatchLink},
		{"RootRemoved", s.testWatchRemoved},
		{"ContextEnds", s.testWatchContext},
		{"StopEnds", s.testWatchStop},
		{"SandboxEnds", s.testWatchSandboxEnds},
		{"Refused", s.testWatchRefused},
	}
}

// watched gathers what a watch tells, one line for each change, without access.
type watched struct {
	suite *suite
	root  string
	lines chan string
	err   chan error // how it ended
	stop  context.CancelFunc
}

// watch starts to watch dir/name. Names in the lines are below dir.
func (s *suite) watch(t *testing.T, sb *sandbox.Sandbox, dir, name string, recursive bool) *watched {
	t.Helper()
	ctx, stop := context.WithCancel(s.context(t))
	seq, err := sb.FSAt(ctx, dir).Watch(name, recursive)
	s.needs(t, Watching, err)
	w := &watched{suite: s, root: strings.TrimSuffix(dir, "/") + "/", lines: make(chan string, 1<<16), err: make(chan error, 1), stop: stop}
	go func() {
		for change, err := range seq {
			if err != nil {
				w.err <- err
				break
			}
			if change.Op != sandbox.ChangeAccess {
				w.lines <- w.line(change)
			}
		}
		close(w.lines)
	}()
	t.Cleanup(func() {
		stop()
		for range w.lines { // until it has ended
		}
	})
	return w
}

var changeNames = map[sandbox.ChangeOp]string{
	sandbox.ChangeCreate: "create", sandbox.ChangeModify: "modify", sandbox.ChangeRemove: "remove",
	sandbox.ChangeRename: "rename", sandbox.ChangeOverflow: "overflow",
}

func (w *watched) line(c sandbox.Change) string {
	line := changeNames[c.Op]
	for _, name := range c.Names {
		if name = strings.TrimPrefix(name, w.root); name == "" {
			name = "-"
		}
		line += " " + name
	}
	return line
}

// until gathers lines up to the one wanted.
func (w *watched) until(t *testing.T, want string) (lines []string) {
	t.Helper()
	ctx := w.suite.context(t)
	for {
		select {
		case line, ok := <-w.lines:
			if !ok {
				t.Fatalf("the watch has ended before %q: %q", want, lines)
			}
			lines = append(lines, line)
			if line == want {
				return lines
			}
		case <-ctx.Done():
			t.Fatalf("no %q: %q", want, lines)
		}
	}
}

// end waits for the end and returns its error.
func (w *watched) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-w.err:
		return err
	case <-w.suite.context(t).Done():
		t.Fatal("the watch does not end")
		return nil
	}
}

// without leaves out the lines about content and metadata, of which there may be
// any number.
func without(lines []string, prefix string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.HasPrefix(l, prefix) })
}

func wantLines(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (s *suite) testWatchDirectory(t *testing.T) {
	dir, _ := s.dir(t)
	s.sh(t, s.shared, `cd "$1" && echo old > there`, dir)
	w := s.watch(t, s.shared, dir, ".", false)
	s.sh(t, s.shared, `cd "$1" && echo one > f && echo two >> there && mkdir d && rm f && rmdir d && touch "odd
name" && touch end`, dir)
	lines := w.until(t, "create end")
	wantLines(t, "changes", without(lines, "modify"),
		"create f", "create d", "remove f", "remove d", "create odd\nname", "create end")
	for _, want := range []string{"modify f", "modify there"} {
		if !slices.Contains(lines, want) {
			t.Errorf("no %q in %q", want, lines)
		}
	}
}

func (s *suite) testWatchFile(t *testing.T) {
	dir, _ := s.dir(t)
	s.sh(t, s.shared, `cd "$1" && echo old > f && echo old > other`, dir)
	w := s.watch(t, s.shared, dir, "f", false)
	s.sh(t, s.shared, `cd "$1" && echo more > other && echo more >> f`, dir)
	wantLines(t, "changes", w.until(t, "modify f"), "modify f")
	s.sh(t, s.shared, `rm "$1/f"`, dir)
	w.until(t, "remove f")
	isErr(t, "the end", w.end(t), fs.ErrNotExist)
}

func (s *suite) testWatchNotBelow(t *testing.T) {
	dir, _ := s.dir(t)
	s.sh(t, s.shared, `mkdir "$1/d"`, dir)
	w := s.watch(t, s.shared, dir, ".", false)
	s.sh(t, s.shared, `cd "$1" && echo x > d/f && ls d && rm d/f && touch end`, dir)
	wantLines(t, "changes", w.until(t, "create end"), "create end")
}

func (s *suite) testWatchRecursive(t *testing.T) {
	dir, _ := s.dir(t)
	s.sh(t, s.shared, `mkdir -p "$1/a/b/c"`, dir)
	w := s.watch(t, s.shared, dir, ".", true)
	s.sh(t, s.shared, `cd "$1" && touch a/b/c/f && rm a/b/c/f && rmdir a/b/c && mkdir a/n`, dir)
	lines := w.until(t, "create a/n")
	wantLines(t, "changes", without(lines, "modify"), "create a/b/c/f", "remove a/b/c/f", "remove a/b/c", "create a/n")
	s.sh(t, s.shared, `cd "$1" && touch a/n/f && mkdir a/b/c && touch a/b/c/again`, dir)
	lines = without(w.until(t, "create a/b/c/again"), "modify")
	wantLines(t, "changes in directories that are new", lines, "create a/n/f", "create a/b/c", "create a/b/c/again")
}

// testWatchNewTree makes trees while they are watched: each file is told once.
func (s *suite) testWatchNewTree(t *testing.T) {
	dir, _ := s.dir(t)
	w := s.watch(t, s.shared, dir, ".", true)
	s.sh(t, s.shared, `cd "$1" && for i in 1 2 3 4 5 6 7 8 9 10; do
		mkdir -p t$i/a/b t$i/c && touch t$i/f t$i/a/f t$i/a/b/f t$i/c/f t$i/c/g; done; touch end`, dir)
	got := without(w.until(t, "create end"), "modify")
	var want []string
	for i := 1; i <= 10; i++ {
		for _, name := range []string{"", "/a", "/a/b", "/c", "/f", "/a/f", "/a/b/f", "/c/f", "/c/g"} {
			want = append(want, fmt.Sprintf("create t%d%s", i, name))
		}
	}
	want = append(want, "create end")
	slices.Sort(got)
	slices.Sort(want)
	wantLines(t, "changes", got, want...)
}

func (s *suite) testWatchMoves(t *testing.T) {
	dir, _ := s.dir(t)
	s.sh(t, s.shared, `cd "$1" && mkdir -p in/d out && touch in/f in/gone out/new`, dir)
	w := s.watch(t, s.shared, dir, "in", true)
	s.sh(t, s.shared, `cd "$1" && mv in/f in/d/g && mv in/gone out/ && mv out/new in/ && touch in/end`, dir)
	s.wantMoves(t, without(w.until(t, "create in/end"), "modify"),
		"rename in/f in/d/g", "rename in/gone -", "rename - in/new", "create in/end")
}

// wantMoves is wantLines where a driver may tell of what moves over the border of
// what is watched as a change of it, which is left out already.
func (s *suite) wantMoves(t *testing.T, got []string, want ...string) {
	t.Helper()
	inside := slices.DeleteFunc(slices.Clone(want), func(line string) bool {
		return strings.HasPrefix(line, "rename - ") || strings.HasSuffix(line, " -")
	})
	if slices.Equal(got, inside) {
		s.lacks(t, WatchingMoves, "a file that moves out or in is told as modified")
	}
	wantLines(t, "changes", got, want...)
}

func (s *suite) testWatchMovedDirectory(t *testing.T) {
	dir, _ := s.dir(t)
	s.sh(t, s.shared, `cd "$1" && mkdir -p in/d/e in/leaves/e out/comes && touch out/comes/f`, dir)
	w := s.watch(t, s.shared, dir, "in", true)
	s.sh(t, s.shared, `cd "$1" && mv in/d in/moved && touch in/moved/e/f && mv in/leaves out/ && touch out/leaves/e/f &&
		mv out/comes in/`, dir)
	s.wantMoves(t, without(w.until(t, "create in/comes/f"), "modify"),
		"rename in/d in/moved", "create in/moved/e/f", "rename in/leaves -", "rename - in/comes", "create in/comes/f")
	s.sh(t, s.shared, `cd "$1" && touch in/comes/g out/leaves/g in/end`, dir)
	wantLines(t, "changes", without(w.until(t, "create in/end"), "modify"), "create in/comes/g", "create in/end")
}

func (s *suite) testWatchLink(t *testing.T) {
	dir, _ := s.dir(t)
	s.sh(t, s.shared, `cd "$1" && mkdir -p real/d && ln -s real link && ln -s /proc real/d/kernel`, dir)
	w := s.watch(t, s.shared, dir, "link", true)
	s.sh(t, s.shared, `cd "$1" && touch link/d/f`, dir)
	wantLines(t, "changes", without(w.until(t, "create real/d/f"), "modify"), "create real/d/f")
}

func (s *suite) testWatchRemoved(t *testing.T) {
	dir, _ := s.dir(t)
	s.sh(t, s.shared, `mkdir -p "$1/d/e"`, dir)
	for _, recursive := range []bool{false, true} {
		s.sh(t, s.shared, `mkdir -p "$1/d/e"`, dir)
		w := s.watch(t, s.shared, dir, "d", recursive)
		s.sh(t, s.shared, `rm -r "$1/d"`, dir)
		isErr(t, fmt.Sprintf("the end, recursive %v", recursive), w.end(t), fs.ErrNotExist)
	}
	s.sh(t, s.shared, `mkdir -p "$1/d/e"`, dir)
	w := s.watch(t, s.shared, dir, "d", true)
	s.sh(t, s.shared, `mv "$1/d" "$1/elsewhere"`, dir)
	isErr(t, "the end after a move", w.end(t), fs.ErrNotExist)
}

func (s *suite) testWatchContext(t *testing.T) {
	dir, _ := s.dir(t)
	w := s.watch(t, s.shared, dir, ".", true)
	s.sh(t, s.shared, `touch "$1/f"`, dir)
	w.until(t, "create f")
	w.stop()
	isErr(t, "the end", w.end(t), context.Canceled)
}

func (s *suite) testWatchStop(t *testing.T) {
	dir, fsys := s.dir(t)
	for range 20 {
		seq, err := fsys.Watch(".", true)
		s.needs(t, Watching, err)
		s.sh(t, s.shared, `mkdir "$1/d" && rmdir "$1/d"`, dir)
		for _, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		for _, err := range seq {
			if err == nil {
				t.Fatal("a sequence that was left gives another change")
			}
			break
		}
	}
}

func (s *suite) testWatchSandboxEnds(t *testing.T) {
	sb := s.create(t, nil)
	w := s.watch(t, sb, sb.Dir(), ".", true)
	s.sh(t, sb, "touch f")
	w.until(t, "create f")
	if err := sb.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	isErr(t, "the end", w.end(t), sandbox.ErrEnded)
	_, err := sb.FS(s.context(t)).Watch(".", false)
	isErr(t, "watch after the end", err, sandbox.ErrEnded)
}

func (s *suite) testWatchRefused(t *testing.T) {
	dir, fsys := s.dir(t)
	_, err := fsys.Watch("nothing", false)
	if errors.Is(err, errors.ErrUnsupported) {
		s.needs(t, Watching, err)
	}
	isErr(t, "watch what is not there", err, fs.ErrNotExist)
	s.sh(t, s.shared, `cd "$1" && ln -s /proc/self p && ln -s nowhere broken && mkfifo fifo`, dir)
	_, err = fsys.Watch("p", false)
	isErr(t, "watch a file of the kernel's", err, fs.ErrPermission)
	_, err = fsys.Watch("broken", true)
	isErr(t, "watch through a link to nowhere", err, fs.ErrNotExist)
	if _, err = fsys.Watch("fifo", false); err == nil {
		t.Error("a FIFO can be watched")
	}
}
