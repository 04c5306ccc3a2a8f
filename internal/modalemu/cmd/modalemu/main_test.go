package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/internal/s3test"
)

func TestMain(m *testing.M) {
	if os.Getenv("MODALEMU_TEST_MAIN") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// emulator is this program, run as a command.
type emulator struct {
	cmd    *exec.Cmd
	url    string
	rest   chan string // what it printed after the first line
	stderr bytes.Buffer
}

func start(t *testing.T, cmd *exec.Cmd) *emulator {
	t.Helper()
	e := &emulator{cmd: cmd, rest: make(chan string, 1)}
	e.cmd.Stderr = &e.stderr
	stdout, err := e.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.cmd.Process.Kill() })
	r := bufio.NewReader(stdout)
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("no line: %v: %s", err, &e.stderr)
	}
	go func() {
		rest, _ := io.ReadAll(r)
		e.rest <- string(rest)
	}()
	_, url, ok := strings.Cut(strings.TrimSpace(line), " on ")
	if !ok {
		t.Fatalf("first line %q", line)
	}
	e.url = url
	return e
}

// self runs this test binary as the program.
func self(t *testing.T, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "MODALEMU_TEST_MAIN=1", "TMPDIR="+t.TempDir())
	return cmd
}

// dial gives a client of the emulator.
func dial(t *testing.T, url string) *modal.Client {
	t.Helper()
	t.Setenv("MODAL_SERVER_URL", url)
	client, err := modal.NewClientWithOptions(&modal.ClientParams{TokenID: "ak", TokenSecret: "as"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// create makes a sandbox that would live for long.
func create(t *testing.T, url string) *modal.Sandbox {
	t.Helper()
	client := dial(t, url)
	app, err := client.Apps.FromName(t.Context(), "cmd", &modal.AppFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	sb, err := client.Sandboxes.Create(t.Context(), app, client.Images.FromRegistry("alpine:3.21", nil),
		&modal.SandboxCreateParams{Command: []string{"sleep", "3003.25"}, Timeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return sb
}

// remember builds an image and writes to a volume, or finds both again; it
// gives the image's id, and what is in both.
func remember(t *testing.T, url, write string) (id, content string) {
	t.Helper()
	client := dial(t, url)
	app, err := client.Apps.FromName(t.Context(), "cmd", &modal.AppFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	image, err := client.Images.FromRegistry("alpine:3.21", nil).
		DockerfileCommands([]string{"RUN echo built > /opt/built"}, nil).Build(t.Context(), app, nil)
	if err != nil {
		t.Fatal(err)
	}
	vol, err := client.Volumes.FromName(t.Context(), "kept", &modal.VolumeFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	sb, err := client.Sandboxes.Create(t.Context(), app, image, &modal.SandboxCreateParams{
		Volumes: map[string]*modal.Volume{"/data": vol},
		Command: []string{"/bin/sh", "-ec", write + "; cat /opt/built /data/file"},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(sb.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := sb.Wait(t.Context(), nil); code != 0 || err != nil {
		errs, _ := io.ReadAll(sb.Stderr)
		t.Fatalf("%d, %v: %s", code, err, errs)
	}
	return image.ImageID, string(out)
}

// sleepers counts the processes of create's sandboxes.
func sleepers(t *testing.T) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte("3003.25")) {
			n++
		}
	}
	return n
}

func TestEndsCleanly(t *testing.T) {
	e := start(t, self(t, "-base", "host", "-listen", "127.0.0.1:0"))
	create(t, e.url)
	if sleepers(t) == 0 {
		t.Fatal("no sandbox is seen")
	}
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Wait(); err != nil {
		t.Errorf("end: %v: %s", err, &e.stderr)
	}
	if rest := <-e.rest; rest != "" {
		t.Errorf("it printed more: %q", rest)
	}
	if n := sleepers(t); n > 0 {
		t.Errorf("%d processes are left", n)
	}
	for _, env := range e.cmd.Env {
		if dir, ok := strings.CutPrefix(env, "TMPDIR="); ok && dir != "" {
			if left, err := filepath.Glob(filepath.Join(dir, "modalemu*")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || bytes.Contains(mounts, []byte("modalemu-")) {
		t.Errorf("mounts are left: %v", err)
	}
}

func TestStateOutlivesAKill(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	e := start(t, self(t, "-base", "host", "-state", state, "-secret", "seeded=K=V"))
	create(t, e.url)
	id, content := remember(t, e.url, "echo written > /data/file")
	other := self(t, "-state", state)
	if out, err := other.CombinedOutput(); err == nil || !strings.Contains(string(out), "another server is using the state directory") {
		t.Errorf("a second server of one state directory: %v, %s", err, out)
	}
	if err := e.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = e.cmd.Wait() // it was killed
	e = start(t, self(t, "-base", "host", "-state", state))
	if n := sleepers(t); n > 0 {
		t.Errorf("%d processes of the server before are left", n)
	}
	if info, err := os.Stat(filepath.Join(state, "state.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v, %v", info, err)
	}
	if _, err := dial(t, e.url).Apps.FromName(t.Context(), "cmd", nil); err != nil {
		t.Errorf("the app of the server before: %v", err)
	}
	if id2, content2 := remember(t, e.url, ":"); id2 != id || content2 != content || content != "built\nwritten\n" {
		t.Errorf("image %s, %q; before %s, %q", id2, content2, id, content)
	}
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Wait(); err != nil {
		t.Errorf("end: %v: %s", err, &e.stderr)
	}
}

// TestGoRun ends the server by ending the go command that runs it.
func TestGoRun(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("the go command is not on PATH")
	}
	e := start(t, exec.CommandContext(t.Context(), goTool, "run", ".", "-base", "host", "-listen", "127.0.0.1:0"))
	create(t, e.url)
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = e.cmd.Wait() // of the signal
	if rest := <-e.rest; rest != "" {
		t.Errorf("it printed more: %q", rest)
	}
	// Its stdout has ended, and it with it.
	if conn, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://")); err == nil {
		_ = conn.Close()
		t.Error("it serves still")
	}
	if n := sleepers(t); n > 0 {
		t.Errorf("%d processes are left", n)
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-listen", "0.0.0.0:0"}, "not a loopback address"},
		{[]string{"-listen", "example.com:80"}, "is not IP:port"},
		{[]string{"-base", "moon"}, `base "moon"`},
		{[]string{"-secret", "hidden"}, "-secret wants NAME=KEY=VALUE"},
		{[]string{"-proxy", ""}, "a proxy needs a name"},
		{[]string{"stray"}, `unexpected argument "stray"`},
	} {
		var stderr bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := run(ctx, c.args, io.Discard, &stderr)
		if err == nil || !strings.Contains(stderr.String()+err.Error(), c.want) {
			t.Errorf("%v: %v %s, want %s", c.args, err, &stderr, c.want)
		}
		if strings.Contains(stderr.String(), "hidden") {
			t.Errorf("%v: the value of a secret is told", c.args)
		}
	}
}

// TestBucketsAfterAKill: what was mounted goes when the next server starts, and
// nothing of the bucket with it.
func TestBucketsAfterAKill(t *testing.T) {
	server := s3test.Start(t)
	state := filepath.Join(t.TempDir(), "state")
	keys := []string{"-secret", "s3=AWS_ACCESS_KEY_ID=" + server.AccessKey, "-secret", "s3=AWS_SECRET_ACCESS_KEY=" + server.SecretKey}
	e := start(t, self(t, append([]string{"-base", "host", "-state", state}, keys...)...))
	client := dial(t, e.url)
	app, err := client.Apps.FromName(t.Context(), "cmd", &modal.AppFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := client.Secrets.FromName(t.Context(), "s3", nil)
	if err != nil {
		t.Fatal(err)
	}
	mount, err := client.CloudBucketMounts.New(server.Bucket, &modal.CloudBucketMountParams{Secret: secret, BucketEndpointURL: &server.Endpoint})
	if err != nil {
		t.Fatal(err)
	}
	sb, err := client.Sandboxes.Create(t.Context(), app, client.Images.FromRegistry("alpine:3.21", nil), &modal.SandboxCreateParams{
		CloudBucketMounts: map[string]*modal.CloudBucketMount{"/b": mount}, Timeout: time.Hour,
		Command: []string{"sh", "-c", "echo kept >/b/f; echo ready; cd /b; while :; do ls >/dev/null 2>&1; sleep 0.1; done"},
	})
	if err != nil && strings.Contains(err.Error(), "the emulator cannot do this") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(sb.Stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := e.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = e.cmd.Wait() // it was killed
	e = start(t, self(t, "-base", "host", "-state", state))
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || bytes.Contains(mounts, []byte(state)) {
		t.Errorf("a mount is left: %v, %s", err, mounts)
	}
	if _, err := server.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &server.Bucket, Key: new("f")}); err != nil {
		t.Error(err)
	}
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Wait(); err != nil {
		t.Errorf("end: %v: %s", err, &e.stderr)
	}
}
