package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/claude/broker"
)

// world is a broker between a client and an upstream, all on loopback.
type world struct {
	*broker.Broker
	url   string
	log   *bytes.Buffer
	token *broker.Token

	mu   sync.Mutex
	seen []*http.Request // by the upstream
}

// newWorld starts a world around the upstream's handler. It checks in the end
// that the key is not in the log.
func newWorld(t *testing.T, upstream http.HandlerFunc, opts broker.Options) *world {
	t.Helper()
	w := &world{log: new(bytes.Buffer)}
	up := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.seen = append(w.seen, r)
		w.mu.Unlock()
		upstream(rw, r)
	}))
	t.Cleanup(up.Close)
	if opts.Upstream == "" {
		opts.Upstream = up.URL + "/base"
	}
	if opts.Key.IsZero() && opts.KeyFunc == nil {
		opts.Key = broker.APIKey(theKey)
	}
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	opts.Transport = transport
	opts.Log = slog.New(slog.NewTextHandler(w.log, nil))
	b, err := broker.New(&opts)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if strings.Contains(w.log.String(), theKey) || strings.Contains(w.log.String(), w.token.Value()) {
			t.Errorf("a secret is in the log: %s", w.log)
		}
	})
	w.Broker, w.url, w.token = b, "http://"+l.Addr().String(), b.NewToken(nil)
	return w
}

func (w *world) reached() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

func (w *world) request(t *testing.T, ctx context.Context, method, path string, body io.Reader, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, w.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	r.Header.Set("X-Api-Key", w.token.Value())
	for i := 0; i < len(headers); i += 2 {
		r.Header.Del(headers[i])
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	return r
}

var noRedirects = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func (w *world) do(t *testing.T, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	resp, err := noRedirects.Do(w.request(t, t.Context(), method, path, strings.NewReader(body), headers...))
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

func wantError(t *testing.T, resp *http.Response, body string, status int, errType string) {
	t.Helper()
	var got struct {
		Type  string
		Error struct{ Type, Message string }
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != status || got.Type != "error" || got.Error.Type != errType || got.Error.Message == "" {
		t.Errorf("got %d %s (%v), want %d %s", resp.StatusCode, body, err, status, errType)
	}
	if strings.Contains(body, theKey) {
		t.Errorf("the key is in %s", body)
	}
}

// echo answers with the request's body, once it has all of it.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"ok":true}`) }

func TestTheTokenBecomesTheKey(t *testing.T) {
	for name, test := range map[string]struct {
		key  broker.Key
		want map[string]string
	}{
		"api key": {broker.APIKey(theKey), map[string]string{"X-Api-Key": theKey, "Authorization": "", "Anthropic-Beta": "a,b"}},
		"bearer":  {broker.BearerToken(theKey), map[string]string{"X-Api-Key": "", "Authorization": "Bearer " + theKey, "Anthropic-Beta": "a,b,oauth-2025-04-20"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, echo, broker.Options{Key: test.key})
			resp, body := w.do(t, http.MethodPost, "/v1/messages?beta=true", `{"a":1}`,
				"Authorization", "Bearer "+w.token.Value(), "Cookie", "a=b", "Proxy-Authorization", "Basic eA==",
				"Anthropic-Version", "2023-06-01", "Anthropic-Beta", "a,b", "X-Stainless-Os", "Linux", "X-Claude-Code-Session-Id", "s",
				"X-Forwarded-For", "1.2.3.4", "Forwarded", "for=1.2.3.4", "X-Evil", "1", "Anthropic-Api-Key", "inside",
				"Anthropic-Auth-Token", "inside", "Connection", "X-Api-Key, Anthropic-Version-X, close", "Host", "evil.example", "Te", "trailers")
			if resp.StatusCode != http.StatusOK || body != `{"a":1}` {
				t.Fatalf("got %d %s", resp.StatusCode, body)
			}
			got := w.reached()[0]
			if got.URL.String() != "/base/v1/messages?beta=true" || "http://"+got.Host == w.url {
				t.Errorf("the upstream was asked for %s of %s", got.URL, got.Host)
			}
			want := map[string]string{
				"Cookie": "", "Proxy-Authorization": "", "X-Forwarded-For": "", "Forwarded": "", "X-Evil": "", "Te": "",
				"Anthropic-Api-Key": "", "Anthropic-Auth-Token": "", "Anthropic-Version": "2023-06-01",
				"X-Stainless-Os": "Linux", "X-Claude-Code-Session-Id": "s", "Accept-Encoding": "identity",
			}
			for header, value := range test.want {
				want[header] = value
			}
			for header, value := range want {
				if got.Header.Get(header) != value {
					t.Errorf("%s: %q, want %q", header, got.Header.Get(header), value)
				}
			}
			for header, values := range got.Header {
				if strings.Contains(strings.Join(values, " "), w.token.Value()) {
					t.Errorf("the phantom token went out as %s", header)
				}
			}
		})
	}
}

func TestOnlyValidTokens(t *testing.T) {
	w := newWorld(t, ok, broker.Options{})
	revoked := w.NewToken(nil)
	revoked.Revoke()
	revoked.Revoke()
	other, err := broker.New(&broker.Options{Key: broker.APIKey(theKey)})
	if err != nil {
		t.Fatal(err)
	}
	for name, headers := range map[string][]string{
		"none":              {"X-Api-Key", ""},
		"wrong":             {"X-Api-Key", "vivarium-x"},
		"empty bearer":      {"X-Api-Key", "", "Authorization", "Bearer "},
		"revoked":           {"X-Api-Key", revoked.Value()},
		"another broker's":  {"X-Api-Key", other.NewToken(nil).Value()},
		"the real key":      {"X-Api-Key", theKey},
		"basic":             {"X-Api-Key", "", "Authorization", "Basic " + w.token.Value()},
		"as a cookie":       {"X-Api-Key", "", "Cookie", "x-api-key=" + w.token.Value()},
		"with another case": {"X-Api-Key", strings.ToUpper(w.token.Value())},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := w.do(t, http.MethodPost, "/v1/messages", "{}", headers...)
			wantError(t, resp, body, 401, "authentication_error")
		})
	}
	if n := len(w.reached()); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	for _, headers := range [][]string{{}, {"X-Api-Key", "", "Authorization", "bearer " + w.token.Value()}} {
		if resp, body := w.do(t, http.MethodPost, "/v1/messages", "{}", headers...); resp.StatusCode != http.StatusOK {
			t.Errorf("with %v: %d %s", headers, resp.StatusCode, body)
		}
	}
}

