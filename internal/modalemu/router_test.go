package modalemu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

// place is a server, a client of it, and a sandbox made by the client.
type place struct {
	t      *testing.T
	ctx    context.Context
	server *modaltest.Server
	client *modal.Client
	app    *modal.App
	image  *modal.Image
	sb     *modal.Sandbox
}

// newPlace gives a test a sandbox; params may be nil.
func newPlace(t *testing.T, params *modal.SandboxCreateParams) *place {
	t.Helper()
	return placeWith(t, &modaltest.Options{Secrets: map[string]map[string]string{"named": {"A": "named", "B": "named"}}}, params)
}

// placeWith is newPlace with a server of one's own wishes.
func placeWith(t *testing.T, opts *modaltest.Options, params *modal.SandboxCreateParams) *place {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	p := &place{t: t, ctx: ctx, server: modaltest.New(t, opts)}
	var err error
	if p.client, err = p.server.Client(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.Close)
	if p.app, err = p.client.Apps.FromName(ctx, "tests", &modal.AppFromNameParams{CreateIfMissing: true}); err != nil {
		t.Fatal(err)
	}
	p.image = p.client.Images.FromRegistry("alpine:3.21", nil)
	p.sb = p.create(params)
	return p
}

func (p *place) create(params *modal.SandboxCreateParams) *modal.Sandbox {
	p.t.Helper()
	sb, err := p.client.Sandboxes.Create(p.ctx, p.app, p.image, params)
	if err != nil {
		p.t.Fatal(err)
	}
	// The client keeps its connection to a sandbox otherwise, for a while.
	p.t.Cleanup(func() { _ = sb.Detach() })
	return sb
}

func (p *place) exec(params *modal.SandboxExecParams, command ...string) *modal.ContainerProcess {
	p.t.Helper()
	cp, err := p.sb.Exec(p.ctx, command, params)
	if err != nil {
		p.t.Fatal(err)
	}
	return cp
}

// sh runs a script, and gives its stdout.
func (p *place) sh(script string) string {
	p.t.Helper()
	cp := p.exec(nil, "/bin/sh", "-ec", script)
	out, err := io.ReadAll(cp.Stdout)
	if err != nil {
		p.t.Fatalf("%s: %v", script, err)
	}
	if code, err := cp.Wait(p.ctx, nil); code != 0 || err != nil {
		p.t.Fatalf("%s: %d %v %s", script, code, err, out)
	}
	return string(out)
}

func TestExecExitCodes(t *testing.T) {
	p := newPlace(t, nil)
	for script, want := range map[string]int{"exit 0": 0, "exit 42": 42, "kill -9 $$": 137, "kill -15 $$": 143} {
		cp := p.exec(nil, "/bin/sh", "-c", script)
		for range 2 { // also when asked again
			if code, err := cp.Wait(p.ctx, nil); code != want || err != nil {
				t.Errorf("%s: %d %v, want %d", script, code, err, want)
			}
		}
	}
}

