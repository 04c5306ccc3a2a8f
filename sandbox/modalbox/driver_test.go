package modalbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

func sh(t *testing.T, sb *sandbox.Sandbox, script string) string {
	t.Helper()
	out, err := sb.Command(testContext(t), "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("sh -c %q: %v\n%s", script, err, out)
	}
	return strings.TrimRight(string(out), "\n")
}

// eventually polls until ok, or fails the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("%s: not within %v", what, deadline)
		}
	}
}

// TestSignalOfAnother: Modal's code for a command that a signal ended is that of
// a command which exits with 128 and the signal. Only what this side sent is
// told as a signal.
func TestSignalOfAnother(t *testing.T) {
	sb := create(t, open(t, newClient(t, nil)), nil)
	for script, want := range map[string]int{"kill -9 $$": 137, "kill -TERM $$": 143, "exit 137": 137, "exit 143": 143} {
		err := sb.Command(testContext(t), "sh", "-c", script).Run()
		if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || ee.Code != want || ee.Signal != 0 {
			t.Errorf("%s: %v, want code %d", script, err, want)
		}
	}
}

// TestWithoutRunner: what is inside can remove the runner, and replace it.
func TestWithoutRunner(t *testing.T) {
	client := newClient(t, nil)
	p := open(t, client)
	sb := create(t, p, nil)
	for name, script := range map[string]string{
		"removed":        "rm -f /tmp/.vivarium-run",
		"not executable": "echo >/tmp/.vivarium-run; chmod 644 /tmp/.vivarium-run",
		"silent":         "rm -f /tmp/.vivarium-run; cp /bin/true /tmp/.vivarium-run",
		"a directory":    "rm -f /tmp/.vivarium-run; mkdir /tmp/.vivarium-run",
	} {
		sh(t, sb, script)
		other, err := p.Attach(testContext(t), sb.ID())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for _, h := range []*sandbox.Sandbox{sb, other} {
				if out, err := h.Command(testContext(t), "echo", "fine").Output(); err != nil || string(out) != "fine\n" {
					t.Errorf("%s: %q, %v", name, out, err)
				}
			}
		}
		if err := sb.Command(testContext(t), "no-such-program").Run(); !errors.Is(err, exec.ErrNotFound) {
			t.Errorf("%s: a program that is not there: %v", name, err)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
		sh(t, sb, "rm -rf /tmp/.vivarium-run")
	}
}

// TestMark: whatever starts a command marks it.
func TestMark(t *testing.T) {
	sb := create(t, open(t, newClient(t, nil)), nil)
	marked := func(by string, env ...string) {
		t.Helper()
		cmd := sb.Command(testContext(t), "grep", "-E", `^Max file locks +([0-9]+) +\1 `, "/proc/self/limits")
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("started by %s: %v, %q", by, err, out)
		}
	}
	marked("the runner")
	marked("a shell, with its environment in a file", "LONG="+strings.Repeat("x", 50_000))
	sh(t, sb, "rm /tmp/.vivarium-run")
	marked("a shell")
}

// TestFailsToExecute: a program that is there, and cannot be executed, is told
// from one that exits with the same status.
func TestFailsToExecute(t *testing.T) {
	sb := create(t, open(t, newClient(t, nil)), nil)
	sh(t, sb, `printf '#!/no/such/interpreter\n' >script; chmod +x script`)
	for range 2 {
		err := sb.Command(testContext(t), "./script").Run()
		if _, ran := errors.AsType[*sandbox.ExitError](err); !errors.Is(err, exec.ErrNotFound) || ran {
			t.Errorf("a script without its interpreter: %v", err)
		}
		err = sb.Command(testContext(t), "sh", "-c", "exit 127").Run()
		if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || ee.Code != 127 {
			t.Errorf("exit 127: %v", err)
		}
		sh(t, sb, "rm /tmp/.vivarium-run || true") // and once more by a shell
	}
}