// A token issued for a run is worth nothing after it.
func TestIssuedTokens(t *testing.T) {
	b, err := broker.New(&broker.Options{Key: broker.APIKey(theKey), Upstream: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	token, revoke, err := b.IssueToken()
	if err != nil {
		t.Fatal(err)
	}
	ask := func() int {
		r := httptest.NewRequest(http.MethodGet, "/nowhere", nil)
		r.Header.Set("X-Api-Key", token)
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		return w.Code
	}
	if got := ask(); got != http.StatusNotFound {
		t.Errorf("with the token: %d, want 404, which only those with a token get", got)
	}
	revoke()
	if got := ask(); got != http.StatusUnauthorized {
		t.Errorf("after it was revoked: %d, want 401", got)
	}
}

func TestTokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := broker.New(&broker.Options{Key: broker.APIKey(theKey), Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		token := b.NewToken(&broker.TokenOptions{TTL: time.Hour})
		try := func() int {
			r := httptest.NewRequest(http.MethodPost, "/v1/messages", strings.NewReader("{}"))
			r.Header.Set("X-Api-Key", token.Value())
			w := httptest.NewRecorder()
			b.ServeHTTP(w, r)
			return w.Code
		}
		if got := try(); got != 200 {
			t.Errorf("at once: %d", got)
		}
		<-time.After(time.Hour) // by the clock of the bubble
		b.NewToken(nil)         // sweeps
		if got := try(); got != 401 {
			t.Errorf("after an hour: %d, want 401", got)
		}
	})
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestAdoptToken has another broker take over the token of a run, as after a restart.
func TestAdoptToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newBroker := func() *broker.Broker {
			b, err := broker.New(&broker.Options{Key: broker.APIKey(theKey), Upstream: "http://127.0.0.1:1"})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		first, second := newBroker(), newBroker()
		token, _, err := first.IssueToken()
		if err != nil {
			t.Fatal(err)
		}
		accepted := func(want bool) {
			t.Helper()
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/nowhere", nil)
			r.Header.Set("X-Api-Key", token)
			second.ServeHTTP(w, r) // 404 for those with a token, else 401
			if got := w.Code == http.StatusNotFound; got != want {
				t.Errorf("status %d", w.Code)
			}
		}
		accepted(false)
		for _, bad := range []string{"", "vivarium-", token[:len(token)-1], "sk-ant-" + token, token + "AAAA", strings.TrimPrefix(token, "vivarium-")} {
			if _, err := second.AdoptToken(bad); err == nil || strings.Contains(err.Error(), token) {
				t.Errorf("%d bytes that are no token: %v", len(bad), err)
			}
		}
		early, err := second.With(broker.TokenOptions{TTL: time.Second}).AdoptToken(token)
		if err != nil {
			t.Fatal(err)
		}
		accepted(true)
		if _, err := second.AdoptToken(token); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("one that is in use: %v", err)
		}
		<-time.After(time.Second) // by the clock of the bubble, and before the next sweep
		accepted(false)
		late, err := second.AdoptToken(token)
		if err != nil {
			t.Fatal(err)
		}
		early() // is of the one that has expired
		accepted(true)
		late()
		accepted(false)
	})
}

