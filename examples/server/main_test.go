package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/internal/pgtest"
	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

// mainVariable makes the test's binary the example itself.
const mainVariable = "SERVER_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(pgtest.Main(m))
}

// server is the example, run as main does.
type server struct {
	url    string
	output *output
	stop   context.CancelFunc
	done   chan error
	client *http.Client
	token  string
}

// output collects what the server prints, and tells its address.
type output struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	ready chan string
}

var readyRE = regexp.MustCompile(`is ready on (http://\S+)`)

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	if m := readyRE.FindSubmatch(o.buf.Bytes()); m != nil {
		select {
		case o.ready <- string(m[1]):
		default:
		}
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start runs the example with the scripted stand-in, and skips where the main
// job cannot be done.
func start(t *testing.T, data string, env map[string]string, args ...string) *server {
	t.Helper()
	cli := clitest.CLI(t)
	sandboxtest.New(t, nil) // skips where there is no isolation
	clitest.OnPath(t, cli)
	ctx, stop := context.WithCancel(context.Background())
	s := &server{
		output: &output{ready: make(chan string, 1)}, stop: stop, done: make(chan error, 1),
		client: &http.Client{Transport: &http.Transport{}},
	}
	args = append([]string{"-addr", "127.0.0.1:0", "-data", data}, args...)
	getenv := func(name string) string { return env[name] }
	go func() { s.done <- run(ctx, args, getenv, s.output, s.output) }()
	t.Cleanup(func() { s.end(t) })
	select {
	case s.url = <-s.output.ready:
	case err := <-s.done:
		s.done <- nil
		t.Fatalf("the server ended: %v\n%s", err, s.output)
	case <-time.After(time.Minute):
		t.Fatalf("the server is not ready after a minute:\n%s", s.output)
	}
	return s
}

// end stops the server, once.
func (s *server) end(t *testing.T) {
	t.Helper()
	s.client.CloseIdleConnections()
	s.stop()
	if s.done == nil {
		return
	}
	if err := <-s.done; err != nil {
		t.Errorf("the server ended with %v\n%s", err, s.output)
	}
	s.done = nil
}

// do sends a request and wants a status.
func (s *server) do(t *testing.T, method, path, body string, want int) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", method, path, err, s.output)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != want {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %s, want %d\n%s\n%s", method, path, resp.Status, want, text, s.output)
	}
	return resp
}

// object sends a request and decodes the answer.
func (s *server) object(t *testing.T, method, path, body string, want int) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.NewDecoder(s.do(t, method, path, body, want).Body).Decode(&v); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return v
}

// run runs a prompt and returns its events' data, to the last one.
func (s *server) run(t *testing.T, sandbox, body string) (lines []string, end map[string]any) {
	t.Helper()
	return events(t, s.do(t, "POST", "/sandbox/"+sandbox+"/claude", body, http.StatusOK))
}

// follow is run for one that there was.
func (s *server) follow(t *testing.T, path string) (lines []string, end map[string]any) {
	t.Helper()
	return events(t, s.do(t, "GET", path, "", http.StatusOK))
}

func events(t *testing.T, resp *http.Response) (lines []string, end map[string]any) {
	t.Helper()
	event := ""
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(nil, 8<<20)
	for scan.Scan() {
		if name, ok := strings.CutPrefix(scan.Text(), "event: "); ok {
			event = name
		}
		data, ok := strings.CutPrefix(scan.Text(), "data: ")
		switch {
		case !ok:
			continue
		case data == "[DONE]":
			return lines, end
		case event == "end":
			if err := json.Unmarshal([]byte(data), &end); err != nil {
				t.Fatal(err)
			}
		case event == "":
			lines = append(lines, data)
		}
		event = ""
	}
	t.Fatalf("the stream ended without [DONE]: %v", scan.Err())
	return nil, nil
}

func TestServerMainJob(t *testing.T) { mainJob(t, start(t, t.TempDir(), nil)) }

// TestServerOnModal does the same with sandboxes of Modal, as far as Modal's own
// client can tell.
func TestServerOnModal(t *testing.T) {
	modal := modaltest.New(t, &modaltest.Options{Mounts: clitest.CLI(t).Mounts()})
	t.Setenv("MODAL_SERVER_URL", modal.URL())
	t.Setenv("MODAL_CONFIG_PATH", filepath.Join(t.TempDir(), "none"))
	env := map[string]string{"MODAL_TOKEN_ID": "ak-test", "MODAL_TOKEN_SECRET": "as-test"}
	mainJob(t, start(t, t.TempDir(), env, "-driver", "modal", "-image", "debian:12-slim"))
}

