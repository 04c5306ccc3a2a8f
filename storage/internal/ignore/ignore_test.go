package ignore_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage/internal/ignore"
)

func compile(t testing.TB, patterns ...string) *ignore.Matcher {
	t.Helper()
	m, err := ignore.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		patterns string // by lines
		path     string // a directory where it ends in a slash
		want     bool
	}{
		{"*.o", "a/b.o", true}, {"*.o", "a/b.oo", false}, {"*.o\n!keep.o", "keep.o", false}, {"!keep.o\n*.o", "keep.o", true},
		{"build/", "build/", true}, {"build/", "build", false}, {"build/", "x/build/y/z", true}, {"build/\n!build/keep", "build/keep", true},
		{"/dist", "dist", true}, {"/dist", "x/dist", false}, {"a/b", "a/b", true}, {"a/b", "x/a/b", false},
		{"**/foo", "foo", true}, {"**/foo", "a/b/foo", true}, {"a/**", "a/b/c", true}, {"a/**", "a", false}, {"a/**/b", "a/b", true}, {"a/**/b", "a/x/y/b", true},
		{"a/*", "a/b/c", true}, {"a/*/c", "a/b/c", true}, {"a/*/c", "a/b/d/c", false}, {"x/foo**/b", "x/fooa/c/b", true},
		{"[a-c]x", "bx", true}, {"[!a-c]x", "bx", false}, {"[]x]y", "]y", true}, {"[[:digit:]]", "7", true}, {`\!a`, "!a", true}, {`\#a`, "#a", true}, {"#a", "#a", false},
		{"a ", "a", true}, {`a\ `, "a ", true}, {"a\r", "a", true}, {"", "a", false}, {"/", "a/", false}, {"a\xff*", "a\xff\xfe", true}, {"*", "a", true},
	} {
		path, isDir := strings.CutSuffix(c.path, "/")
		if got := compile(t, strings.Split(c.patterns, "\n")...).Match(path, isDir); got != c.want {
			t.Errorf("%q on %q: %v", c.patterns, c.path, got)
		}
	}
	var none *ignore.Matcher
	if none.Match("a/b", false) || new(ignore.Matcher).Match("a", true) {
		t.Error("no patterns match something")
	}
}

