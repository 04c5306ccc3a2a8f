package claudetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options says how a [Handler] behaves. The zero value, and nil, are usable.
type Options struct {
	// Subagent answers the turns of subagents. Nil: a text, "Done."
	Subagent Script
	// Side answers the CLI's own questions ([Side]). Nil: a short text, or, where
	// the question asks for JSON of a schema, the smallest JSON that fits it.
	Side Script
	// CountTokens answers what the CLI asks of /v1/messages/count_tokens. Nil: one
	// token for every four bytes of the request.
	CountTokens func(r *Request) int
	// MaxBody limits a request's body, in bytes; a larger one is refused with 413
	// request_too_large. Zero: 32 MiB, the API's own limit.
	MaxBody int64
	// Keep is how many requests are kept for [Handler.Requests], the newest ones.
	// Zero: 1000. Negative: none, for a server that runs long.
	Keep int
}

// Handler is the stand-in as an [http.Handler]. It is safe for concurrent use.
type Handler struct {
	script Script
	opts   Options

	mu       sync.Mutex
	n        int
	requests []*Request
	waits    []wait
}

// NewHandler returns a handler that answers the turns of conversations with the
// script. A nil script says "ok".
func NewHandler(script Script, opts *Options) *Handler {
	h := &Handler{script: script}
	if opts != nil {
		h.opts = *opts
	}
	if h.script == nil {
		h.script = Text("ok")
	}
	if h.opts.Subagent == nil {
		h.opts.Subagent = Text("Done.")
	}
	if h.opts.Side == nil {
		h.opts.Side = answerAside
	}
	if h.opts.CountTokens == nil {
		h.opts.CountTokens = func(r *Request) int { return len(r.Body)/4 + 1 }
	}
	if h.opts.MaxBody <= 0 {
		h.opts.MaxBody = 32 << 20
	}
	if h.opts.Keep == 0 {
		h.opts.Keep = 1000
	}
	return h
}

// Requests returns the requests so far, oldest first: all of them, or only
// those of the kinds given.
func (h *Handler) Requests(kinds ...Kind) []*Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	var picked []*Request
	for _, r := range h.requests {
		if len(kinds) == 0 || slices.Contains(kinds, r.Kind) {
			picked = append(picked, r)
		}
	}
	return picked
}

func (h *Handler) record(r *Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	r.N = h.n
	h.tell(r)
	if h.opts.Keep < 0 {
		return
	}
	if len(h.requests) >= h.opts.Keep {
		h.requests = slices.Delete(h.requests, 0, len(h.requests)-h.opts.Keep+1)
	}
	h.requests = append(h.requests, r)
}

// ServeHTTP answers as the API would.
func (h *Handler) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, hr.Body, h.opts.MaxBody))
	if err != nil {
		refuseBody(w, err)
		return
	}
	r := &Request{
		Kind: Probe, Method: hr.Method, URL: hr.URL, Header: hr.Header.Clone(), Body: body, ctx: hr.Context(),
	}
	var decodeErr error
	if strings.HasPrefix(hr.URL.Path, "/v1/messages") && hr.Method == http.MethodPost {
		if decodeErr = r.decode(); decodeErr == nil {
			r.Kind = kindOf(r)
		}
	}
	if hr.URL.Path == "/v1/messages/count_tokens" {
		r.Kind = CountTokens
	}
	h.record(r)
	w.Header().Set("Request-Id", "req_"+strconv.Itoa(r.N))
	if decodeErr != nil {
		writeError(w, http.StatusBadRequest, "invalid_request_error", decodeErr.Error())
		return
	}
	h.route(w, r)
}

func (h *Handler) route(w http.ResponseWriter, r *Request) {
	switch r.Method + " " + r.URL.Path {
	case "POST /v1/messages":
		h.answer(w, r)
	case "POST /v1/messages/count_tokens":
		writeJSON(w, http.StatusOK, map[string]int{"input_tokens": h.opts.CountTokens(r)})
	case "GET /v1/models", "HEAD /v1/models":
		writeJSON(w, http.StatusOK, map[string]any{"data": []any{}, "has_more": false, "first_id": nil, "last_id": nil})
	case "GET /api/hello", "HEAD /api/hello", "GET /", "HEAD /":
		writeJSON(w, http.StatusOK, map[string]string{"message": "hello"})
	default:
		writeError(w, http.StatusNotFound, "not_found_error", "claudetest: no such endpoint: "+r.Method+" "+r.URL.Path)
	}
}

