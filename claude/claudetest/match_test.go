package claudetest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/claude/claudetest"
)

const conversed = `{"model":"claude-opus-5-5","system":"Be kind.","tools":[{"name":"Bash"}],"messages":[
	{"role":"user","content":[{"type":"text","text":"<system-reminder>x</system-reminder>"},{"type":"text","text":"list it"}]},
	{"role":"assistant","content":[{"type":"thinking","thinking":"hm"},{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"ls"}},{"type":"tool_use","id":"t2","name":"Read","input":{"file_path":"/a"}}]},
	{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"a.txt"},{"type":"image","source":{"type":"base64","data":"QQ=="}}]},
	{"role":"system","content":"# Environment"}
]}`

func TestMatches(t *testing.T) {
	r := record(t, conversed, cli())
	for name, test := range map[string]struct {
		match claudetest.Match
		want  bool
	}{
		"system":             {claudetest.SystemHas("kind"), true},
		"another system":     {claudetest.SystemHas("cruel"), false},
		"prompt":             {claudetest.PromptHas("list"), true},
		"a reminder":         {claudetest.PromptHas("reminder"), false},
		"model":              {claudetest.Asks("claude-opus"), true},
		"another model":      {claudetest.Asks("claude-haiku"), false},
		"tool":               {claudetest.Offers("Bash"), true},
		"no tool":            {claudetest.Offers("Read"), false},
		"kind":               {claudetest.Of(claudetest.Subagent, claudetest.Main), true},
		"result, not newest": {claudetest.ResultOf("Bash", "a.txt"), false},
		"result, not there":  {claudetest.ResultOf("Read", ""), false},
		"all":                {claudetest.All(claudetest.SystemHas("Be"), claudetest.Not(claudetest.PromptHas("write"))), true},
		"not all":            {claudetest.All(claudetest.SystemHas("Be"), claudetest.PromptHas("write")), false},
		"all of none":        {claudetest.All(), true},
	} {
		if got := test.match(r); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestWhatWasSaid(t *testing.T) {
	r := record(t, conversed, cli())
	ls, a := map[string]any{"command": "ls"}, map[string]any{"file_path": "/a"}
	if diff := cmp.Diff([]claudetest.Call{{Tool: "Bash", Input: ls, Done: true, Result: "a.txt"}, {Tool: "Read", Input: a}}, r.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	want := []claudetest.Entry{
		{Role: "user", Type: "text", Text: "list it"},
		{Role: "assistant", Type: "thinking", Text: "hm"},
		{Role: "assistant", Type: "tool_use", Tool: "Bash", Input: ls},
		{Role: "assistant", Type: "tool_use", Tool: "Read", Input: a},
		{Role: "user", Type: "tool_result", Tool: "Bash", Text: "a.txt"},
		{Role: "user", Type: "image"},
	}
	if diff := cmp.Diff(want, r.Conversation()); diff != "" {
		t.Errorf("the conversation (-want +got):\n%s", diff)
	}
	if image := r.Messages[2].Content[1]; !strings.Contains(string(image.Raw), `"data":"QQ=="`) {
		t.Errorf("the image is %s", image.Raw)
	}
}

func TestWhen(t *testing.T) {
	srv := claudetest.Start(t, claudetest.When(
		claudetest.Case{Match: claudetest.PromptHas("hi"), Script: claudetest.Text("ho")},
		claudetest.Case{Match: claudetest.Asks("m"), Script: claudetest.Text("hum")},
	))
	arrived := srv.Wait(claudetest.PromptHas("bye"))
	for _, step := range [][2]string{{plain, "ho"}, {strings.Replace(plain, "hi", "bye", 1), "hum"}, {`{"model":"x","messages":[]}`, "no case for request 3"}} {
		if _, body := post(t, srv, "/v1/messages", step[0]); !strings.Contains(body, step[1]) {
			t.Errorf("%s: got %s, want %s", step[0], body, step[1])
		}
	}
	<-arrived
	<-srv.Wait(claudetest.PromptHas("hi")) // long ago
	if found := srv.Find(claudetest.PromptHas("bye")); len(found) != 1 || found[0].N != 2 {
		t.Errorf("found %v", found)
	}
}

func TestStatuses(t *testing.T) {
	for status, errType := range map[int]string{
		400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
		413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 503: "api_error", 504: "timeout_error", 529: "overloaded_error",
	} {
		srv := claudetest.Start(t, claudetest.Join(claudetest.Header("Retry-After", "7"), claudetest.Status(status)))
		resp, body := post(t, srv, "/v1/messages", plain)
		if resp.StatusCode != status || !strings.Contains(body, `"type":"`+errType+`"`) || resp.Header.Get("Retry-After") != "7" {
			t.Errorf("%d: got %d %s, Retry-After %q", status, resp.StatusCode, body, resp.Header.Get("Retry-After"))
		}
	}
}

func TestCutInTheMiddle(t *testing.T) {
	for _, stream := range []bool{true, false} {
		srv := claudetest.Start(t, claudetest.Join(claudetest.Text("hello"), claudetest.Cut(), claudetest.Text("never")))
		resp, err := send(t.Context(), srv, "/v1/messages", strings.Replace(plain, "{", `{"stream":`+strconv.FormatBool(stream)+`,`, 1))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil || strings.HasSuffix(string(body), "\n") || strings.Contains(string(body), "hello") != stream {
			t.Errorf("stream %v: got %q, %v", stream, body, err)
		}
	}
}

func TestUsageOfEveryKind(t *testing.T) {
	want := `{"cache_creation":{"ephemeral_1h_input_tokens":2,"ephemeral_5m_input_tokens":3},"cache_creation_input_tokens":5,"cache_read_input_tokens":6,"input_tokens":7,"output_tokens":8,"server_tool_use":{"web_search_requests":9},"speed":"fast"}`
	srv := claudetest.Start(t, claudetest.Tokens(claudetest.Usage{
		InputTokens: 7, OutputTokens: 8, CacheReadInputTokens: 6, CacheCreationInputTokens: 5, CacheCreation1hInputTokens: 2, WebSearchRequests: 9, Speed: "fast",
	}))
	_, body := post(t, srv, "/v1/messages", plain)
	var got struct{ Usage map[string]any }
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if sorted, err := json.Marshal(got.Usage); err != nil || string(sorted) != want {
		t.Errorf("got %s, want %s", sorted, want)
	}
}

func TestServerToolBlocks(t *testing.T) {
	script := claudetest.Join(
		claudetest.WebSearch("weather", claudetest.Page{Title: "Rain", URL: "https://example.com"}),
		func(w *claudetest.Reply, _ *claudetest.Request) {
			w.Block(map[string]any{"type": "text", "text": "It rains."})
		},
	)
	_, body := post(t, claudetest.Start(t, script), "/v1/messages", plain)
	var got struct {
		StopReason string `json:"stop_reason"`
		Content    []struct {
			Type, ID, Name, Text string
			ToolUseID            string `json:"tool_use_id"`
			Input, Content       any
		}
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	c := got.Content
	if len(c) != 3 || c[0].Type != "server_tool_use" || c[0].Name != "web_search" || c[1].Type != "web_search_tool_result" || c[1].ToolUseID != c[0].ID ||
		c[2].Text != "It rains." || got.StopReason != "end_turn" {
		t.Errorf("got %s", body)
	}
	_, stream := post(t, claudetest.Start(t, script), "/v1/messages", strings.Replace(plain, "{", `{"stream":true,`, 1))
	if n := strings.Count(stream, "event: content_block_start"); n != 3 || !strings.Contains(stream, `"title":"Rain"`) {
		t.Errorf("got %s", stream)
	}
}

func TestCountTokensAsTold(t *testing.T) {
	srv := claudetest.StartWith(t, nil, &claudetest.Options{CountTokens: func(r *claudetest.Request) int { return 10 * len(r.Messages) }})
	if resp, body := post(t, srv, "/v1/messages/count_tokens", plain); resp.StatusCode != http.StatusOK || body != `{"input_tokens":10}` {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}