func TestExecStreams(t *testing.T) {
	p := newPlace(t, nil)
	cp := p.exec(nil, "/bin/sh", "-c", `while read line; do echo "out $line"; echo "err $line" >&2; done; printf '\001\377'`)
	for _, line := range []string{"one\n", "two\n"} {
		if n, err := cp.Stdin.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := cp.Stdin.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(cp.Stdout)
	if err != nil || string(out) != "out one\nout two\n\x01\xff" {
		t.Errorf("stdout %q %v", out, err)
	}
	errs, err := io.ReadAll(cp.Stderr)
	if err != nil || string(errs) != "err one\nerr two\n" {
		t.Errorf("stderr %q %v", errs, err)
	}
	if code, err := cp.Wait(p.ctx, nil); code != 0 || err != nil {
		t.Error(code, err)
	}
}

func TestExecSettings(t *testing.T) {
	p := newPlace(t, &modal.SandboxCreateParams{Env: map[string]string{"A": "sandbox", "S": "sandbox"}})
	named, err := p.client.Secrets.FromName(p.ctx, "named", nil)
	if err != nil {
		t.Fatal(err)
	}
	inline, err := p.client.Secrets.FromMap(p.ctx, map[string]string{"B": "inline", "C": "inline"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cp := p.exec(&modal.SandboxExecParams{
		Workdir: "/tmp", Env: map[string]string{"C": "env"}, Secrets: []*modal.Secret{named, inline},
		Stderr: modal.Ignore,
	}, "/bin/sh", "-c", "pwd; echo $S $A $B $C; echo lost >&2")
	out, err := io.ReadAll(cp.Stdout)
	if err != nil || string(out) != "/tmp\nsandbox named inline env\n" {
		t.Errorf("%q %v", out, err)
	}
	ignored := p.exec(&modal.SandboxExecParams{Stdout: modal.Ignore}, "head", "-c", "1000000", "/dev/zero")
	if code, err := ignored.Wait(p.ctx, nil); code != 0 || err != nil {
		t.Error(code, err)
	}
	tty := p.exec(&modal.SandboxExecParams{PTY: true}, "/bin/sh", "-c", "stty size; echo $TERM; tty >&2")
	out, err = io.ReadAll(tty.Stdout)
	if err != nil || !strings.HasPrefix(string(out), "24 80\r\nxterm-256color\r\n/dev/pts/") {
		t.Errorf("%q %v", out, err)
	}
}

func TestExecThatCannotStart(t *testing.T) {
	p := newPlace(t, nil)
	p.sh("echo not a program > /tmp/text")
	for _, tt := range []struct {
		command []string
		params  *modal.SandboxExecParams
		want    codes.Code
	}{
		{[]string{"no-such-program"}, nil, codes.InvalidArgument},
		{[]string{"/no/such/program"}, nil, codes.InvalidArgument},
		{[]string{""}, nil, codes.InvalidArgument},
		{nil, nil, codes.InvalidArgument},
		{[]string{"true"}, &modal.SandboxExecParams{Workdir: "/no/such"}, codes.InvalidArgument},
		{[]string{"true"}, &modal.SandboxExecParams{Workdir: "/etc/passwd"}, codes.InvalidArgument},
		{[]string{"/tmp/text"}, nil, codes.PermissionDenied},
	} {
		start := time.Now()
		_, err := p.sb.Exec(p.ctx, tt.command, tt.params)
		if status.Code(err) != tt.want || time.Since(start) > 5*time.Second {
			t.Errorf("%q: %v after %s, want %v", tt.command, err, time.Since(start), tt.want)
		}
	}
}

func TestExecTimeout(t *testing.T) {
	p := newPlace(t, nil)
	cp := p.exec(&modal.SandboxExecParams{Timeout: time.Second}, "/bin/sh", "-c", "sleep 999 & sleep 999")
	if code, err := cp.Wait(p.ctx, nil); code != 137 || err != nil {
		t.Errorf("%d %v", code, err)
	}
	watch := p.exec(&modal.SandboxExecParams{Timeout: time.Second}, "/__modal/.bin/modal-sandbox-fs-tools", `{"Watch":{"path":"/tmp"}}`)
	if code, err := watch.Wait(p.ctx, nil); code != 137 || err != nil {
		t.Errorf("%d %v", code, err)
	}
}

// What a sandbox leaves when it ends while a command runs.
func TestSandboxEndsUnderExec(t *testing.T) {
	p := newPlace(t, &modal.SandboxCreateParams{Command: []string{"/bin/sh", "-c", "echo entry; exec sleep 999"}})
	cp := p.exec(nil, "/bin/sh", "-c", "echo before; exec sleep 999")
	upload := p.exec(nil, "/__modal/.bin/modal-sandbox-fs-tools", `{"WriteFile":{"path":"/tmp/x"}}`)
	buf := make([]byte, 7)
	if _, err := io.ReadFull(cp.Stdout, buf); err != nil || string(buf) != "before\n" {
		t.Fatal(string(buf), err)
	}
	first := make([]byte, 6)
	if _, err := io.ReadFull(p.sb.Stdout, first); err != nil || string(first) != "entry\n" {
		t.Fatal(string(first), err)
	}
	waited := make(chan int, 1)
	go func() {
		code, err := cp.Wait(p.ctx, nil)
		if err != nil {
			t.Error(err)
		}
		waited <- code
	}()
	if code, err := p.sb.Terminate(p.ctx, &modal.SandboxTerminateParams{Wait: true}); code != 137 || err != nil {
		t.Error(code, err)
	}
	if code := <-waited; code != 137 {
		t.Errorf("the waiting command: %d", code)
	}
	for _, cp := range []*modal.ContainerProcess{cp, upload} {
		if code, err := cp.Wait(p.ctx, nil); code != 137 || err != nil {
			t.Errorf("asked afterwards: %d %v", code, err)
		}
		if rest, err := io.ReadAll(cp.Stdout); len(rest) != 0 || err != nil {
			t.Errorf("rest %q %v", rest, err)
		}
	}
	if _, err := cp.Stdin.Write([]byte("x")); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("stdin: %v", err)
	}
	start := time.Now()
	if _, err := p.sb.Exec(p.ctx, []string{"true"}, nil); status.Code(err) != codes.NotFound {
		t.Errorf("a start afterwards: %v", err)
	}
	var gone modal.NotFoundError
	if _, err := p.sb.Filesystem.ReadText(p.ctx, "/etc/hosts", nil); !errors.As(err, &gone) {
		t.Errorf("a file afterwards: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the refusals took %s", took)
	}
}

func TestStdinOfCommandThatEndedEarly(t *testing.T) {
	p := newPlace(t, nil)
	cp := p.exec(nil, "true")
	if code, err := cp.Wait(p.ctx, nil); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	if _, err := cp.Stdin.Write([]byte("x")); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("%v", err)
	}
	if err := cp.Stdin.Close(); err != nil {
		t.Errorf("closing it: %v", err)
	}
}

// A context that ends frees the caller, and the server goes on.
func TestExecContexts(t *testing.T) {
	p := newPlace(t, nil)
	cp := p.exec(nil, "cat")
	ctx, cancel := context.WithCancel(p.ctx)
	done := make(chan error, 1)
	go func() {
		_, err := cp.Wait(ctx, nil)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) && status.Code(err) != codes.Canceled {
		t.Errorf("wait: %v", err)
	}
	if _, err := cp.Stdin.Write([]byte("still here")); err != nil {
		t.Error(err)
	}
	if err := cp.Stdin.Close(); err != nil {
		t.Error(err)
	}
	if out, err := io.ReadAll(cp.Stdout); string(out) != "still here" || err != nil {
		t.Errorf("%q %v", out, err)
	}
	if code, err := cp.Wait(p.ctx, nil); code != 0 || err != nil {
		t.Error(code, err)
	}
}

func TestThousandExecs(t *testing.T) {
	p := newPlace(t, nil)
	slots := make(chan struct{}, 50)
	var wg sync.WaitGroup
	for i := range 1000 {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			cp, err := p.sb.Exec(p.ctx, []string{"/bin/sh", "-c", "cat; exit " + fmt.Sprint(i%256)}, nil)
			if err != nil {
				t.Error(err)
				return
			}
			want := bytes.Repeat([]byte{byte(i)}, i)
			if _, err := cp.Stdin.Write(want); err != nil {
				t.Error(err)
			}
			if err := cp.Stdin.Close(); err != nil {
				t.Error(err)
			}
			if out, err := io.ReadAll(cp.Stdout); !bytes.Equal(out, want) || err != nil {
				t.Errorf("%d bytes, want %d: %v", len(out), i, err)
			}
			if code, err := cp.Wait(p.ctx, nil); code != i%256 || err != nil {
				t.Errorf("%d, want %d: %v", code, i%256, err)
			}
		})
	}
	wg.Wait()
}
