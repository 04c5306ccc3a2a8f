package claudetest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/claude/claudetest"
)

func agent(prompt string) claudetest.Script {
	return claudetest.Tool("Agent", map[string]any{
		"description": "sub", "prompt": prompt, "subagent_type": "general-purpose", "run_in_background": false,
	})
}

// Two subagents at a time, each with a conversation of its own beside the main one.
func TestSubagentsHaveScriptsOfTheirOwn(t *testing.T) {
	w := newWorkspace(t)
	opts := &claudetest.Options{Subagent: claudetest.PerAgent(func(first *claudetest.Request) claudetest.Script {
		name := first.Prompt()
		return claudetest.Sequence(
			claudetest.Tool("Write", map[string]any{"file_path": w.path(name + ".txt"), "content": name}),
			claudetest.Text("finished "+name),
		)
	})}
	srv := claudetest.StartWith(t, claudetest.Sequence(
		claudetest.Join(agent("red"), agent("blue")),
		func(w *claudetest.Reply, r *claudetest.Request) {
			for _, c := range r.Calls() {
				fmt.Fprintln(replyText{w}, c.Tool, c.Input["prompt"], strings.Contains(c.Result, "finished "+fmt.Sprint(c.Input["prompt"])))
			}
		},
	), opts)
	got := w.ask(t, srv, "delegate")
	if want := "Agent red true\nAgent blue true"; strings.TrimSpace(got.Result) != want {
		t.Errorf("got %q, want %q", got.Result, want)
	}
	w.wantFile(t, "red.txt", "red")
	w.wantFile(t, "blue.txt", "blue")
	agents := map[string]int{}
	for _, r := range srv.Requests(claudetest.Subagent) {
		agents[r.AgentID()]++
	}
	if len(agents) != 2 || agents[""] != 0 {
		t.Errorf("requests by agent: %v", agents)
	}
}

type replyText struct{ w *claudetest.Reply }

func (r replyText) Write(p []byte) (int, error) {
	r.w.Text(string(p))
	return len(p), nil
}

func TestStructuredAnswers(t *testing.T) {
	srv := claudetest.Start(t, claudetest.Structured(map[string]any{"answer": 42}))
	cmd := newWorkspace(t).command(t, srv, "-p", "what is it?", `--json-schema={"type":"object","properties":{"answer":{"type":"integer"}},"required":["answer"]}`)
	out, err := cmd.Output()
	if err != nil || !bytes.Contains(out, []byte(`"structured_output":{"answer":42}`)) {
		t.Errorf("got %v:\n%s", err, out)
	}
	if n := len(srv.Find(claudetest.Offers("StructuredOutput"))); n != 1 {
		t.Errorf("%d requests offer the tool, want 1", n)
	}
}

// Those that TestErrorsReachTheCLI does not try.
func TestEveryStatusReachesTheCLI(t *testing.T) {
	for _, status := range []int{402, 403, 404, 413, 500, 503, 504} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			got := newWorkspace(t).ask(t, claudetest.Start(t, claudetest.Status(status)), "try")
			if !got.IsError || got.APIErrorStatus != status {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// retryDelay is a second, with some added by chance; by itself the CLI would wait half.
var retryDelay = regexp.MustCompile(`"retry_delay_ms":1[0-9]{3}[^0-9]`)

// The CLI comes back when Retry-After says, and tells so.
func TestRetryAfterIsObeyed(t *testing.T) {
	srv := claudetest.Start(t, claudetest.Sequence(
		claudetest.Join(claudetest.Header("Retry-After", "1"), claudetest.Overloaded()), claudetest.Text("second try"),
	))
	cmd := newWorkspace(t).command(t, srv, "-p", "try")
	cmd.Env = append(cmd.Env, "CLAUDE_CODE_MAX_RETRIES=2")
	out, err := cmd.Output()
	if err != nil || !bytes.Contains(out, []byte("second try")) || !retryDelay.Match(out) {
		t.Errorf("got %v:\n%s", err, out)
	}
}

// A stream that is cut in the middle of an event is asked for again.
func TestCutStreamIsAskedForAgain(t *testing.T) {
	srv := claudetest.Start(t, claudetest.Sequence(claudetest.Join(claudetest.Text("par"), claudetest.Cut()), claudetest.Text("whole")))
	cmd := newWorkspace(t).command(t, srv, "-p", "try")
	cmd.Env = append(cmd.Env, "CLAUDE_CODE_MAX_RETRIES=2")
	out, err := cmd.Output()
	if err != nil || !bytes.Contains(out, []byte(`"result":"whole"`)) {
		t.Errorf("got %v:\n%s", err, out)
	}
}

func TestServerToolsPassThroughTheCLI(t *testing.T) {
	srv := claudetest.Start(t, claudetest.Join(
		claudetest.Tokens(claudetest.Usage{InputTokens: 10, OutputTokens: 5, CacheCreationInputTokens: 300, CacheCreation1hInputTokens: 100, WebSearchRequests: 2}),
		claudetest.WebSearch("weather", claudetest.Page{Title: "Rain", URL: "https://example.com"}), claudetest.Text("It rains."),
	))
	cmd := newWorkspace(t).command(t, srv, "-p", "how is the weather?")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{`"type":"server_tool_use"`, `"type":"web_search_tool_result"`, `"result":"It rains."`} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the output lacks %s:\n%s", want, out)
		}
	}
	for line := range bytes.Lines(out) {
		var r struct {
			Type  string
			Usage struct {
				Server struct {
					Searches int `json:"web_search_requests"`
				} `json:"server_tool_use"`
				Creation struct {
					Short int `json:"ephemeral_5m_input_tokens"`
					Long  int `json:"ephemeral_1h_input_tokens"`
				} `json:"cache_creation"`
			}
		}
		if json.Unmarshal(line, &r) == nil && r.Type == "result" && (r.Usage.Server.Searches != 2 || r.Usage.Creation.Short != 200 || r.Usage.Creation.Long != 100) {
			t.Errorf("usage %+v", r.Usage)
		}
	}
}

func TestWhatTheCLISaysIsComparable(t *testing.T) {
	srv := claudetest.Start(t, claudetest.When(
		claudetest.Case{Match: claudetest.ResultOf("Bash", "hello"), Script: claudetest.Text("done")},
		claudetest.Case{Script: claudetest.Tool("Bash", map[string]any{"command": "echo hello", "description": "greet"})},
	))
	if got := newWorkspace(t).ask(t, srv, "greet", "--append-system-prompt=Be brief."); got.Result != "done" {
		t.Fatalf("got %+v", got)
	}
	last := srv.Find(claudetest.All(claudetest.ResultOf("Bash", ""), claudetest.SystemHas("Be brief.")))
	if len(last) != 1 {
		t.Fatalf("%d requests with a result", len(last))
	}
	want := []claudetest.Entry{
		{Role: "user", Type: "text", Text: "greet"},
		{Role: "assistant", Type: "tool_use", Tool: "Bash", Input: map[string]any{"command": "echo hello", "description": "greet"}},
		{Role: "user", Type: "tool_result", Tool: "Bash", Text: "hello"},
	}
	if diff := cmp.Diff(want, last[0].Conversation()); diff != "" {
		t.Errorf("the conversation (-want +got):\n%s", diff)
	}
}
