package broker_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude/broker"
)

func TestWhatTheUpstreamAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		answer  http.HandlerFunc
		status  int
		errType string
	}{
		"redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, 502, "api_error"},
		"bad key": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, "no such key: "+r.Header.Get("X-Api-Key"))
		}, 401, "authentication_error"},
		"gzip": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "xx")
		}, 502, "api_error"},
		"cut": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502, "api_error"},
		"switching": {func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
				_ = conn.Close()
			}
		}, 502, "api_error"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.answer, broker.Options{})
			resp, body := w.do(t, http.MethodPost, "/v1/messages", "{}")
			wantError(t, resp, body, test.status, test.errType)
			if resp.Header.Get("Location") != "" {
				t.Error("the Location went inside")
			}
		})
	}
}

func TestErrorsOfTheModelPass(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Retry-After", "7")
		rw.Header().Set("Anthropic-Ratelimit-Requests-Remaining", "0")
		rw.Header().Set("Request-Id", "req_1")
		rw.Header().Set("Set-Cookie", "a=b")
		rw.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(rw, `{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}`)
	}, broker.Options{})
	resp, body := w.do(t, http.MethodPost, "/v1/messages", "{}")
	wantError(t, resp, body, 429, "rate_limit_error")
	for header, want := range map[string]string{"Retry-After": "7", "Anthropic-Ratelimit-Requests-Remaining": "0", "Request-Id": "req_1", "Set-Cookie": ""} {
		if got := resp.Header.Get(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
}

func TestAnUpstreamThatRepeatsTheKey(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("X-Api-Key")
		rw.Header().Set("X-Echo", "got "+key)
		rw.Header().Set("Trailer", "X-Late")
		for _, part := range []string{"key " + key[:5], key[5:] + " and ", key + key, "\n", key[:9]} {
			_, _ = io.WriteString(rw, part)
			_ = http.NewResponseController(rw).Flush()
		}
		rw.Header().Set("X-Late", key)
	}, broker.Options{})
	resp, body := w.do(t, http.MethodPost, "/v1/messages", "{}")
	stars := strings.Repeat("*", len(theKey))
	if want := "key " + stars + " and " + stars + stars + "\n" + theKey[:9]; body != want {
		t.Errorf("got %q, want %q", body, want)
	}
	if resp.Header.Get("X-Echo") != "" || len(resp.Trailer) != 0 {
		t.Errorf("headers %v, trailers %v", resp.Header, resp.Trailer)
	}
}

func TestUpstreamIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, ok, broker.Options{Upstream: "http://" + address})
	resp, body := w.do(t, http.MethodPost, "/v1/messages", "{}")
	wantError(t, resp, body, 502, "api_error")
	if strings.Contains(body, address) {
		t.Errorf("the inside learns the upstream's address: %s", body)
	}
	if !strings.Contains(w.log.String(), w.token.ID()) {
		t.Errorf("the log does not say whose request failed: %s", w.log)
	}
}

func TestKeyFunc(t *testing.T) {
	for name, test := range map[string]struct {
		key  broker.Key
		err  error
		want int
	}{
		"a key":         {key: broker.APIKey(theKey), want: 200},
		"no key":        {want: 502},
		"an error":      {err: errors.New("vault is shut"), want: 502},
		"both":          {key: broker.APIKey(theKey), err: fmt.Errorf("stale: %s", theKey), want: 502},
		"no header":     {key: broker.APIKey(theKey + "\nX: y"), want: 502},
		"not even HTTP": {key: broker.APIKey("schlüssel"), want: 502},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ok, broker.Options{KeyFunc: func(context.Context) (broker.Key, error) { return test.key, test.err }})
			resp, body := w.do(t, http.MethodPost, "/v1/messages", "{}")
			if resp.StatusCode != test.want || strings.Contains(body, "vault") {
				t.Errorf("got %d %s", resp.StatusCode, body)
			}
		})
	}
}

