package claudetest_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/internal/clitest"
)

// workspace is where a CLI of a test runs: a folder and a home of its own.
type workspace struct{ dir, home string }

func newWorkspace(t *testing.T) workspace {
	t.Helper()
	return workspace{dir: t.TempDir(), home: t.TempDir()}
}

// command is the real CLI, told to use the server and to ask for no permission.
func (w workspace) command(t *testing.T, srv *claudetest.Server, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), clitest.CLI(t).Path, append([]string{
		"--output-format=stream-json", "--verbose", "--dangerously-skip-permissions",
	}, args...)...)
	cmd.Dir = w.dir
	cmd.Env = append(srv.Env(), "HOME="+w.home, "PATH="+os.Getenv("PATH"), "IS_SANDBOX=1")
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// result is the line with which a run of the CLI ends.
type result struct {
	Type           string `json:"type"`
	Subtype        string `json:"subtype"`
	IsError        bool   `json:"is_error"`
	Result         string `json:"result"`
	APIErrorStatus int    `json:"api_error_status"`
	NumTurns       int    `json:"num_turns"`
	Usage          claudetest.Usage
}

// ask runs the CLI with one prompt.
func (w workspace) ask(t *testing.T, srv *claudetest.Server, prompt string, args ...string) result {
	t.Helper()
	cmd := w.command(t, srv, append([]string{"-p", prompt}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	for line := range bytes.Lines(out) {
		var r result
		if json.Unmarshal(line, &r) == nil && r.Type == "result" {
			return r
		}
	}
	t.Fatalf("no result (%v):\n%s%s", err, out, stderr.Bytes())
	return result{}
}

func (w workspace) path(name string) string { return filepath.Join(w.dir, name) }

func (w workspace) wantFile(t *testing.T, name, want string) {
	t.Helper()
	if got, err := os.ReadFile(w.path(name)); err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v, want %q", name, got, err, want)
	}
}

func TestTextAndUsage(t *testing.T) {
	srv := claudetest.Start(t, claudetest.Join(
		claudetest.Tokens(claudetest.Usage{InputTokens: 123, OutputTokens: 45, CacheReadInputTokens: 6, CacheCreationInputTokens: 7}),
		claudetest.Thinking("hm, ", "well"),
		claudetest.Text("Hello", ", ", "world"),
	))
	got := newWorkspace(t).ask(t, srv, "say hello")
	if got.Result != "Hello, world" || got.IsError || got.Subtype != "success" {
		t.Errorf("got %+v", got)
	}
	if want := (claudetest.Usage{InputTokens: 123, OutputTokens: 45, CacheReadInputTokens: 6, CacheCreationInputTokens: 7}); got.Usage != want {
		t.Errorf("usage %+v, want %+v", got.Usage, want)
	}
	requests := srv.Requests(claudetest.Main)
	if len(requests) != 1 || requests[0].Prompt() != "say hello" || requests[0].Key() != "claudetest" || !requests[0].Stream {
		t.Errorf("got requests %+v", requests)
	}
}

func TestTools(t *testing.T) {
	w := newWorkspace(t)
	srv := claudetest.Start(t, claudetest.Sequence(
		claudetest.Join(claudetest.Text("First a file."), claudetest.Tool("Write", map[string]any{"file_path": w.path("a.txt"), "content": "one\ntwo\n"})),
		claudetest.Tool("Edit", map[string]any{"file_path": w.path("a.txt"), "old_string": "two", "new_string": "2"}),
		claudetest.Tool("Read", map[string]any{"file_path": w.path("a.txt")}),
		claudetest.Join( // two at once
			claudetest.Tool("Bash", map[string]any{"command": "wc -l < a.txt"}),
			claudetest.Tool("Bash", map[string]any{"command": "echo oops >&2; exit 3"}),
		),
		func(w *claudetest.Reply, r *claudetest.Request) {
			var answers []string
			for _, result := range r.ToolResults() {
				answers = append(answers, fmt.Sprint(result.IsError, " ", strings.TrimSpace(result.Result)))
			}
			w.Text(strings.Join(answers[3:], "|"))
		},
	))
	got := w.ask(t, srv, "work")
	if want := "false 2|true Exit code 3\noops"; got.Result != want {
		t.Errorf("got %q, want %q", got.Result, want)
	}
	w.wantFile(t, "a.txt", "one\n2\n")
	for i, r := range srv.Requests() {
		if r.Kind != claudetest.Main || r.WorkingDir() != w.dir || r.Prompt() != "work" {
			t.Errorf("request %d is %v in %q for %q", i, r.Kind, r.WorkingDir(), r.Prompt())
		}
	}
}

func TestErrorsReachTheCLI(t *testing.T) {
	for name, test := range map[string]struct {
		script claudetest.Script
		status int
		says   string
	}{
		"overloaded":   {claudetest.Overloaded(), 529, "verloaded"},
		"rate limited": {claudetest.RateLimited(1500 * time.Millisecond), 429, "rate limit"},
		"unauthorised": {claudetest.Error(401, "authentication_error", "invalid x-api-key"), 401, ""},
		"bad request":  {claudetest.Error(400, "invalid_request_error", "no such thing"), 400, "no such thing"},
		"script over":  {claudetest.Sequence(), 418, "the script has 0 replies and this is request 1"},
	} {
		t.Run(name, func(t *testing.T) {
			got := newWorkspace(t).ask(t, claudetest.Start(t, test.script), "try")
			if !got.IsError || got.APIErrorStatus != test.status || !strings.Contains(got.Result, test.says) {
				t.Errorf("got %+v, want status %d that says %q", got, test.status, test.says)
			}
		})
	}
}

func TestRetryTakesTheNextScript(t *testing.T) {
	for name, first := range map[string]claudetest.Script{
		"overloaded":       claudetest.Overloaded(),
		"rate limited":     claudetest.RateLimited(0),
		"error mid-stream": claudetest.Join(claudetest.Text("par"), claudetest.Error(529, "overloaded_error", "Overloaded")),
	} {
		t.Run(name, func(t *testing.T) {
			srv := claudetest.Start(t, claudetest.Sequence(first, claudetest.Text("second try")))
			w := newWorkspace(t)
			cmd := w.command(t, srv, "-p", "try")
			cmd.Env = append(cmd.Env, "CLAUDE_CODE_MAX_RETRIES=2")
			out, err := cmd.Output()
			if err != nil || !bytes.Contains(out, []byte("second try")) {
				t.Errorf("got %v:\n%s", err, out)
			}
			if n := len(srv.Requests(claudetest.Main)); n != 2 {
				t.Errorf("%d requests, want 2", n)
			}
		})
	}
}

// lines reads a CLI's output line by line.
type lines struct {
	t *testing.T
	s *bufio.Scanner
}

func newLines(t *testing.T, r io.Reader) lines {
	t.Helper()
	s := bufio.NewScanner(r)
	s.Buffer(nil, 64<<20)
	return lines{t, s}
}

// until returns the first line that holds the text.
func (l lines) until(text string) []byte {
	l.t.Helper()
	for l.s.Scan() {
		if bytes.Contains(l.s.Bytes(), []byte(text)) {
			return bytes.Clone(l.s.Bytes())
		}
	}
	l.t.Fatalf("the output ended before %q: %v", text, l.s.Err())
	return nil
}

func TestGateShowsThatTheStreamIsLive(t *testing.T) {
	var gate claudetest.Gate
	srv := claudetest.Start(t, claudetest.Join(claudetest.Text("before"), gate.Wait, claudetest.Text(" after")))
	cmd := newWorkspace(t).command(t, srv, "-p", "go", "--include-partial-messages")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := newLines(t, stdout)
	out.until(`"text":"before"`) // and nothing of what comes after: the gate is closed
	<-gate.Reached()
	gate.Open()
	out.until(`"text":" after"`)
	out.until(`before after`)
	out.until(`"type":"result"`)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestSideRequestsLeaveTheScriptAlone drives a session through everything that
// makes the CLI ask questions of its own.
func TestSideRequestsLeaveTheScriptAlone(t *testing.T) {
	srv := claudetest.Start(t, claudetest.Sequence(
		claudetest.Text("one"),
		claudetest.Tool("Agent", map[string]any{
			"description": "sub", "prompt": "sub work", "subagent_type": "general-purpose", "run_in_background": false,
		}),
		claudetest.Text("two"),
		claudetest.Text("three"),
	))
	cmd := newWorkspace(t).command(t, srv, "--input-format=stream-json")
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
	control := func(id, request string) []byte {
		_, _ = fmt.Fprintf(stdin, `{"type":"control_request","request_id":%q,"request":%s}`+"\n", id, request)
		return out.until(`"control_response"`)
	}
	say := func(prompt string) []byte {
		_, _ = fmt.Fprintf(stdin, `{"type":"user","message":{"role":"user","content":%q}}`+"\n", prompt)
		return out.until(`"type":"result"`)
	}
	control("1", `{"subtype":"initialize"}`)
	if title := control("2", `{"subtype":"generate_session_title","description":"make a file","persist":false}`); !bytes.Contains(title, []byte(`"title":"scripted"`)) {
		t.Errorf("the title is not the scripted one: %s", title)
	}
	control("3", `{"subtype":"side_question","question":"why?"}`)
	for _, step := range [][2]string{{"first", "one"}, {"second", "two"}, {"/compact", ""}, {"third", "three"}} {
		if got := say(step[0]); !bytes.Contains(got, []byte(`"result":"`+step[1])) {
			t.Errorf("%s: got %s, want %q", step[0], got, step[1])
		}
	}
	control("4", `{"subtype":"get_context_usage"}`)
	if err := stdin.Close(); err != nil {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, stdout)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	var mains []string
	for _, r := range srv.Requests(claudetest.Main) {
		mains = append(mains, r.Prompt())
	}
	if got := strings.Join(mains, ","); got != "first,second,second,third" {
		t.Errorf("turns for %s", got)
	}
	for _, kind := range []claudetest.Kind{claudetest.Side, claudetest.Subagent, claudetest.CountTokens} {
		if len(srv.Requests(kind)) == 0 {
			t.Errorf("no %v request: does the CLI still send them?", kind)
		}
	}
}

func TestTurnWithoutToolsIsATurn(t *testing.T) {
	srv := claudetest.Start(t, claudetest.Text("fine"))
	if got := newWorkspace(t).ask(t, srv, "no tools", "--tools="); got.Result != "fine" {
		t.Errorf("got %+v", got)
	}
	if n := len(srv.Requests(claudetest.Main)); n != 1 {
		t.Errorf("%d turns, want 1", n)
	}
}
