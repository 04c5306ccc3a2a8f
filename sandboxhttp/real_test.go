package sandboxhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// localPlace opens isolated sandboxes of this machine, which end with the test.
func localPlace(t testing.TB) *sandbox.Provider {
	t.Helper()
	dir, err := os.MkdirTemp("", "http-test-") // shorter than t.TempDir, for the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p, err := localbox.Open(&localbox.Options{Dir: dir})
	if err != nil {
		t.Skipf("needs isolated sandboxes: %v", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	t.Cleanup(func() { endAll(t, p) })
	return p
}

func endAll(t testing.TB, p *sandbox.Provider) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for info, err := range p.List(ctx, nil) {
		if err != nil {
			t.Error(err)
			return
		}
		sb, err := p.Attach(ctx, info.ID)
		if err == nil {
			err = errors.Join(sb.Terminate(ctx), sb.Close())
		}
		if err != nil && !errors.Is(err, sandbox.ErrEnded) {
			t.Error(err)
		}
	}
}

// localServer serves them.
func localServer(t testing.TB, p *sandbox.Provider, change func(*sandboxhttp.Config)) *server {
	t.Helper()
	config := &sandboxhttp.Config{Provider: p, Auth: sandboxhttp.Local("me")}
	change(config)
	h, err := sandboxhttp.New(config)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, handler: h, http: httptest.NewServer(h), log: new(logBuffer)}
	t.Cleanup(s.close)
	return s
}

// The real CLI in a real sandbox, with a scripted model: what it writes arrives
// as it is written, the file it makes is there, and in the next sandbox too.
func TestRealCLIInLocalbox(t *testing.T) {
	cli := clitest.CLI(t)
	p := localPlace(t)
	var gate claudetest.Gate
	script := claudetest.Sequence(
		claudetest.Tool("Write", map[string]any{"file_path": "/workspace/hello.txt", "content": "hello from claude"}),
		claudetest.Join(claudetest.Text("The file "), gate.Wait, claudetest.Text("is there.")),
		claudetest.Text("Again."),
	)
	volumes := volumesIn(new(storagetest.Memory))
	s := localServer(t, p, func(c *sandboxhttp.Config) {
		volumes(c)
		c.Sandbox = &sandbox.Config{Mounts: cli.Mounts(), Timeout: 10 * time.Minute}
		c.Claude = &claude.Options{
			PermissionMode: claude.PermissionBypass, MaxRetries: -1,
			Endpoint: claude.Endpoint{Handler: claudetest.NewHandler(script, nil)},
		}
	})
	box := s.create(`{"volume_name":"w"}`)
	f := s.prompt(box, "make hello.txt")
	for e := f.must(); !strings.Contains(e.data, "The file "); e = f.must() {
	}
	gate.Open() // only now can the rest be said
	end := f.end()
	if end["end"] != "completed" || end["session_id"] == "" {
		t.Fatalf("end %v", end)
	}
	again := s.follow("POST", box+"/claude", fmt.Sprintf(`{"prompt":"again","session_id":%q}`, end["session_id"])).end()
	if again["end"] != "completed" || again["session_id"] != end["session_id"] {
		t.Errorf("the conversation did not go on: %v", again)
	}
	if s.ask(200, "DELETE", box, "")["version"] == nil {
		t.Error("no version was saved")
	}
	next := strings.TrimPrefix(s.create(`{"volume_name":"w"}`), "/sandbox/")
	if got := fileIn(t, p, next, "hello.txt"); got != "hello from claude" {
		t.Errorf("hello.txt holds %q", got)
	}
}

// fileIn reads a file of the sandbox with that id.
func fileIn(t *testing.T, p *sandbox.Provider, id, file string) string {
	t.Helper()
	var sb *sandbox.Sandbox
	for info, err := range p.List(t.Context(), &sandbox.ListOptions{Tags: map[string]string{"vivarium.id": id}}) {
		if err == nil {
			sb, err = p.Attach(t.Context(), info.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if sb == nil {
		t.Fatalf("no sandbox is %s", id)
	}
	defer func() { _ = sb.Close() }()
	data, err := sb.FS(t.Context()).ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A script that speaks as the CLI does, in a real sandbox: every line arrives,
// interrupt stops it, and the sandbox outlives the server.
func TestScriptedCLIInLocalbox(t *testing.T) {
	p := localPlace(t)
	script := filepath.Join(t.TempDir(), "claude")
	if err := os.WriteFile(script, []byte(shellCLI), 0o755); err != nil {
		t.Fatal(err)
	}
	change := func(c *sandboxhttp.Config) {
		c.Sandbox = &sandbox.Config{Mounts: []sandbox.Mount{{Source: script, Target: "/opt/fake/claude"}}, Timeout: 10 * time.Minute}
		c.Claude = &claude.Options{CLIPath: "/opt/fake/claude"}
	}
	first := localServer(t, p, change)
	box := first.create("")
	if events := first.prompt(box, "count").all(); len(events) != 502 {
		t.Errorf("%d events", len(events))
	}
	f := first.prompt(box, "wait")
	f.must()
	first.ask(202, "POST", f.run(box)+"/interrupt", "")
	if end := f.end(); end["end"] != "cancelled" {
		t.Errorf("end %v", end)
	}
	first.close()
	s := localServer(t, p, change)
	if got := s.ask(200, "GET", box, ""); got["state"] != "running" {
		t.Fatalf("after the restart: %v", got)
	}
	if events := s.prompt(box, "count").all(); len(events) != 502 {
		t.Errorf("%d events after the restart", len(events))
	}
	s.ask(200, "DELETE", box, "")
}

// shellCLI answers the control requests of the CLI's protocol and two prompts.
const shellCLI = `#!/bin/sh
ok() { id=${line#*\"request_id\":\"}; id=${id%%\"*}
	echo '{"type":"control_response","response":{"subtype":"success","request_id":"'$id'","response":{}}}'; }
while read -r line; do
	case $line in
	*'"subtype":"interrupt"'*) ok
		echo '{"type":"result","subtype":"error_during_execution","is_error":true,"terminal_reason":"aborted_streaming"}'; exit ;;
	*control_request*) ok ;;
	*'"content":"wait"'*) echo '{"type":"assistant","text":"waiting"}' ;;
	*'"content":"count"'*)
		i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo '{"type":"assistant","n":'$i'}'; done
		echo '{"type":"result","subtype":"success","is_error":false}'; exit ;;
	esac
done
`
