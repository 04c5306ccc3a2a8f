package sandboxhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandboxhttp"
)

func TestNewNeedsProviderAndAuth(t *testing.T) {
	p := newPlace(t, talk).provider()
	for _, config := range []*sandboxhttp.Config{nil, {}, {Provider: p}, {Auth: byHeader}} {
		if h, err := sandboxhttp.New(config); err == nil || h != nil {
			t.Errorf("%+v was taken", config)
		}
	}
}

func TestBodies(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, nil)
	box := s.create("")
	for _, c := range []struct {
		path, body string
		status     int
		code       string
		fields     []string
	}{
		{"/sandbox", `{`, 400, "invalid_request", nil},
		{"/sandbox", `{} {}`, 400, "invalid_request", nil},
		{"/sandbox", `{}x`, 400, "invalid_request", nil},
		{"/sandbox", "{\"name\":\"\xff\"}", 400, "invalid_request", nil},
		{"/sandbox", "\ufeff{}", 400, "invalid_request", nil},
		{"/sandbox", `[]`, 400, "invalid_request", []string{"body"}},
		{"/sandbox", `null`, 400, "invalid_request", []string{"body"}},
		{"/sandbox", `"x"`, 400, "invalid_request", []string{"body"}},
		{"/sandbox", `{"nam":"x"}`, 400, "invalid_request", []string{"nam"}},
		{"/sandbox", `{"Name":"x"}`, 400, "invalid_request", []string{"Name"}},
		{"/sandbox", `{"name":"x","name":"y"}`, 400, "invalid_request", []string{"name"}},
		{"/sandbox", `{"name":1,"cpu":"2","pids":1.5,"tags":[],"env":{"A":1},"network":"none"}`, 400, "invalid_request",
			[]string{"name", "cpu", "pids", "tags", "env.A", "network"}},
		{"/sandbox", `{"env":{"A":"1","A":"2"}}`, 400, "invalid_request", []string{"env.A"}},
		{"/sandbox", `{"dockerfile_commands":["RUN x",null,3]}`, 400, "invalid_request", []string{"dockerfile_commands[1]", "dockerfile_commands[2]"}},
		{"/sandbox", `{"network":{"mode":"none","x":1}}`, 400, "invalid_request", []string{"network.x"}},
		{"/sandbox", `{"name":"a b"}`, 422, "validation_failed", []string{"name"}},
		{"/sandbox", `{"cpu":-1,"memory_mb":-1,"disk_mb":99999999999,"timeout_seconds":-5}`, 422, "validation_failed",
			[]string{"cpu", "memory_mb", "disk_mb", "timeout_seconds"}},
		{"/sandbox", `{"tags":{"vivarium.account":"other"}}`, 422, "validation_failed", []string{"tags.vivarium.account"}},
		{"/sandbox", `{"network":{"mode":"some"}}`, 422, "validation_failed", []string{"network.mode"}},
		{"/sandbox", `{"network":{"mode":"allowlist"}}`, 422, "validation_failed", []string{"network"}},
		{"/sandbox", `{"network":{"mode":"allowlist","domains":["-x-"],"cidrs":["1.2.3"]}}`, 422, "validation_failed", []string{"network.domains", "network.cidrs"}},
		{"/sandbox", `{"snapshot":"s","image_base":"b"}`, 422, "validation_failed", []string{"snapshot"}},
		{"/sandbox", `{"env":{"A-B":"secret-value"}}`, 422, "validation_failed", []string{"env"}},
		{box + "/claude", `{}`, 422, "validation_failed", []string{"prompt"}},
		{box + "/claude", ``, 422, "validation_failed", []string{"prompt"}},
		{box + "/claude", `{"prompt":"  \n"}`, 422, "validation_failed", []string{"prompt"}},
		{box + "/claude", `{"prompt":"x","partial":"yes"}`, 400, "invalid_request", []string{"partial"}},
		{box + "/claude", `{"prompt":"x","session_id":"../../x","model":"--flag","max_turns":-1,"permission_mode":"all","allowed_tools":["-x"]}`, 422,
			"validation_failed", []string{"session_id", "model", "max_turns", "allowed_tools", "permission_mode"}},
		{box + "/runs/x/interrupt", `{"x":1}`, 400, "invalid_request", []string{"x"}},
	} {
		if fields := s.refused(c.status, c.code, "POST", c.path, c.body); !slices.Equal(fields, c.fields) {
			t.Errorf("%s %s: fields %q, want %q", c.path, c.body, fields, c.fields)
		}
	}
	if p.alive() != 1 || strings.Contains(s.log.String(), "secret-value") {
		t.Errorf("%d alive, log %s", p.alive(), s.log)
	}
	s.create(`{"name":null,"cpu":null,"network":null,"tags":null}`) // null is as if it were not there
}

func TestBodyLimitAndType(t *testing.T) {
	s := serve(t, newPlace(t, talk), nil)
	huge := `{"name":"` + strings.Repeat("x", 2<<20) + `"}`
	s.refused(413, "body_too_large", "POST", "/sandbox", huge)
	for _, media := range []string{"text/plain", "application/x-www-form-urlencoded", "application/jsonx", ";", ""} {
		s.refused(415, "unsupported_media_type", "POST", "/sandbox", "{}", "Content-Type", media)
	}
	s.ask(201, "POST", "/sandbox", "{}", "Content-Type", "application/json; charset=utf-8")
}