func (h *Handler) answer(w http.ResponseWriter, r *Request) {
	reply := newReply(w, r)
	switch r.Kind {
	case Subagent:
		h.opts.Subagent(reply, r)
	case Side:
		h.opts.Side(reply, r)
	default:
		h.script(reply, r)
	}
	reply.finish()
}

// answerAside is the default for [Options.Side].
func answerAside(w *Reply, r *Request) {
	switch {
	case len(r.schema) > 0:
		encoded, err := json.Marshal(smallest(r.schema, 0))
		if err != nil {
			w.Error(http.StatusBadRequest, "invalid_request_error", err.Error())
			return
		}
		w.Text(string(encoded))
	case asksForSummary(r):
		w.Text("<summary>A scripted conversation.</summary>")
	default:
		w.Text("scripted")
	}
}

// smallest returns the smallest value that fits the common part of JSON Schema.
func smallest(schema json.RawMessage, depth int) any {
	var s struct {
		Type       string
		Enum       []any
		Properties map[string]json.RawMessage
		Required   []string
	}
	if depth > 32 || json.Unmarshal(schema, &s) != nil {
		return nil
	}
	if len(s.Enum) > 0 {
		return s.Enum[0]
	}
	switch s.Type {
	case "object":
		object := map[string]any{}
		for _, name := range s.Required {
			object[name] = smallest(s.Properties[name], depth+1)
		}
		return object
	case "array":
		return []any{}
	case "string":
		return "scripted"
	case "number", "integer":
		return 0
	case "boolean":
		return false
	default:
		return nil
	}
}

func refuseBody(w http.ResponseWriter, err error) {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		writeError(w, http.StatusRequestEntityTooLarge, "request_too_large",
			fmt.Sprintf("claudetest: the body is larger than %d bytes", tooLarge.Limit))
		return
	}
	writeError(w, http.StatusBadRequest, "invalid_request_error", "claudetest: the body could not be read")
}

func writeError(w http.ResponseWriter, status int, errType, message string) {
	writeJSON(w, status, map[string]any{
		"type": "error", "error": map[string]string{"type": errType, "message": message},
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	encoded, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("claudetest: %v", err)) // only own values and checked scripts come here
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(encoded)))
	w.WriteHeader(status)
	_, _ = w.Write(encoded) // the client is gone: nobody to tell
}

// Server is a [Handler] that listens on a port of the loopback interface.
type Server struct {
	*Handler
	// URL is where it listens, for ANTHROPIC_BASE_URL: http://127.0.0.1:PORT
	URL string

	http   *http.Server
	cancel context.CancelFunc
	done   chan struct{}
}

// NewServer starts a server for the script; see [NewHandler]. The caller ends
// it with Close or Shutdown.
func NewServer(script Script, opts *Options) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("claudetest: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{Handler: NewHandler(script, opts), URL: "http://" + l.Addr().String(), cancel: cancel, done: make(chan struct{})}
	s.http = &http.Server{
		Handler:           s.Handler,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l) // always an error: that the server was closed
	}()
	return s, nil
}

// TB is the part of [testing.TB] that Start needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Start is [NewServer] for tests: the server ends with the test, and a failure
// to start is the test's.
func Start(t TB, script Script) *Server {
	t.Helper()
	return StartWith(t, script, nil)
}

// StartWith is Start with options.
func StartWith(t TB, script Script, opts *Options) *Server {
	t.Helper()
	s, err := NewServer(script, opts)
	if err != nil {
		t.Fatalf("%v", err)
		return nil
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Env returns the environment variables that make the CLI use the server and
// nothing else on the network, and fail at the first error. They come before
// the caller's own (HOME, PATH, …); later ones win.
func (s *Server) Env() []string {
	return []string{
		"ANTHROPIC_BASE_URL=" + s.URL,
		"ANTHROPIC_API_KEY=claudetest",
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
		"CLAUDE_CODE_MAX_RETRIES=0",
	}
}

// Shutdown stops accepting requests and waits for the replies under way, until
// the context is done; then, as Close, it cuts them.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	s.cancel()
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}

// Close ends the server at once: replies that wait for a [Gate] are cancelled,
// and those that are not done after five seconds are cut. Closing it again does
// nothing.
func (s *Server) Close() error {
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	err := s.http.Close()
	<-s.done
	return err
}