// TestTricks speaks to the broker in raw bytes, as what is inside may.
func TestTricks(t *testing.T) {
	w := newWorld(t, ok, broker.Options{})
	token := "X-Api-Key: " + w.token.Value() + "\r\n"
	for name, raw := range map[string]string{
		"dots":               "POST /v1/messages/../../x HTTP/1.1\r\nHost: b\r\n" + token + "Content-Length: 0\r\n\r\n",
		"encoded dots":       "POST /v1/%2e%2e/v1/messages HTTP/1.1\r\nHost: b\r\n" + token + "Content-Length: 0\r\n\r\n",
		"encoded slash":      "GET /v1/models/..%2f..%2fx HTTP/1.1\r\nHost: b\r\n" + token + "\r\n",
		"encoded letter":     "POST /v1/%6dessages HTTP/1.1\r\nHost: b\r\n" + token + "Content-Length: 0\r\n\r\n",
		"double slash":       "POST //v1/messages HTTP/1.1\r\nHost: b\r\n" + token + "Content-Length: 0\r\n\r\n",
		"inner double slash": "POST /v1//messages HTTP/1.1\r\nHost: b\r\n" + token + "Content-Length: 0\r\n\r\n",
		"authority":          "POST //evil.example/v1/messages HTTP/1.1\r\nHost: b\r\n" + token + "Content-Length: 0\r\n\r\n",
		"absolute form":      "POST http://evil.example/v1/messages HTTP/1.1\r\nHost: b\r\n" + token + "Content-Length: 0\r\n\r\n",
		"connect":            "CONNECT api.anthropic.com:443 HTTP/1.1\r\nHost: api.anthropic.com:443\r\n" + token + "\r\n",
		"connect to a path":  "CONNECT /v1/messages HTTP/1.1\r\nHost: b\r\n" + token + "\r\n",
		"asterisk":           "OPTIONS * HTTP/1.1\r\nHost: b\r\n" + token + "\r\n",
		"upgrade":            "GET /v1/models HTTP/1.1\r\nHost: b\r\n" + token + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"semicolon":          "POST /v1/messages;x HTTP/1.1\r\nHost: b\r\n" + token + "Content-Length: 0\r\n\r\n",
		"backslash":          "POST /v1\\messages HTTP/1.1\r\nHost: b\r\n" + token + "Content-Length: 0\r\n\r\n",
		"zero":               "POST /v1/messages%00 HTTP/1.1\r\nHost: b\r\n" + token + "Content-Length: 0\r\n\r\n",
		"two lengths":        "POST /v1/messages HTTP/1.1\r\nHost: b\r\n" + token + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
		"odd coding":         "POST /v1/messages HTTP/1.1\r\nHost: b\r\n" + token + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"folded token":       "POST /v1/messages HTTP/1.1\r\nHost: b\r\nX-Api-Key :" + w.token.Value() + "\r\nContent-Length: 0\r\n\r\n",
		"three tokens":       "POST /v1/messages HTTP/1.1\r\nHost: b\r\nX-Api-Key: a\r\nX-Api-Key: b\r\n" + token + "Content-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if status := speak(t, w.url, raw); status < 400 {
				t.Errorf("status %d, want a refusal", status)
			}
		})
	}
	if reached := w.reached(); len(reached) != 0 {
		t.Errorf("%s %s reached the upstream", reached[0].Method, reached[0].URL)
	}
}

// TestSmuggling sends a length and a coding that contradict each other. The
// upstream must see one request, framed anew.
func TestSmuggling(t *testing.T) {
	w := newWorld(t, echo, broker.Options{})
	speak(t, w.url, "POST /v1/messages HTTP/1.1\r\nHost: b\r\nX-Api-Key: "+w.token.Value()+
		"\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\nGET /v1/files HTTP/1.1\r\nHost: b\r\n\r\n")
	for _, r := range w.reached() {
		if r.URL.Path != "/base/v1/messages" || r.Header.Get("Content-Length") == "4" {
			t.Errorf("the upstream saw %s %s", r.Method, r.URL)
		}
	}
	if n := len(w.reached()); n > 1 {
		t.Errorf("the upstream saw %d requests", n)
	}
}

// speak sends raw bytes and returns the status of the first answer.
func speak(t *testing.T, url, raw string) int {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestServe(t *testing.T) {
	b, err := broker.New(&broker.Options{Key: broker.APIKey(theKey)})
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
	if status := speak(t, "http://"+l.Addr().String(), "HEAD /api/hello HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"); status != 200 {
		t.Errorf("status %d", status)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve returned %v after the context ended", err)
	}
	if err := b.Serve(t.Context(), l); err == nil {
		t.Error("Serve on a closed listener returned no error")
	}
}