func TestPathsAndMethods(t *testing.T) {
	s := serve(t, newPlace(t, talk), nil)
	box := s.create("")
	for _, path := range []string{"/", "/sandboxes", "/sandbox/", box + "/", box + "/files", "/sandbox//x", "/sandbox/../healthz", box + "/runs/", "/sandbox/%2e%2e/x", "/%00"} {
		s.refused(404, "not_found", "GET", path, "")
	}
	for path, allow := range map[string]string{
		"/sandbox": "GET, POST", box: "GET, DELETE", box + "/claude": "POST", box + "/runs": "GET", box + "/runs/x/events": "GET",
	} {
		resp := s.request("PATCH", path, "")
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != allow || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("PATCH %s: %d, Allow %q", path, resp.StatusCode, resp.Header.Get("Allow"))
		}
	}
	s.refused(405, "method_not_allowed", "GET", box+"/claude", "")
	s.refused(405, "method_not_allowed", "POST", box, "{}")
}

func TestCrossOriginIsRefused(t *testing.T) {
	s := serve(t, newPlace(t, talk), nil)
	s.refused(403, "cross_origin", "POST", "/sandbox", "", "Sec-Fetch-Site", "cross-site")
	s.refused(403, "cross_origin", "POST", "/sandbox", "", "Origin", "https://evil.example")
	s.ask(201, "POST", "/sandbox", "", "Origin", s.http.URL)
	s.ask(201, "POST", "/sandbox", "", "Sec-Fetch-Site", "same-origin")
}

func TestRolesAndAuthentication(t *testing.T) {
	s := serve(t, newPlace(t, talk), nil)
	box := s.create("")
	f := s.prompt(box, "go")
	f.all()
	nobody := s.as("")
	if resp := nobody.request("GET", "/sandbox", ""); resp.Header.Get("WWW-Authenticate") == "" {
		t.Error("401 without WWW-Authenticate")
	}
	for _, path := range []string{"/sandbox", box, "/nowhere", f.run(box) + "/events"} {
		nobody.refused(401, "unauthenticated", "GET", path, "")
	}
	viewer := s.as("acme viewer")
	viewer.ask(200, "GET", box, "")
	if viewer.follow("GET", f.run(box)+"/events", "").end()["end"] != "completed" {
		t.Error("a viewer cannot follow")
	}
	for _, path := range []string{"POST /sandbox", "DELETE " + box, "POST " + box + "/claude", "POST " + f.run(box) + "/interrupt"} {
		method, path, _ := strings.Cut(path, " ")
		viewer.refused(403, "forbidden", method, path, "")
	}
	if p := s.as("broken").ask(500, "GET", "/sandbox", ""); p["code"] != "internal" || p["retryable"] != true { // it may be back soon
		t.Errorf("what failed inside: %v", p)
	}
	if !strings.Contains(s.log.String(), "users is down") {
		t.Error("the failure of Auth was not logged")
	}
	s.as(strings.Repeat("x", 129)).refused(500, "internal", "GET", "/sandbox", "")
	nobody.ask(200, "GET", "/healthz", "")
	nobody.ask(200, "GET", "/readyz", "")
}

func TestBearerToken(t *testing.T) {
	who := &sandboxhttp.Principal{Account: "acme"}
	for _, c := range []struct {
		token, header string
		ok            bool
	}{
		{"s3cret", "Bearer s3cret", true},
		{"s3cret", "bearer s3cret", true},
		{"s3cret", "Bearer s3cre", false},
		{"s3cret", "Bearer s3crets", false},
		{"s3cret", "Basic s3cret", false},
		{"s3cret", "s3cret", false},
		{"s3cret", "", false},
		{"", "", false},
		{"", "Bearer ", false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", c.header)
		p, err := sandboxhttp.BearerToken(c.token, who)(r)
		if (err == nil) != c.ok || (p == who) != c.ok || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("token %q, header %q: %v, %v", c.token, c.header, p, err)
		}
	}
}