// TestServerOnS3 keeps the workspace in a bucket that the client brings.
func TestServerOnS3(t *testing.T) {
	store := s3test.Start(t)
	settings, err := json.Marshal(map[string]string{
		"bucket": store.Bucket, "endpoint": store.Endpoint, "region": store.Region, "prefix": "server-test",
		"access_key_id": store.AccessKey, "secret_access_key": store.SecretKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	mainJobIn(t, start(t, t.TempDir(), nil), `{"volume_name":"work","s3":`+string(settings)+`}`)
}

func mainJob(t *testing.T, s *server) {
	t.Helper()
	mainJobIn(t, s, `{"volume_name":"work"}`)
}

func mainJobIn(t *testing.T, s *server, config string) {
	t.Helper()
	if !strings.Contains(s.output.String(), "stand-in") {
		t.Errorf("the terminal does not say that a stand-in answers:\n%s", s.output)
	}
	box := s.object(t, "POST", "/sandbox", config, http.StatusCreated)
	id, _ := box["id"].(string)
	if id == "" || box["state"] != "running" || box["isolated"] != true {
		t.Fatalf("the sandbox is %v", box)
	}
	lines, end := s.run(t, id, `{"prompt":"write hello.txt: made by Claude"}`)
	if end["end"] != "completed" || len(lines) < 3 {
		t.Fatalf("the run ended with %v after %d lines", end, len(lines))
	}
	session, _ := json.Marshal(end["session_id"])
	lines, end = s.run(t, id, `{"prompt":"run: cat hello.txt","session_id":`+string(session)+`}`)
	if end["end"] != "completed" || !strings.Contains(strings.Join(lines, "\n"), "made by Claude") {
		t.Fatalf("the second run ended with %v:\n%s", end, strings.Join(lines, "\n"))
	}
	goBack(t, s, id)
	gone := s.object(t, "DELETE", "/sandbox/"+id, "", http.StatusOK)
	if gone["version"] == nil {
		t.Fatalf("deleting saved nothing: %v", gone)
	}
	again := s.object(t, "POST", "/sandbox", config, http.StatusCreated)
	id, _ = again["id"].(string)
	lines, _ = s.run(t, id, `{"prompt":"run: cat hello.txt"}`)
	if !strings.Contains(strings.Join(lines, "\n"), "made by Claude") {
		t.Errorf("the new sandbox has not the old one's files:\n%s", strings.Join(lines, "\n"))
	}
	s.do(t, "DELETE", "/sandbox/"+id+"?sync=false", "", http.StatusOK)
	days := s.object(t, "GET", "/usage", "", http.StatusOK)["days"].([]any)
	if len(days) == 0 || days[0].(map[string]any)["runs"] == 0.0 || days[0].(map[string]any)["bytes_in"] == 0.0 {
		t.Errorf("the usage is %v", days)
	}
}

// goBack saves, lets Claude change the file, and restores what was saved.
func goBack(t *testing.T, s *server, id string) {
	t.Helper()
	saved := s.object(t, "POST", "/sandbox/"+id+"/sync", `{"note":"made"}`, http.StatusCreated)
	if saved["files"] != 1.0 || saved["note"] != "made" || saved["author"] != account {
		t.Fatalf("saved %v", saved)
	}
	s.run(t, id, `{"prompt":"write hello.txt: spoiled\nwrite extra.txt: more"}`)
	version, _ := json.Marshal(saved["id"])
	restored := s.object(t, "POST", "/sandbox/"+id+"/restore", `{"version":`+string(version)+`}`, http.StatusOK)
	lines, _ := s.run(t, id, `{"prompt":"run: cat *"}`)
	if said := strings.Join(lines, "\n"); restored["id"] != saved["id"] || !strings.Contains(said, "made by Claude") || strings.Contains(said, "spoiled") {
		t.Errorf("after going back to %v:\n%s", restored, said)
	}
	list, _ := s.object(t, "GET", "/sandbox/"+id+"/versions", "", http.StatusOK)["versions"].([]any)
	if len(list) != 1 {
		t.Errorf("the versions are %v", list)
	}
}

// A server that is started again serves the sandboxes of the one before.
func TestServerFindsItsSandboxes(t *testing.T) {
	data := t.TempDir()
	s := start(t, data, nil)
	id, _ := s.object(t, "POST", "/sandbox", `{}`, http.StatusCreated)["id"].(string)
	s.run(t, id, `{"prompt":"write kept.txt: still here"}`)
	s.end(t)

	s = start(t, data, nil)
	lines, end := s.run(t, id, `{"prompt":"run: cat kept.txt"}`)
	if end["end"] != "completed" || !strings.Contains(strings.Join(lines, "\n"), "still here") {
		t.Errorf("after a restart: %v\n%s", end, strings.Join(lines, "\n"))
	}
	s.do(t, "DELETE", "/sandbox/"+id, "", http.StatusOK)
}

func TestServerToken(t *testing.T) {
	s := start(t, t.TempDir(), map[string]string{"VIVARIUM_TOKEN": "let-me-in"})
	s.do(t, "GET", "/sandbox", "", http.StatusUnauthorized)
	s.do(t, "GET", "/", "", http.StatusOK) // the page itself is no secret
	s.do(t, "GET", "/healthz", "", http.StatusOK)
	s.token = "let-me-in"
	s.do(t, "GET", "/sandbox", "", http.StatusOK)
}

func TestServerRefusesToBeOpen(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0"} {
		err := run(t.Context(), []string{"-addr", addr, "-data", t.TempDir()}, func(string) string { return "" }, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "-token") {
			t.Errorf("-addr %s without -token: %v, want an error that names -token", addr, err)
		}
	}
}

func TestServerRefusesNonsense(t *testing.T) {
	for _, args := range [][]string{{"-nonsense"}, {"extra"}, {"-addr", "nonsense"}} {
		if err := run(t.Context(), args, func(string) string { return "" }, io.Discard, io.Discard); err == nil {
			t.Errorf("run(%q) = nil, want an error", args)
		}
	}
}