// TestCancelledStart: a command whose start is given up does not run on.
func TestCancelledStart(t *testing.T) {
	srv := modaltest.New(t, nil)
	client, err := srv.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	sb := create(t, open(t, client), nil)
	defer srv.Inject(modaltest.Fault{Method: "TaskExecStart", Delay: 300 * time.Millisecond})()
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	if err := sb.Command(ctx, "sleep", "4242").Run(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	// The server acts after the delay; whatever it starts ends.
	sh(t, sb, "sleep 0.5")
	eventually(t, "the end of the command", func() bool {
		return sh(t, sb, `grep -slz '^4242$' /proc/[0-9]*/cmdline | wc -l`) == "0"
	})
}

// TestCancelledCreate: a creation that is given up leaves nothing.
func TestCancelledCreate(t *testing.T) {
	srv := modaltest.New(t, nil)
	client, err := srv.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	p := open(t, client)
	create(t, p, nil) // so that the image is there
	for _, delay := range []time.Duration{0, 200 * time.Millisecond} {
		remove := srv.Inject(modaltest.Fault{Method: "SandboxCreateV2", Delay: delay})
		ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
		sb, err := p.Create(ctx, &sandbox.Config{Tags: map[string]string{"given": "up"}})
		cancel()
		remove()
		if err == nil {
			_ = sb.Terminate(testContext(t))
			_ = sb.Close()
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		for info, err := range p.List(testContext(t), &sandbox.ListOptions{Tags: map[string]string{"given": "up"}}) {
			t.Errorf("left behind: %v, %v", info, err)
		}
	}
}

// TestSandboxOfAnother attaches to what Modal's client has made.
func TestSandboxOfAnother(t *testing.T) {
	client := newClient(t, nil)
	p := open(t, client)
	ctx := testContext(t)
	app, err := client.Apps.FromName(ctx, "another", &modal.AppFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := client.Sandboxes.Create(ctx, app, client.Images.FromRegistry("debian:12", nil), &modal.SandboxCreateParams{
		Workdir: "/tmp", Env: map[string]string{"FROM": "another"}, Tags: map[string]string{"kind": "raw"}})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Detach()
	sb, err := p.Attach(ctx, raw.SandboxID)
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	if got := sh(t, sb, `echo "$PWD $FROM"`); got != "/tmp another" || sb.Dir() != "/tmp" {
		t.Errorf("inside %q, Dir %q", got, sb.Dir())
	}
	info, err := sb.Info(ctx)
	if err != nil || info.Tags["kind"] != "raw" || len(info.Tags) != 1 {
		t.Errorf("Info: %+v, %v", info, err)
	}
	for info := range p.List(ctx, nil) {
		t.Errorf("the sandbox of another app is listed: %v", info)
	}
	if err := sb.Terminate(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestIdleToldFromTerminated: Modal's code is the same for both.
func TestIdleToldFromTerminated(t *testing.T) {
	p := open(t, newClient(t, nil))
	sb := create(t, p, &sandbox.Config{IdleTimeout: time.Hour})
	other, err := p.Attach(testContext(t), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	third, err := p.Attach(testContext(t), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if err := sb.Terminate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	info, err := other.Wait(testContext(t))
	if err != nil || info.End != sandbox.EndCancelled {
		t.Errorf("wait: %+v, %v", info, err)
	}
	if info, err = third.Info(testContext(t)); err != nil || info.End != sandbox.EndCancelled || info.Tags["vivarium-end"] != "" {
		t.Errorf("info: %+v, %v", info, err)
	}
	if err := p.Terminate(testContext(t), sb.ID()); err != nil {
		t.Errorf("terminate by id, again: %v", err)
	}
}

// TestListInBatches lists more than are asked about at once.
func TestListInBatches(t *testing.T) {
	p := open(t, newClient(t, nil))
	want := map[string]bool{}
	for i := range 19 {
		want[create(t, p, &sandbox.Config{Tags: map[string]string{"n": fmt.Sprint(i)}}).ID()] = true
	}
	for info, err := range p.List(testContext(t), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if !want[info.ID] || info.Tags["n"] == "" || info.CreatedAt.IsZero() {
			t.Errorf("listed: %+v", info)
		}
		delete(want, info.ID)
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}
}

// TestRefusedSettings: none is ignored.
func TestRefusedSettings(t *testing.T) {
	p := open(t, newClient(t, nil))
	full := sandbox.Network{Mode: sandbox.NetworkFull}
	for want, cfg := range map[string]*sandbox.Config{
		"Pids":              {Pids: 10},
		"Disk":              {Disk: 1 << 30},
		"Mounts":            {Mounts: []sandbox.Mount{{Source: "/usr", Target: "/x"}}},
		"24 hours":          {Timeout: 25 * time.Hour},
		"vivarium-life":     {Tags: map[string]string{"vivarium-life": "x"}},
		"PathStyle":         {Network: full, Buckets: []sandbox.BucketMount{{Bucket: "b", Target: "/b", PathStyle: true}}},
		"HeaderRules":       {HeaderRules: []sandbox.HeaderRule{{Domain: "example.com", Headers: map[string]string{"A": "b"}}}},
		`secret "no-such"`:  {SecretNames: []string{"no-such"}},
		`image "im-nobody"`: {Image: sandbox.Image{Snapshot: "im-nobody"}},
	} {
		sb, err := p.Create(testContext(t), cfg)
		if err == nil {
			_ = sb.Terminate(testContext(t))
			_ = sb.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		known := errors.Is(err, errors.ErrUnsupported) || errors.Is(err, sandbox.ErrInvalid) || errors.Is(err, sandbox.ErrNotFound)
		if !known {
			t.Errorf("%s: matches nothing: %v", want, err)
		}
	}
}

// TestSecretsStayOut: what Modal quotes of a build is cleaned.
func TestSecretsStayOut(t *testing.T) {
	p := open(t, newClient(t, nil))
	const secret = "sk-very-hidden-value"
	_, err := p.BuildImage(testContext(t), sandbox.Image{Base: "debian:12", Commands: []string{`RUN echo "token is $TOKEN" >&2; exit 3`}},
		&sandbox.BuildOptions{Secrets: map[string]sandbox.Secret{"TOKEN": sandbox.NewSecret(secret)}})
	if err == nil || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), secret) {
		t.Errorf("a build that failed: %v", err)
	}
}

// TestClosedStdout: what a command writes to a stdout that was closed ends it, and
// one that writes nothing goes on.
func TestClosedStdout(t *testing.T) {
	sb := create(t, open(t, newClient(t, nil)), nil)
	start := func(script string) (*sandbox.Cmd, io.WriteCloser) {
		cmd := sb.Command(testContext(t), "sh", "-c", script)
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		return cmd, in
	}
	quiet, in := start("echo on; read x; exit 5")
	sh(t, sb, "sleep 0.2")
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if ee, ok := errors.AsType[*sandbox.ExitError](quiet.Wait()); !ok || ee.Code != 5 {
		t.Errorf("a command that writes nothing: %v", ee)
	}
	loud, in := start("echo on; read x; echo more; sleep 600")
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Error(err)
	}
	if ee, ok := errors.AsType[*sandbox.ExitError](loud.Wait()); !ok || ee.Signal != 13 {
		t.Errorf("a command that writes: %v, want SIGPIPE", ee)
	}
}

// TestFileOfAnEndedSandbox: the end of the sandbox is not the end of a file.
func TestFileOfAnEndedSandbox(t *testing.T) {
	p := open(t, newClient(t, nil))
	sb := create(t, p, nil)
	other, err := p.Attach(testContext(t), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	sh(t, sb, "head -c 20000000 /dev/zero >large; echo x >removed")
	f, err := other.FS(testContext(t)).Open("large")
	if err != nil {
		t.Fatal(err)
	}
	removed, err := other.FS(testContext(t)).OpenFile("removed", os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(removed); err != nil || string(got) != "x\n" {
		t.Errorf("read %q, %v", got, err)
	}
	sh(t, sb, "rm removed")
	if _, err := removed.Read(make([]byte, 1)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was removed: %v", err)
	}
	if _, err := io.ReadFull(f, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := sb.Terminate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, f); !errors.Is(err, sandbox.ErrEnded) {
		t.Errorf("read %d bytes more of 20,000,000, %v", n, err)
	}
}
