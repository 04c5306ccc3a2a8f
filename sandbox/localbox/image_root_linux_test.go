package localbox_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage"
)

// smallTools is what the small image has of programs.
var smallTools = []string{"sh", "bash", "cat", "chmod", "chown", "cp", "env", "false", "grep", "head", "id", "ln", "ls", "mkdir", "mv", "printf", "ps", "rm", "sed", "sleep", "stat", "tail", "tee", "test", "touch", "true", "tty", "wc"}

const smallPasswd = "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1234::/home/app:/bin/sh\n"

// smallImage puts an image with a few programs into the store of a state
// directory: nothing of this machine is below it. It has what this test binary
// needs to run in it. user is who its commands run as.
func smallImage(t *testing.T, dir, user string) (id string) {
	t.Helper()
	store, err := ociimage.Open(filepath.Join(dir, "images"), ociimage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	id, err = store.AddLayer(ctx, nil, bytes.NewReader(smallTar(t)))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := store.Lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	rec.ID = "" // another image with the same layer
	rec.Config.Env, rec.Config.User = []string{"IMAGE=small"}, user
	if err := store.Put(ctx, rec); err != nil {
		t.Fatal(err)
	}
	return rec.ID
}

func smallTar(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	put := func(hdr *tar.Header, text []byte) {
		t.Helper()
		hdr.Size = int64(len(text))
		if err := tw.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin/", "etc/", "root/"} {
		put(&tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o755}, nil)
	}
	put(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	put(&tar.Header{Typeflag: tar.TypeDir, Name: "home/app/", Mode: 0o700, Uid: 1234, Gid: 1234}, nil)
	put(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte(smallPasswd))
	put(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\napp:x:1234:\nextra:x:77:app\n"))
	libraries := make(map[string]bool)
	for _, tool := range append(smallTools, "/proc/self/exe") {
		path, err := exec.LookPath(tool)
		if err != nil {
			continue // not every machine has all of them
		}
		for _, lib := range librariesOf(t, path) {
			libraries[lib] = true
		}
		if tool != "/proc/self/exe" {
			put(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/" + tool, Mode: 0o755}, readFile(t, path))
		}
	}
	for lib := range libraries {
		put(&tar.Header{Typeflag: tar.TypeReg, Name: lib[1:], Mode: 0o755}, readFile(t, lib))
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var libraryPath = regexp.MustCompile(`(?m)(/\S+) \(0x`)

// librariesOf are the files that a program needs to start, none for a static one.
func librariesOf(t *testing.T, path string) (libs []string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ldd", path).Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("this machine cannot tell the libraries of its programs: no ldd")
	}
	for _, m := range libraryPath.FindAllStringSubmatch(string(out), -1) {
		libs = append(libs, m[1])
	}
	return libs
}

func TestOwnRoot(t *testing.T) {
	dir := stateDir(t)
	p := open(t, dir)
	sb := from(t, p, smallImage(t, dir, ""))
	for script, want := range map[string]string{
		"id -u; pwd; echo $HOME $IMAGE":                                   "0\n/workspace\n/root small",
		"rm /bin/tty; ! test -e /bin/tty; echo x > /bin/y; cat /bin/y":    "x",
		"cat /etc/hostname; head -n 1 /etc/hosts; test -c /dev/null":      "sandbox\n127.0.0.1 localhost sandbox",
		"ls -d /usr /opt /var 2>/dev/null || echo nothing of the machine": "nothing of the machine",
		"stat -c '%a %u' / /tmp /root /proc":                              "755 0\n1777 0\n755 0\n555 65534",
	} {
		if got := shell(t, sb, script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
}

// TestImageUser: commands run as the user that the image names, without
// capabilities, and files are that user's.
func TestImageUser(t *testing.T) {
	dir := stateDir(t)
	p := open(t, dir)
	id := smallImage(t, dir, "app")
	if os.Geteuid() != 0 {
		_, err := p.Create(testContext(t), &sandbox.Config{Image: sandbox.Image{Snapshot: id}})
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("as an ordinary user, who has no users to map: %v", err)
		}
		return
	}
	sb := from(t, p, id)
	for script, want := range map[string]string{
		"id -u; id -g; id -G; pwd; echo $HOME":     "1234\n1234\n1234 77\n/workspace\n/home/app",
		"grep CapEff /proc/self/status":            "CapEff:\t0000000000000000",
		"touch /etc/x 2>/dev/null || echo refused": "refused",
		"touch here; stat -c %u:%g here":           "1234:1234",
	} {
		if got := shell(t, sb, script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	fsys := sb.FS(testContext(t))
	if err := fsys.WriteFile("file", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, sb, "cat file; rm file; ls -n; id -u"); !strings.HasPrefix(got, "x") {
		t.Errorf("a file of the host's: %q", got)
	}
	if err := sb.FS(testContext(t)).WriteFile("/etc/passwd", nil, 0o600); err == nil {
		t.Error("a file of root's was written")
	}
	killed(t, sb)
}

// killed has a command on a terminal, and what came from it, killed from outside.
func killed(t *testing.T, sb *sandbox.Sandbox) {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	cmd := sb.Command(ctx, "sh", "-c", "stat -c %u $(tty); sleep 600 & exec sleep 600")
	cmd.TTY = &sandbox.Winsize{Rows: 24, Cols: 80}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "1234" {
		t.Errorf("the terminal belongs to %q, %v", line, err)
	}
	cancel()
	if err := cmd.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	if got := shell(t, sb, `for p in /proc/[0-9]*; do { read -r x < $p/comm; } 2>/dev/null && [ "$x" = sleep ] && echo $p; done; true`); got != "" {
		t.Errorf("left: %s", got)
	}
}
