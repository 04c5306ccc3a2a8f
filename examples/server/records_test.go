package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/internal/pgtest"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

// With PostgreSQL a server that is started again has the same records.
func TestServerOnPostgreSQL(t *testing.T) {
	keepsRecords(t, map[string]string{"VIVARIUM_DATABASE_URL": pgtest.URL(t)})
}

// keepsRecords wants a server that is started again to list the sandboxes that have
// ended, and their runs with their ends.
func keepsRecords(t *testing.T, env map[string]string) {
	t.Helper()
	data := t.TempDir()
	s := start(t, data, env)
	id, _ := s.object(t, "POST", "/sandbox", `{"name":"kept"}`, http.StatusCreated)["id"].(string)
	s.run(t, id, `{"prompt":"write kept.txt: \u0000 and more"}`)
	s.do(t, "DELETE", "/sandbox/"+id, "", http.StatusOK)
	before := s.object(t, "GET", "/sandbox/"+id, "", http.StatusOK)
	s.end(t)

	s = start(t, data, env)
	list, _ := s.object(t, "GET", "/sandbox", "", http.StatusOK)["sandboxes"].([]any)
	if len(list) != 1 {
		t.Fatalf("the sandboxes are %v", list)
	}
	got, _ := list[0].(map[string]any)
	for _, field := range []string{"id", "name", "state", "end", "created_at", "ended_at"} {
		if got[field] != before[field] || got[field] == nil {
			t.Errorf("%s is %v, was %v", field, got[field], before[field])
		}
	}
	r := s.onlyRun(t, id)
	if r["end"] != "completed" || r["prompt"] != "write kept.txt: \x00 and more" {
		t.Errorf("the run is %v", r)
	}
	lines, end := s.follow(t, "/sandbox/"+id+"/runs/"+r["id"].(string)+"/events")
	if end["end"] != "completed" || len(lines) < 3 {
		t.Errorf("its last event is %v after %d lines", end, len(lines))
	}
}

// onlyRun is the record of the one run of a sandbox.
func (s *server) onlyRun(t *testing.T, sandbox string) map[string]any {
	t.Helper()
	runs, _ := s.object(t, "GET", "/sandbox/"+sandbox+"/runs", "", http.StatusOK)["runs"].([]any)
	if len(runs) != 1 {
		t.Fatalf("the runs are %v", runs)
	}
	r, _ := runs[0].(map[string]any)
	return r
}

// A run that goes on when the server is killed goes on at the next server, and who
// followed it misses nothing. What had ended before is as it was.
func TestServerKilled(t *testing.T) {
	cli := clitest.CLI(t)
	sandboxtest.New(t, nil) // skips where there is no isolation
	clitest.OnPath(t, cli)
	data := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-addr", "127.0.0.1:0", "-data", data)
	cmd.Env = append(os.Environ(), mainVariable+"=1", "ANTHROPIC_API_KEY=")
	said := &output{ready: make(chan string, 1)}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = said, said, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	killed := &server{output: said, client: &http.Client{Transport: &http.Transport{}}}
	defer killed.client.CloseIdleConnections()
	select {
	case killed.url = <-said.ready:
	case err := <-exited:
		t.Fatalf("the server ended: %v\n%s", err, said)
	}
	over, _ := killed.object(t, "POST", "/sandbox", `{}`, http.StatusCreated)["id"].(string)
	killed.run(t, over, `{"prompt":"run: echo one"}`)
	killed.do(t, "DELETE", "/sandbox/"+over, "", http.StatusOK)
	id, _ := killed.object(t, "POST", "/sandbox", `{}`, http.StatusCreated)["id"].(string)
	resp := killed.do(t, "POST", "/sandbox/"+id+"/claude", `{"prompt":"run: echo on >>log\nrun: while [ ! -e go ]; do sleep 0.1; done\nrun: cat log"}`, http.StatusOK)
	run := resp.Header.Get("Vivarium-Run")
	seen := upTo(t, resp.Body, "while [ ! -e go ]")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-exited

	s := start(t, data, nil)
	if r := s.onlyRun(t, over); r["end"] != "completed" || r["prompt"] != "run: echo one" {
		t.Errorf("the run of the sandbox that had ended is %v", r)
	}
	if got := s.object(t, "GET", "/sandbox/"+over, "", http.StatusOK); got["end"] != "cancelled" {
		t.Errorf("the sandbox that had ended is %v", got)
	}
	if got := s.object(t, "GET", "/sandbox/"+id+"/runs/"+run, "", http.StatusOK); got["state"] != "running" {
		t.Errorf("the run is %v", got)
	}
	s.run(t, id, `{"prompt":"run: touch go"}`)
	rest, end := s.follow(t, fmt.Sprintf("/sandbox/%s/runs/%s/events?after=%d", id, run, seen))
	if said := strings.Join(rest, "\n"); end["end"] != "completed" || strings.Count(said, `"content":"on`) != 1 {
		t.Errorf("it ended with %v after\n%s", end, said)
	}
	whole, end := s.follow(t, "/sandbox/"+id+"/runs/"+run+"/events")
	if end["end"] != "completed" || strings.Count(strings.Join(whole, "\n"), `"subtype":"init"`) != 1 {
		t.Errorf("all of it ended with %v after\n%s", end, strings.Join(whole, "\n"))
	}
	if _, end := s.run(t, id, `{"prompt":"run: echo again"}`); end["end"] != "completed" {
		t.Errorf("the next run ended with %v", end)
	}
	s.do(t, "DELETE", "/sandbox/"+id, "", http.StatusOK)
}

