package claudetest_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude/claudetest"
)

// record runs one request of the CLI's kind through a handler and returns what was recorded.
func record(t *testing.T, body string, header http.Header) *claudetest.Request {
	t.Helper()
	h := claudetest.NewHandler(nil, nil)
	r := httptest.NewRequest(http.MethodPost, "/v1/messages?beta=true", strings.NewReader(body))
	r.Header = header
	h.ServeHTTP(httptest.NewRecorder(), r)
	return h.Requests()[0]
}

func cli(more ...string) http.Header {
	h := http.Header{"User-Agent": {"claude-cli/2.1.328 (external, sdk-cli)"}}
	for i := 0; i < len(more); i += 2 {
		h.Set(more[i], more[i+1])
	}
	return h
}

func TestKinds(t *testing.T) {
	const tools = `"tools":[{"name":"Bash"}],`
	const env = `{"role":"system","content":"# Environment\n - Primary working directory: /w\n"}`
	for name, test := range map[string]struct {
		body   string
		header http.Header
		want   claudetest.Kind
	}{
		"turn":                  {`{` + tools + `"messages":[{"role":"user","content":"x"}]}`, cli(), claudetest.Main},
		"turn without tools":    {`{"messages":[{"role":"user","content":"x"},` + env + `]}`, cli(), claudetest.Main},
		"another client":        {`{"messages":[{"role":"user","content":"x"}]}`, http.Header{}, claudetest.Main},
		"title":                 {`{"messages":[{"role":"user","content":"x"}]}`, cli(), claudetest.Side},
		"quota":                 {`{"max_tokens":1,` + tools + `"messages":[{"role":"user","content":"quota"}]}`, cli(), claudetest.Side},
		"subagent by header":    {`{` + tools + `"messages":[{"role":"user","content":"x"}]}`, cli("X-Claude-Code-Agent-Id", "a"), claudetest.Subagent},
		"subagent by its words": {`{"system":[{"type":"text","text":"x-anthropic-billing-header: cc_is_subagent=true;"}],` + tools + `"messages":[{"role":"user","content":"x"}]}`, cli(), claudetest.Subagent},
		"summary":               {`{` + tools + `"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"x"},{"type":"text","text":"CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.\n"}]}]}`, cli(), claudetest.Side},
		"side question":         {`{` + tools + `"messages":[{"role":"user","content":[{"type":"text","text":"<system-reminder>This is a side question from the user. …"},{"type":"text","text":"why?"}]}]}`, cli(), claudetest.Side},
	} {
		t.Run(name, func(t *testing.T) {
			if got := record(t, test.body, test.header).Kind; got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestWhatARequestSays(t *testing.T) {
	r := record(t, `{"messages":[
		{"role":"user","content":"first"},
		{"role":"assistant","content":[{"type":"tool_use","id":"t0","name":"Bash","input":{}}]},
		{"role":"user","content":[{"type":"tool_result","tool_use_id":"t0","content":"old"}]},
		{"role":"user","content":[
			{"type":"text","text":"<system-reminder>\nnot the user\n</system-reminder>\n"},
			{"type":"text","text":"<command-name>/compact</command-name>"},
			{"type":"text","text":"run: a<system-reminder>x</system-reminder>"},
			{"type":"text","text":"run: b"}]},
		{"role":"system","content":"# Environment\n - Primary working directory: /w d/x (was /w d)\n"},
		{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"a"}}]},
		{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","is_error":true,"content":[{"type":"text","text":"l1"},{"type":"image"},{"type":"text","text":"l2"}]},{"type":"text","text":"Continue from where you left off."}]},
		{"role":"system","content":"Other.\n\nThe user sent a new message while you were working:\nrun: c\n\nrun: d\n\nThis is how Claude Code surfaces messages the user sends.\n\nThe user sent a new message while you were working:\ne"}
	]}`, cli("X-Claude-Code-Session-Id", "s"))
	if got := r.Prompt(); got != "run: a\nrun: b" {
		t.Errorf("Prompt() = %q", got)
	}
	if got := r.WorkingDir(); got != "/w d/x" {
		t.Errorf("WorkingDir() = %q", got)
	}
	last, ok := r.LastToolResult()
	if results := r.ToolResults(); len(results) != 1 || !ok || last.Result != "l1\nl2" || !last.IsError || last.ToolUseID != "t1" {
		t.Errorf("results %+v, last %+v", results, last)
	}
	if got := r.Queued(); len(got) != 2 || got[0] != "run: c\n\nrun: d" || got[1] != "e" {
		t.Errorf("Queued() = %q", got)
	}
	if r.SessionID() != "s" {
		t.Errorf("SessionID() = %q", r.SessionID())
	}
}

func FuzzHandler(f *testing.F) {
	f.Add([]byte(plain), true)
	f.Add([]byte(`{"stream":true,"tools":[{"name":"Write"}],"messages":[{"role":"user","content":"write a: b\nrun: c"},{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"Write"}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","is_error":true,"content":"File has not been read yet"}]}]}`), true)
	f.Add([]byte(`{"messages":[null,{"content":null},{"role":"user","content":[null,{"type":"text"}]}],"system":null,"tools":null}`), false)
	f.Add([]byte(`{"messages":[{"role":"user","content":"x"}],"output_config":{"format":{"schema":{"type":"object","required":["a"],"properties":{"a":{"type":"array"}}}}}}`), true)
	h := claudetest.NewHandler(claudetest.Prompted(), &claudetest.Options{Keep: -1})
	f.Fuzz(func(t *testing.T, body []byte, fromCLI bool) {
		r := httptest.NewRequest(http.MethodPost, "/v1/messages", strings.NewReader(string(body)))
		if fromCLI {
			r.Header = cli()
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 && w.Code != 400 {
			t.Fatalf("status %d for %q", w.Code, body)
		}
	})
}