func TestBadPatternsAreNamed(t *testing.T) {
	for _, bad := range []string{"[a", "[]", "[!]", `a\`, "[[:alpha:]", "[[:nope:]]", `[\`, "a\nb", "a\x00", "[a-", `[a-\`, "!x[", `x[/`} {
		if _, err := ignore.New([]string{"good", bad}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestHardPatternsEnd gives patterns that a simple search would take for ever on.
func TestHardPatternsEnd(t *testing.T) {
	m := compile(t, strings.Repeat("*a", 30)+"b", "x/"+strings.Repeat("*a", 30)+"b", strings.Repeat("**/a/", 12)+"b")
	if m.Match("x/"+strings.Repeat("a", 200), false) || m.Match(strings.Repeat("a/", 24)+"c", false) {
		t.Error("they match")
	}
}

var pieces = []string{"a", "b", "ab", "*", "**", "***", "?", "/", "/", "/", "[a-b]", "[!a]", "[^b-c]", "[]a]", "[[:alpha:]]", `\a`, `\*`, " ", `\ `, ".", "c", "[a/]", "-", "[a-]", `[\]a]`}

func random(rng *rand.Rand, from []string, most int) string {
	var b strings.Builder
	for range 1 + rng.IntN(most) {
		b.WriteString(from[rng.IntN(len(from))])
	}
	return b.String()
}

// TestAgainstGit compares with git itself, over patterns and files made up at random.
func TestAgainstGit(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is absent; install it (Debian: apt-get install git)")
	}
	rng := rand.New(rand.NewPCG(7, 11))
	dir := t.TempDir()
	if out, err := exec.Command(git, "init", "-q", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	paths := plant(t, rng, dir)
	for range 250 {
		var patterns []string
		for range 1 + rng.IntN(3) {
			pattern := random(rng, pieces, 7)
			if rng.IntN(5) == 0 {
				pattern = "!" + pattern
			}
			patterns = append(patterns, pattern)
		}
		compare(t, git, dir, paths, patterns)
	}
	for _, pattern := range []string{"a/b**", "a**/b", "***/b", "a/***/b", `a/**\/b`, "**b", "**/", "/**/b/", "/a/", "a/**/**/b", "*/", "/*\x20"} {
		compare(t, git, dir, paths, []string{pattern})
		compare(t, git, dir, paths, []string{"*", "!" + pattern})
	}
}

// plant makes files, so that git knows what is a directory, and gives their names.
func plant(t *testing.T, rng *rand.Rand, dir string) (paths []string) {
	t.Helper()
	names := []string{"a", "b", "ab", "ba", "c", "aab", "a b", "b ", "*", "]", "-", ".a", "a-b", "abc"}
	for range 150 {
		var parts []string
		for range 1 + rng.IntN(4) {
			parts = append(parts, names[rng.IntN(len(names))])
		}
		path := strings.Join(parts, "/")
		full := filepath.Join(dir, path)
		// Where a file is in the way of a directory, or the other way round, there is none.
		if os.MkdirAll(filepath.Dir(full), 0o755) == nil && os.WriteFile(full, nil, 0o644) == nil {
			for at := range path {
				if path[at] == '/' {
					paths = append(paths, path[:at]+"/")
				}
			}
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func compare(t *testing.T, git, dir string, paths, patterns []string) {
	t.Helper()
	m, err := ignore.New(patterns)
	if err != nil {
		return // patterns that can never match, which git passes over
	}
	if err := os.WriteFile(filepath.Join(dir, ".git", "info", "exclude"), []byte(strings.Join(patterns, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(git, "-C", dir, "check-ignore", "--no-index", "-z", "--stdin")
	// The slash is for us: git sees that it is a directory.
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(strings.Join(paths, "\x00")+"\x00", "/\x00", "\x00"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if cmd.ProcessState.ExitCode() > 1 {
		t.Fatalf("%v: %s", err, &errs)
	}
	ignored := map[string]bool{}
	for path := range strings.SplitSeq(string(out), "\x00") {
		ignored[path] = true
	}
	for _, path := range paths {
		bare, isDir := strings.CutSuffix(path, "/")
		if got := m.Match(bare, isDir); got != ignored[bare] {
			t.Errorf("%q on %q: %v, git %v", patterns, path, got, ignored[bare])
		}
	}
}

// FuzzMatch looks for patterns that panic, and wants one that is plain to match
// itself.
func FuzzMatch(f *testing.F) {
	f.Add("a/**/[b-c]*\n!x?\\ ", "a/b/c")
	f.Add("[[:alpha:]]\n***/x", "\xff/x")
	f.Fuzz(func(t *testing.T, patterns, path string) {
		m, err := ignore.New(strings.Split(patterns, "\n"))
		if err != nil {
			return
		}
		below := path + "/below"
		if m.Match(path, true) && !m.Match(below, false) {
			t.Fatalf("%q ignores %q but not what is below", patterns, path)
		}
		if path != "" && !strings.ContainsAny(path, "*?[\\#! \r\n\x00") && !strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/") {
			if self := compile(t, path); !self.Match(path, false) {
				t.Fatalf("%q does not match itself", path)
			}
		}
	})
}

// BenchmarkMatch is for 100,000 paths and twenty patterns as projects have them.
func BenchmarkMatch(b *testing.B) {
	m := compile(b, "node_modules/", "*.o", "*.pyc", "__pycache__/", ".git/", "/dist", "build/", "*.log", "!keep.log", "docs/**/tmp", "**/cache/*.bin",
		".venv/", "target/", "*.swp", ".DS_Store", "a?b[0-9].txt", "/out/*.x", "coverage/", "*.tmp", "vendor/**/testdata")
	var paths []string
	for i := range 100_000 {
		paths = append(paths, fmt.Sprintf("src/pkg%d/sub%d/file%d.go", i%100, i%1000, i))
	}
	for b.Loop() {
		for _, path := range paths {
			if m.Match(path, false) {
				b.Fatal(path)
			}
		}
	}
}
