package claudetest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/claude/claudetest"
)

const plain = `{"model":"m","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}`

func post(t *testing.T, srv *claudetest.Server, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	resp, err := send(t.Context(), srv, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

func send(ctx context.Context, srv *claudetest.Server, path, body string, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Close = true
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return http.DefaultClient.Do(req)
}

func TestPlainClientGetsTheScript(t *testing.T) {
	srv := claudetest.Start(t, claudetest.Join(
		claudetest.Thinking("hm"), claudetest.Text("a", "b"), claudetest.Tool("Bash", map[string]any{"command": "ls"}),
	))
	resp, body := post(t, srv, "/v1/messages", plain, "Authorization", "Bearer tok")
	var got struct {
		Type, Role, Model string
		StopReason        string `json:"stop_reason"`
		Content           []struct {
			Type, Text, Thinking, Signature, ID, Name string
			Input                                     json.RawMessage
		}
		Usage claudetest.Usage
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if resp.StatusCode != http.StatusOK || got.Type != "message" || got.Role != "assistant" || got.Model != "m" || got.StopReason != "tool_use" || got.Usage.InputTokens != 1 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if len(got.Content) != 3 || got.Content[0].Thinking != "hm" || got.Content[0].Signature == "" || got.Content[1].Text != "ab" ||
		got.Content[2].Name != "Bash" || string(got.Content[2].Input) != `{"command":"ls"}` || !strings.HasPrefix(got.Content[2].ID, "toolu_") {
		t.Errorf("got content %s", body)
	}
	if r := srv.Requests()[0]; r.Key() != "tok" || r.Kind != claudetest.Main || r.N != 1 {
		t.Errorf("recorded %+v", r)
	}
}

func TestTheSameRequestGetsTheSameReply(t *testing.T) {
	script := claudetest.Join(claudetest.Thinking("hm"), claudetest.Tool("Bash", map[string]any{"command": "ls", "b": 1, "a": 2}))
	streamed := strings.Replace(plain, "{", `{"stream":true,`, 1)
	_, first := post(t, claudetest.Start(t, script), "/v1/messages", streamed)
	_, second := post(t, claudetest.Start(t, script), "/v1/messages", streamed)
	if first != second {
		t.Errorf("two servers differ:\n%s\n%s", first, second)
	}
	_, other := post(t, claudetest.Start(t, script), "/v1/messages", strings.Replace(streamed, "hi", "ho", 1))
	if first == other {
		t.Error("another conversation has the same ids")
	}
}

func TestStreamIsWellFormed(t *testing.T) {
	srv := claudetest.Start(t, func(w *claudetest.Reply, _ *claudetest.Request) {
		w.Event("ping", nil)
		w.Text("one")
		w.EndBlock()
		w.Text("two")
		w.StopReason("max_tokens")
	})
	resp, body := post(t, srv, "/v1/messages", strings.Replace(plain, "{", `{"stream":true,`, 1))
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		t.Errorf("Content-Type %s", got)
	}
	var names []string
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	want := "message_start ping content_block_start content_block_delta content_block_stop content_block_start content_block_delta content_block_stop message_delta message_stop"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	if !strings.Contains(body, `"stop_reason":"max_tokens"`) {
		t.Errorf("the stop reason is not there:\n%s", body)
	}
}

func TestErrors(t *testing.T) {
	streamed := strings.Replace(plain, "{", `{"stream":true,`, 1)
	srv := claudetest.Start(t, claudetest.Sequence(
		claudetest.RateLimited(1500e6),
		claudetest.Join(claudetest.Text("x"), claudetest.Overloaded(), claudetest.Text("never")),
	))
	resp, body := post(t, srv, "/v1/messages", streamed)
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "2" || !strings.Contains(body, `"type":"rate_limit_error"`) {
		t.Errorf("got %d %v %s", resp.StatusCode, resp.Header, body)
	}
	resp, body = post(t, srv, "/v1/messages", streamed)
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "event: error\n") || strings.Contains(body, "never") || strings.Contains(body, "message_stop") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if resp, body = post(t, srv, "/v1/messages", streamed); resp.StatusCode != http.StatusTeapot || !strings.Contains(body, "has 2 replies and this is request 3") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

func TestDisconnect(t *testing.T) {
	srv := claudetest.Start(t, claudetest.Sequence(
		claudetest.Disconnect(), claudetest.Join(claudetest.Text("some"), claudetest.Disconnect()),
	))
	if resp, err := send(t.Context(), srv, "/v1/messages", plain); err == nil {
		_ = resp.Body.Close()
		t.Errorf("got %d, want a cut connection", resp.StatusCode)
	}
	resp, err := send(t.Context(), srv, "/v1/messages", strings.Replace(plain, "{", `{"stream":true,`, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Contains(body, []byte(`"some"`)) {
		t.Errorf("got %q, %v, want the beginning and a cut", body, err)
	}
}

func TestBadRequests(t *testing.T) {
	srv, err := claudetest.NewServer(nil, &claudetest.Options{MaxBody: 200})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	for name, test := range map[string]struct {
		path, body string
		status     int
		errType    string
	}{
		"no JSON":        {"/v1/messages", "{", 400, "invalid_request_error"},
		"no messages":    {"/v1/messages", "{}", 400, "invalid_request_error"},
		"null":           {"/v1/messages", "null", 400, "invalid_request_error"},
		"odd content":    {"/v1/messages", `{"messages":[{"role":"user","content":7}]}`, 400, "invalid_request_error"},
		"too large":      {"/v1/messages", strings.Repeat(" ", 201), 413, "request_too_large"},
		"no such path":   {"/v1/files", "{}", 404, "not_found_error"},
		"not to be done": {"/v1/messages/batches", plain, 404, "not_found_error"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := post(t, srv, test.path, test.body)
			if resp.StatusCode != test.status || !strings.Contains(body, `"type":"`+test.errType+`"`) || !strings.Contains(body, `"type":"error"`) {
				t.Errorf("got %d %s, want %d %s", resp.StatusCode, body, test.status, test.errType)
			}
		})
	}
}

func TestProbesAndCounts(t *testing.T) {
	srv := claudetest.Start(t, claudetest.Sequence())
	for _, target := range []string{"HEAD /api/hello", "GET /v1/models?limit=1000", "HEAD /"} {
		method, path, _ := strings.Cut(target, " ")
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != 200 {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	if resp, body := post(t, srv, "/v1/messages/count_tokens", plain); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"input_tokens":`) {
		t.Errorf("count_tokens: %d %s", resp.StatusCode, body)
	}
	if n := len(srv.Requests(claudetest.Main)); n != 0 {
		t.Errorf("%d of them reached the script", n)
	}
}

func TestPerSession(t *testing.T) {
	srv := claudetest.Start(t, claudetest.PerSession(func() claudetest.Script {
		return claudetest.Sequence(claudetest.Text("first"), claudetest.Text("second"))
	}))
	for _, want := range []string{"first", "second"} {
		for _, session := range []string{"a", "b"} {
			if _, body := post(t, srv, "/v1/messages", plain, "X-Claude-Code-Session-Id", session); !strings.Contains(body, want) {
				t.Errorf("session %s: %s, want %s", session, body, want)
			}
		}
	}
}

func TestKeepsTheNewestRequests(t *testing.T) {
	for keep, want := range map[int]string{0: "123", 2: "23", 1: "3", -1: ""} {
		srv, err := claudetest.NewServer(nil, &claudetest.Options{Keep: keep})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range "123" {
			post(t, srv, "/v1/messages", strings.Replace(plain, "hi", string(n), 1))
		}
		var got strings.Builder
		for _, r := range srv.Requests() {
			got.WriteString(r.Prompt())
		}
		if got.String() != want {
			t.Errorf("Keep %d: %q, want %q", keep, got.String(), want)
		}
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseFreesGates(t *testing.T) {
	var gate claudetest.Gate
	srv, err := claudetest.NewServer(claudetest.Join(claudetest.Text("a"), gate.Wait), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := send(t.Context(), srv, "/v1/messages", strings.Replace(plain, "{", `{"stream":true,`, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "event: message_start\n" {
		t.Errorf("got %q, %v", line, err)
	}
	<-gate.Reached()
	for range 2 {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := send(t.Context(), srv, "/v1/messages", plain); err == nil {
		t.Error("it still answers")
	}
}

func TestShutdownWaitsForReplies(t *testing.T) {
	var gate claudetest.Gate
	srv, err := claudetest.NewServer(claudetest.Join(claudetest.Text("a"), gate.Wait, claudetest.Text("b")), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		resp, err := send(t.Context(), srv, "/v1/messages", plain)
		if err != nil {
			got <- err.Error()
			return
		}
		defer func() { _ = resp.Body.Close() }()
		data, _ := io.ReadAll(resp.Body)
		got <- string(data)
	}()
	<-gate.Reached()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
	gate.Open()
	if body := <-got; !strings.Contains(body, `"text":"ab"`) {
		t.Errorf("got %s", body)
	}
	wg.Wait()
}