func TestEndpoints(t *testing.T) {
	w := newWorld(t, ok, broker.Options{})
	for target, status := range map[string]int{
		"POST /v1/messages": 200, "POST /v1/messages/count_tokens?beta=true": 200,
		"GET /v1/models?limit=1000": 200, "GET /v1/models/claude-x-5.5": 200, "HEAD /v1/models": 200,
		"GET /v1/messages": 404, "PUT /v1/messages": 404, "DELETE /v1/models/a": 404, "POST /v1/models": 404,
		"POST /v1/messages/batches": 404, "POST /v1/messages/": 404, "POST /v1/complete": 404, "GET /v1/files": 404,
		"POST /V1/messages": 404, "GET /": 404, "OPTIONS /v1/messages": 404, "TRACE /v1/messages": 404,
		"POST /api/event_logging/v2/batch": 404, "GET /v1/organizations/me": 404, "GET /v1/models/": 404, "GET /v1/models/..": 404,
	} {
		before := len(w.reached())
		method, path, _ := strings.Cut(target, " ")
		resp, body := w.do(t, method, path, map[string]string{http.MethodPost: "{}"}[method])
		if resp.StatusCode != status {
			t.Errorf("%s: %d %s, want %d", target, resp.StatusCode, body, status)
		}
		if status == 404 {
			wantError(t, resp, body, 404, "not_found_error")
		}
		if went := len(w.reached()) > before; went != (status == 200) {
			t.Errorf("%s: reached the upstream: %v", target, went)
		}
	}
	if resp, _ := w.do(t, http.MethodHead, "/api/hello", "", "X-Api-Key", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("HEAD /api/hello: %d", resp.StatusCode)
	}
}

func TestStreamsAsItComes(t *testing.T) {
	next := make(chan string)
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		for line := range next {
			_, _ = io.WriteString(rw, line)
			_ = http.NewResponseController(rw).Flush()
		}
	}, broker.Options{})
	go func() { next <- "data: s\n\n" }() // the first piece ends like the key begins, but for the newline
	resp, err := http.DefaultClient.Do(w.request(t, t.Context(), http.MethodPost, "/v1/messages", strings.NewReader("{}")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body := bufio.NewReader(resp.Body)
	read := func(want string) {
		t.Helper()
		for _, part := range strings.SplitAfter(want, "\n") {
			if line, err := body.ReadString('\n'); part != "" && (line != part || err != nil) {
				t.Fatalf("got %q, %v, want %q", line, err, part)
			}
			if part == "\n" {
				return
			}
		}
	}
	read("data: s\n\n")
	for _, event := range []string{"data: 1\n\n", "data: 2\n\n"} { // each is there before the next is written
		next <- event
		read(event)
	}
	close(next)
	if rest, err := io.ReadAll(body); err != nil || len(rest) != 0 {
		t.Errorf("got %q, %v at the end", rest, err)
	}
}

func TestAClientThatIsGoneEndsTheRequest(t *testing.T) {
	started, ended := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(started)
		<-r.Context().Done()
		close(ended)
	}, broker.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	resp, err := http.DefaultClient.Do(w.request(t, ctx, http.MethodPost, "/v1/messages", strings.NewReader("{}")))
	if err == nil {
		_ = resp.Body.Close()
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended
}

func TestRevokeCutsRequests(t *testing.T) {
	ended := make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(rw, "data: 1\n\n")
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
		close(ended)
	}, broker.Options{})
	resp, err := http.DefaultClient.Do(w.request(t, t.Context(), http.MethodPost, "/v1/messages", strings.NewReader("{}")))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	w.token.Revoke()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the stream ended as if it were whole")
	}
	<-ended
}