func TestLocalIsForThisMachineOnly(t *testing.T) {
	auth := sandboxhttp.Local("me")
	for _, c := range []struct {
		peer, host string
		ok         bool
	}{
		{"127.0.0.1:5", "localhost:8080", true},
		{"[::1]:5", "[::1]:8080", true},
		{"127.0.0.1:5", "127.0.0.1", true},
		{"[::ffff:127.0.0.1]:5", "LOCALHOST.", true},
		{"127.0.0.1:5", "evil.example:8080", false}, // DNS rebinding
		{"127.0.0.1:5", "localhost.evil.example", false},
		{"127.0.0.1:5", "", false},
		{"192.0.2.1:5", "localhost:8080", false},
		{"@", "localhost", false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr, r.Host = c.peer, c.host
		p, err := auth(r)
		if (err == nil) != c.ok || c.ok && p.Account != "me" {
			t.Errorf("from %s for %s: %v, %v", c.peer, c.host, p, err)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	s := serve(t, newPlace(t, talk), nil)
	if got := s.ask(404, "GET", "/sandbox/x", "", "X-Request-Id", "from-the-proxy.1")["request_id"]; got != "from-the-proxy.1" {
		t.Errorf("request id %v", got)
	}
	for _, forged := range []string{"a b", "x\u00e9", strings.Repeat("x", 65), `"}{`} {
		if got := s.ask(404, "GET", "/sandbox/x", "", "X-Request-Id", forged)["request_id"]; got == forged {
			t.Errorf("%q was taken over", forged)
		}
	}
}

// Mounted below a prefix, behind a middleware that wraps the writer.
func TestMountedBelowAPrefixBehindAMiddleware(t *testing.T) {
	h, err := sandboxhttp.New(&sandboxhttp.Config{Provider: newPlace(t, talk).provider(), Auth: sandboxhttp.Local("me")})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", http.StripPrefix("/api/v1", h))
	wrapped := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { mux.ServeHTTP(wrappedWriter{w}, r) })
	s := &server{t: t, handler: h, http: httptest.NewServer(wrapped), log: new(logBuffer)}
	t.Cleanup(s.close)
	resp := s.request("POST", "/api/v1/sandbox", "")
	at, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil || !strings.HasPrefix(at.Path, "/api/v1/sandbox/sb-") {
		t.Fatalf("Location %v, %v", at, err)
	}
	s.ask(200, "GET", at.Path, "")
	if events := s.prompt(at.Path, "3").all(); len(events) != 5 {
		t.Errorf("%d events", len(events))
	}
	s.refused(404, "not_found", "GET", "/api/v1/sandbox/", "")
	s.refused(404, "not_found", "GET", "/api/v1/", "")
	s.ask(200, "GET", "/api/v1/healthz", "")
}

type wrappedWriter struct{ http.ResponseWriter }

func (w wrappedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A middleware that hides Flush makes streams impossible: that is said, and the
// run goes on.
func TestMiddlewareThatCannotFlush(t *testing.T) {
	s := serve(t, newPlace(t, talk), nil)
	box := s.create("")
	r := httptest.NewRequest(http.MethodPost, box+"/claude", strings.NewReader(`{"prompt":"go"}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Test-Account", "acme")
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(struct{ http.ResponseWriter }{rec}, r)
	if rec.Code != 500 || !strings.Contains(s.log.String(), "Unwrap") {
		t.Errorf("status %d, log %s", rec.Code, s.log)
	}
	until(t, "the run", func() bool {
		return s.ask(200, "GET", box+"/runs", "")["runs"].([]any)[0].(map[string]any)["end"] == "completed"
	})
}

func TestAbortIsLeftToTheServer(t *testing.T) {
	h, err := sandboxhttp.New(&sandboxhttp.Config{Provider: newPlace(t, talk).provider(), Auth: func(*http.Request) (*sandboxhttp.Principal, error) {
		panic(http.ErrAbortHandler)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Shutdown(context.Background()) })
	defer func() {
		if err, ok := recover().(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("recovered %v", err)
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/sandbox", nil))
}

// The error of a driver may say more than clients are to know.
func TestInternalErrorsAreForTheLog(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, nil)
	p.fail("create", fmt.Errorf("at 10.1.2.3: refused"))
	problem := s.ask(502, "POST", "/sandbox", "")
	if strings.Contains(fmt.Sprint(problem), "10.1.2.3") {
		t.Errorf("%v", problem)
	}
	if log := s.log.String(); !strings.Contains(log, "10.1.2.3") || !strings.Contains(log, problem["request_id"].(string)) {
		t.Errorf("log %s", log)
	}
	p.fail("create", fmt.Errorf("%w: run sysctl this", driver.ErrNoIsolation))
	if problem := s.ask(502, "POST", "/sandbox", ""); !strings.Contains(problem["detail"].(string), "run sysctl this") {
		t.Errorf("the remedy is not said: %v", problem)
	}
}

func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"name":"x","tags":{"a":"b"},"env":{"A":"1"},"network":{"mode":"full"}}`, `{"prompt":"x","partial":false}`,
		`{"s3":{"bucket":"b"},"volume_name":"w"}`, `[{}]`, `{"cpu":1e999}`, `{"memory_mb":9223372036854775807}`, `{"a":{"a":{"a":[]}}}`, "\"\\ud800\"",
	} {
		f.Add([]byte(seed))
	}
	p := newPlace(f, talk)
	p.fail("create", driver.ErrInvalid) // which is not tried again
	h, err := sandboxhttp.New(&sandboxhttp.Config{Provider: p.provider(), Auth: byHeader})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = h.Shutdown(f.Context()) })
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{"/sandbox", "/sandbox/x/claude"} {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(string(body)))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-Test-Account", "acme")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			data, _ := io.ReadAll(w.Body)
			if w.Code >= 500 || w.Code < 200 || len(data) == 0 || data[len(data)-1] != '\n' {
				t.Errorf("%s %q: status %d: %s", path, body, w.Code, data)
			}
		}
	})
}
