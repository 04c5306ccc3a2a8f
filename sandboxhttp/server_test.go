package sandboxhttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// soon bounds what a test waits for; nothing is asserted about time.
const soon = 120 * time.Second

// server is a handler being served, for tests to ask.
type server struct {
	t       testing.TB
	handler *sandboxhttp.Handler
	http    *httptest.Server
	log     *logBuffer
	account string // whose requests these are
}

type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// byHeader lets tests say who they are: "ACCOUNT" or "ACCOUNT viewer".
func byHeader(r *http.Request) (*sandboxhttp.Principal, error) {
	account, role, _ := strings.Cut(r.Header.Get("X-Test-Account"), " ")
	switch {
	case account == "":
		return nil, sandboxhttp.ErrUnauthenticated
	case account == "broken":
		return nil, errors.New("the directory of users is down")
	case role == "viewer":
		return &sandboxhttp.Principal{Account: account, Role: sandboxhttp.RoleViewer}, nil
	}
	return &sandboxhttp.Principal{Account: account}, nil
}

// serve serves a place, for account "acme".
func serve(t testing.TB, p *place, change func(*sandboxhttp.Config)) *server {
	t.Helper()
	s := &server{t: t, log: new(logBuffer), account: "acme"}
	config := &sandboxhttp.Config{Provider: p.provider(), Auth: byHeader, Logger: slog.New(slog.NewTextHandler(s.log, nil))}
	if change != nil {
		change(config)
	}
	if config.Store != nil && config.Pool == nil {
		config.Pool = &pool.Options{Store: &p.pools} // as lasting
	}
	h, err := sandboxhttp.New(config)
	if err != nil {
		t.Fatal(err)
	}
	s.handler, s.http = h, httptest.NewServer(h)
	t.Cleanup(s.close)
	return s
}

// close cancels what still goes on, and ends the server.
func (s *server) close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.handler.Shutdown(ctx) // says that it had to cancel
	s.http.CloseClientConnections()
	s.http.Close()
}

// as gives the same server, asked by another.
func (s *server) as(account string) *server {
	other := *s
	other.account = account
	return &other
}

// request sends a request. Headers are pairs.
func (s *server) request(method, path, body string, headers ...string) *http.Response {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	s.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, s.http.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if s.account != "" {
		r.Header.Set("X-Test-Account", s.account)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.http.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// get asks and reads the answer as JSON, of a status.
func (s *server) ask(status int, method, path, body string, headers ...string) map[string]any {
	s.t.Helper()
	resp := s.request(method, path, body, headers...)
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != status {
		s.t.Fatalf("%s %s: status %d, want %d: %s", method, path, resp.StatusCode, status, data)
	}
	if len(data) == 0 {
		return nil
	}
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		s.t.Fatalf("%s %s: %v in %q", method, path, err, data)
	}
	if status >= 400 {
		s.checkProblem(resp, v)
	}
	return v
}

func (s *server) checkProblem(resp *http.Response, p map[string]any) {
	s.t.Helper()
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		s.t.Errorf("a problem of type %q", got)
	}
	for _, field := range []string{"type", "title", "detail", "code", "request_id"} {
		if text, ok := p[field].(string); !ok || text == "" && field != "detail" {
			s.t.Errorf("%s of a problem is %v", field, p[field])
		}
	}
	if p["status"] != float64(resp.StatusCode) || p["request_id"] != resp.Header.Get("X-Request-Id") {
		s.t.Errorf("status %v, request id %v", p["status"], p["request_id"])
	}
	if _, ok := p["retryable"].(bool); !ok {
		s.t.Errorf("retryable is %v", p["retryable"])
	}
}

// refused asks for something that is refused with a code, and gives the fields
// that were named.
func (s *server) refused(status int, code, method, path, body string, headers ...string) []string {
	s.t.Helper()
	p := s.ask(status, method, path, body, headers...)
	if p["code"] != code {
		s.t.Errorf("%s %s: code %v, want %s: %v", method, path, p["code"], code, p)
	}
	var fields []string
	list, _ := p["errors"].([]any)
	for _, e := range list {
		fields = append(fields, e.(map[string]any)["field"].(string))
	}
	return fields
}

// create makes a sandbox and gives its path.
func (s *server) create(body string) string {
	s.t.Helper()
	return "/sandbox/" + s.ask(http.StatusCreated, "POST", "/sandbox", body)["id"].(string)
}

// event is one server-sent event.
type event struct {
	id   int
	name string
	data string
}

// feed is a stream of events being read.
type feed struct {
	t    testing.TB
	resp *http.Response
	br   *bufio.Reader
}

// prompt begins a run.
func (s *server) prompt(path, prompt string, headers ...string) *feed {
	s.t.Helper()
	body, _ := json.Marshal(map[string]string{"prompt": prompt})
	return s.follow("POST", path+"/claude", string(body), headers...)
}

func (s *server) follow(method, path, body string, headers ...string) *feed {
	s.t.Helper()
	resp := s.request(method, path, body, headers...)
	if resp.StatusCode != http.StatusOK {
		data, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("%s %s: status %d: %s", method, path, resp.StatusCode, data)
	}
	return &feed{s.t, resp, bufio.NewReader(resp.Body)}
}

// run is the path of the run below its sandbox's.
func (f *feed) run(sandbox string) string {
	return sandbox + "/runs/" + f.resp.Header.Get("Vivarium-Run")
}

// next reads an event; an error is that the stream was cut.
func (f *feed) next() (event, error) {
	var e event
	for {
		line, err := f.br.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		field, value, _ := strings.Cut(line, ": ")
		switch field {
		case "":
			return e, nil
		case "id":
			if e.id, err = strconv.Atoi(value); err != nil {
				return e, err
			}
		case "event":
			e.name = value
		case "data":
			e.data += value
		default:
			return e, fmt.Errorf("a line that is no field: %q", line)
		}
	}
}

// must reads an event that is no heartbeat, and not the CLI's answer to this server.
func (f *feed) must() event {
	f.t.Helper()
	for {
		e, err := f.next()
		if err != nil {
			f.t.Fatalf("the stream ended: %v", err)
		}
		if e.name != "heartbeat" && e.name != "control" {
			return e
		}
	}
}

// all reads to the end, which must be "[DONE]" and then nothing.
func (f *feed) all() []event {
	f.t.Helper()
	var events []event
	for {
		e := f.must()
		if e.data == "[DONE]" {
			if e, err := f.next(); !errors.Is(err, io.EOF) {
				f.t.Fatalf("after [DONE]: %v, %v", e, err)
			}
			return events
		}
		events = append(events, e)
	}
}

// end reads to the end and gives the last event's data.
func (f *feed) end() map[string]any {
	f.t.Helper()
	events := f.all()
	if len(events) == 0 || events[len(events)-1].name != "end" {
		f.t.Fatalf("the last of %d events is not the end", len(events))
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(events[len(events)-1].data), &v); err != nil {
		f.t.Fatal(err)
	}
	return v
}

func (f *feed) close() { _ = f.resp.Body.Close() }

// until polls for something that happens soon.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(soon)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, soon)
		}
	}
}
