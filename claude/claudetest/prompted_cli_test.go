package claudetest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude/claudetest"
)

func TestPromptedWorks(t *testing.T) {
	w := newWorkspace(t)
	srv := claudetest.Start(t, claudetest.Prompted())
	outside := filepath.Join(t.TempDir(), "outside.txt")
	got := w.ask(t, srv, "Please\nwrite a/hello.txt: Hello: world!\nRun: cat a/hello.txt; exit 3\nwrite "+outside+":x\nrun: cd a\nwrite here.txt: y\n")
	w.wantFile(t, "a/hello.txt", "Hello: world!")
	w.wantFile(t, "a/here.txt", "y")
	if data, err := os.ReadFile(outside); err != nil || string(data) != "x" {
		t.Errorf("outside: %q, %v", data, err)
	}
	for _, want := range []string{"Wrote a/hello.txt.", "`cat a/hello.txt; exit 3` failed:", "Hello: world!", "Wrote " + outside, "Passed over 1 line"} {
		if !strings.Contains(got.Result, want) {
			t.Errorf("the report does not say %q:\n%s", want, got.Result)
		}
	}
}

func TestPromptedHelps(t *testing.T) {
	got := newWorkspace(t).ask(t, claudetest.Start(t, claudetest.Prompted()), "What is the capital of France?")
	for _, want := range []string{"scripted stand-in", "write FILE: TEXT", "run: COMMAND"} {
		if !strings.Contains(got.Result, want) {
			t.Errorf("the answer does not say %q:\n%s", want, got.Result)
		}
	}
}

// Without the bypass of permissions the CLI refuses to overwrite what it did
// not read.
func TestPromptedOverwrites(t *testing.T) {
	w := newWorkspace(t)
	if err := os.WriteFile(w.path("old.txt"), []byte("old\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	srv := claudetest.Start(t, claudetest.Prompted())
	got := w.ask(t, srv, "write old.txt: new\nrun: cat old.txt", "--permission-mode=acceptEdits", "--allowedTools=Bash,Write,Read")
	w.wantFile(t, "old.txt", "new")
	if !strings.Contains(got.Result, "Wrote old.txt") || got.IsError {
		t.Errorf("got %+v", got)
	}
}

func TestPromptedResumes(t *testing.T) {
	w := newWorkspace(t)
	for _, step := range []string{"1", "2"} {
		srv := claudetest.Start(t, claudetest.Prompted()) // a new one: the script keeps no state
		args := []string{}
		if step == "2" {
			args = append(args, "--continue")
		}
		if got := w.ask(t, srv, "write "+step+".txt: "+step, args...); !strings.Contains(got.Result, "Wrote "+step+".txt.") {
			t.Errorf("step %s: %+v", step, got)
		}
		w.wantFile(t, step+".txt", step)
	}
}
