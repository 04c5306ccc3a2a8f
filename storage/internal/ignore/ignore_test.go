package ignore

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		patterns string
		matched  string
		not      string
	}{
		{"*.log", "x.log a/b/y.log .log", "x.logs log"},
		{"/build/", "build/ build/x build/a/b", "a/build/ build"},
		{"cache/", "cache/ a/cache/ a/cache/x", "cache a/cache"},
		{"a/b", "a/b a/b/c", "x/a/b"},
		{"**/b", "b a/b x/a/b", "ab"},
		{"a/**", "a/b a/b/c", "a/ a b"},
		{"a/**/b", "a/b a/x/b a/x/y/b", "ab"},
		{"*.log\n!keep.log", "x.log", "keep.log a/keep.log"},
		{"dir/\n!dir/keep", "dir/ dir/keep", "keep"},
		{`\#x` + "\n" + `\!y`, "#x !y", "x y"},
		{"[a-c]x\n[!d]y\n[[:digit:]]z", "ax cx ay 7z", "dx dy az"},
		{"x?z", "xyz", "xz x/z"},
		{"a*/b", "a/b axx/b", "a/x/b"},
		{"# comment\n\n   \nfoo  ", "foo", "bar"},
		{"new\\line", "newline", ""},
		{"a**b", "ab axxb", "a/b"},
	} {
		m, err := New(strings.Split(test.patterns, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		for want, paths := range map[bool]string{true: test.matched, false: test.not} {
			for path := range strings.SplitSeq(paths, " ") {
				clean, isDir := strings.CutSuffix(path, "/")
				if clean != "" && m.Match(clean, isDir) != want {
					t.Errorf("%q: %q is matched: %v, want %v", test.patterns, path, !want, want)
				}
			}
		}
	}
}

func TestBadPatterns(t *testing.T) {
	for _, p := range []string{`a\`, "a\nb", "a\x00"} {
		if _, err := New([]string{"ok", p}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", p)) {
			t.Errorf("pattern %q: %v", p, err)
		}
	}
	var none *Matcher
	if none.Match("x", false) {
		t.Error("nil matches")
	}
}

// random makes a pattern or a path of few letters, so that they meet often.
func random(rng *rand.Rand, from []string, most int) string {
	var b strings.Builder
	for range 1 + rng.IntN(most) {
		b.WriteString(from[rng.IntN(len(from))])
	}
	return b.String()
}

// TestAgainstGit asks git the same.
func TestAgainstGit(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is absent; install it (Debian: apt-get install git)")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	parts := []string{"a", "b", "ab", "*", "**", "?", "/", "/", "[ab]", "[!a]", "[a-b]", "!", `\a`, `\ `, "#", " ", "**/", "/**", "/**/", "*a", ".", "[[:alpha:]]"}
	for range 60 {
		var patterns []string
		for range 1 + rng.IntN(4) {
			patterns = append(patterns, random(rng, parts, 4))
		}
		m, err := New(patterns)
		if err != nil {
			t.Fatal(err)
		}
		var paths []string
		for range 40 {
			path := filepath.Clean(random(rng, []string{"a", "b", "ab", "c", "/", "#", "!", " "}, 6))
			if path = strings.Trim(path, "/"); path != "" && path != "." {
				paths = append(paths, path)
			}
		}
		compare(t, git, patterns, paths, m)
	}
}

// compare asks git about paths that do not exist, which are files to it, and then
// about the same ones as directories.
func compare(t *testing.T, git string, patterns, paths []string, m *Matcher) {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command(git, "init", "-q", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte(strings.Join(patterns, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, isDir := range []bool{false, true} {
		cmd := exec.Command(git, "-C", dir, "check-ignore", "-z", "--stdin", "--no-index")
		cmd.Stdin = strings.NewReader(strings.Join(paths, "\x00"))
		out, _ := cmd.Output() // 1 is that none is ignored
		ignored := map[string]bool{}
		for p := range strings.SplitSeq(string(out), "\x00") {
			ignored[p] = true
		}
		for _, p := range paths {
			if got, want := m.Match(p, isDir), ignored[p]; got != want {
				t.Errorf("patterns %q, path %q, directory %v: ignored %v, git says %v", patterns, p, isDir, got, want)
			}
			if err := os.MkdirAll(filepath.Join(dir, p), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("*.log\n!a/**/b", "a/x/b")
	f.Add(`[a-\]]`, "a")
	f.Add("**/**/**/**/*a*a*a*b", strings.Repeat("a/", 50))
	f.Fuzz(func(t *testing.T, patterns, path string) {
		if len(patterns) > 100 || len(path) > 200 {
			return // longer ones only take longer
		}
		m, err := New(strings.Split(patterns, "\n"))
		if err != nil {
			return
		}
		if m.Match(path, false) && !m.Match(path, true) {
			t.Errorf("%q ignores the file %q, but not the directory", patterns, path)
		}
	})
}
