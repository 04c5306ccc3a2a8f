//go:build unix

package claudetest_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

// A message that comes while a tool runs is part of the same turn.
func TestPromptedDoesWhatIsQueued(t *testing.T) {
	w := newWorkspace(t)
	if err := syscall.Mkfifo(w.path("go-on"), 0o600); err != nil {
		t.Skipf("needs FIFOs: %v", err)
	}
	srv := claudetest.Start(t, claudetest.Prompted())
	cmd := w.command(t, srv, "--input-format=stream-json")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := newLines(t, stdout)
	say := func(content string) {
		_, _ = fmt.Fprintf(stdin, `{"type":"user","message":{"role":"user","content":%q}}`+"\n", content)
	}
	say("run: cat go-on")
	out.until(`"tool_use"`)
	say("write later.txt: yes")
	_, _ = fmt.Fprintln(stdin, `{"type":"control_request","request_id":"1","request":{"subtype":"mcp_status"}}`)
	out.until(`"control_response"`) // so the message before it was read
	if err := os.WriteFile(w.path("go-on"), nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := stdin.Close(); err != nil {
		t.Error(err)
	}
	if got := out.until(`"type":"result"`); !strings.Contains(string(got), "Wrote later.txt.") {
		t.Errorf("got %s", got)
	}
	_, _ = io.Copy(io.Discard, stdout)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	w.wantFile(t, "later.txt", "yes")
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