// upTo reads events until one has a text, and gives its id.
func upTo(t *testing.T, events io.Reader, text string) (id int) {
	t.Helper()
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(line, "id: %d", &id); err != nil && strings.Contains(line, text) {
			return id
		}
	}
}

const secret = "p@ss/w:rd?=%"

// No mistake with the database prints its password.
func TestServerHidesThePassword(t *testing.T) {
	u, err := url.Parse(pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("vivarium", secret)
	query := u.Query()
	query.Set("password", secret)
	inQuery := *u
	inQuery.User, inQuery.RawQuery = url.User("vivarium"), query.Encode()
	nowhere := &url.URL{Scheme: "postgres", User: u.User, Host: "127.0.0.1:1", Path: "/x"}
	for name, address := range map[string]string{
		"wrong": u.String(), "wrong in the query": inQuery.String(), "nobody there": nowhere.String(),
		"bad setting": nowhere.String() + "?sslmode=nonsense", "bad port": "postgres://u:" + url.PathEscape(secret) + "@h:port/x",
		"not encoded": "postgres://u:" + secret + "@h/x", "no scheme": "u:" + secret + "@h/x", "another": "mysql://u:" + secret + "@h/x",
	} {
		r, err := openRecords(t.Context(), address, t.TempDir())
		if err == nil {
			t.Errorf("%s: opened", name)
			_ = r.Close()
			continue
		}
		hides(t, name, err.Error())
		if errors.Unwrap(err) != nil || !strings.Contains(err.Error(), "-database") {
			t.Errorf("%s: %v", name, err)
		}
	}
	env := map[string]string{"VIVARIUM_DATABASE_URL": "postgres://u:" + secret + "@h/x", "VIVARIUM_TOKEN": secret}
	for _, args := range [][]string{{"-h"}, {"-nonsense"}, {"postgres://u:" + secret + "@h/x"}} {
		said := &output{ready: make(chan string, 1)}
		err := run(t.Context(), args, func(name string) string { return env[name] }, said, said)
		if err == nil {
			t.Errorf("%q: no error", args)
			continue
		}
		hides(t, strings.Join(args[:1], " "), said.String()+err.Error())
		if args[0] == "-h" && !errors.Is(err, flag.ErrHelp) {
			t.Error(err)
		}
	}
}

func hides(t *testing.T, what, text string) {
	t.Helper()
	for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), "p@ss", "p%40ss", "w:rd", "w%3Ard"} {
		if strings.Contains(text, form) {
			t.Errorf("%s: the password is told: %s", what, text)
			return
		}
	}
}

// Others of this machine cannot read the records.
func TestRecordsArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	r, err := openRecords(context.Background(), "", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// What a driver says is told without the passwords in the address, however they are
// written there.
func TestWithoutSecrets(t *testing.T) {
	address := "postgres://u:" + url.PathEscape(secret) + "@h/x?password=" + url.QueryEscape(secret+"2") + "&sslpassword=other"
	for _, told := range []string{address, secret, url.PathEscape(secret), url.QueryEscape(secret), secret + "2", url.QueryEscape(secret + "2")} {
		hides(t, told, withoutSecrets("cannot connect with "+told+" to h", address))
	}
	if got := withoutSecrets("key other: no such host h", address); got != "key …: no such host h" {
		t.Errorf("became %q", got)
	}
}