func TestTooMuch(t *testing.T) {
	release := make(chan struct{})
	arrived := make(chan struct{}, 8)
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if err == nil {
			arrived <- struct{}{}
			<-release
		}
		ok(rw, r)
	}, broker.Options{MaxBody: 100})
	t.Run("body", func(t *testing.T) {
		resp, body := w.do(t, http.MethodPost, "/v1/messages", strings.Repeat("x", 101))
		wantError(t, resp, body, 413, "request_too_large")
	})
	t.Run("body of unknown length", func(t *testing.T) {
		r := w.request(t, t.Context(), http.MethodPost, "/v1/messages", io.MultiReader(strings.NewReader(`{"x":"`+strings.Repeat("x", 60)), strings.NewReader(strings.Repeat("x", 60))))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, resp, string(body), 413, "request_too_large")
	})
	t.Run("at a time", func(t *testing.T) {
		w.token = w.NewToken(&broker.TokenOptions{Limits: broker.Limits{InFlight: 2}})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				resp, err := http.DefaultClient.Do(w.request(t, t.Context(), http.MethodPost, "/v1/messages", strings.NewReader("{}")))
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("got %v, %v", resp, err)
					return
				}
				_ = resp.Body.Close()
			})
		}
		<-arrived
		<-arrived
		resp, body := w.do(t, http.MethodPost, "/v1/messages", "{}")
		wantError(t, resp, body, 429, "rate_limit_error")
		close(release)
		wg.Wait()
	})
}

func TestConcurrently(t *testing.T) {
	w := newWorld(t, echo, broker.Options{})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			token := w.NewToken(nil)
			defer token.Revoke()
			body := `{"x":"` + strings.Repeat(string(rune('a'+i%26)), 1000+i) + `"}`
			if resp, got := w.do(t, http.MethodPost, "/v1/messages", body, "X-Api-Key", token.Value()); resp.StatusCode != http.StatusOK || got != body {
				t.Errorf("got %d and %d bytes", resp.StatusCode, len(got))
			}
		})
	}
	wg.Wait()
}

// TestConnectionsAreBounded opens more connections than are served at once. Only
// so many are accepted, the rest wait for one of them.
func TestConnectionsAreBounded(t *testing.T) {
	const limit = 128
	b, err := broker.New(&broker.Options{Key: broker.APIKey(theKey)})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &countingListener{Listener: inner}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, l) }()
	var conns []net.Conn
	hello := func(c net.Conn) {
		if _, err := io.WriteString(c, "HEAD /api/hello HTTP/1.1\r\nHost: b\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodHead})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	for i := range limit + 1 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		if i < limit {
			hello(c) // and it is kept alive
		}
	}
	conns[0].Close()
	hello(conns[limit])
	if most := l.most.Load(); most != limit {
		t.Errorf("%d connections were open at once, want %d", most, limit)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// countingListener counts the connections that are open.
type countingListener struct {
	net.Listener
	open, most atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.most.Store(max(l.most.Load(), l.open.Add(1)))
	return &countedConn{Conn: c, gone: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
}

type countedConn struct {
	net.Conn
	gone func()
}

func (c *countedConn) Close() error {
	c.gone()
	return c.Conn.Close()
}
