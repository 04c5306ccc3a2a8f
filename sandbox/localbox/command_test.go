//go:build linux

package localbox_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// daemons leave their command in every way there is.
const daemons = `
setsid sleep MARK >/dev/null 2>&1 </dev/null &
(setsid sh -c 'sleep MARK & exit' >/dev/null 2>&1 </dev/null &)
env -i setsid sh -c 'cd /; exec env -i sleep MARK' >/dev/null 2>&1 </dev/null &
nohup setsid setsid sh -c '(ulimit -n 64; sleep MARK) & (sleep MARK &)' >/dev/null 2>&1 </dev/null &
while :; do sleep MARK; done
`

// TestKillEndsWhatCameFromACommand and nothing else.
func TestKillEndsWhatCameFromACommand(t *testing.T) {
	p := open(t, stateDir(t))
	sb := create(t, p, nil)
	mine, other := newMark(), newMark()
	sh(t, sb, "setsid sleep "+other+" >/dev/null 2>&1 </dev/null &")
	ctx, cancel := context.WithCancel(testContext(t))
	cmd := sb.Command(ctx, "sh", "-c", strings.ReplaceAll(daemons, "MARK", mine))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemons run", func() bool { return running("sleep\x00"+mine) >= 6 })
	cancel()
	if err := cmd.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	eventually(t, "everything of it ends", func() bool { return running(mine) == 0 })
	if running("sleep\x00"+other) != 1 {
		t.Error("what came from another command was killed too")
	}
}

// TestKillMarksCannotBeChanged: the limit that marks a command's processes is
// not theirs to change.
func TestKillMarksCannotBeChanged(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("bash is not there, whose ulimit knows RLIMIT_RTTIME")
	}
	sb := create(t, open(t, stateDir(t)), nil)
	if out, err := sb.Command(testContext(t), "bash", "-c", "ulimit -R 5").CombinedOutput(); err == nil {
		t.Errorf("ulimit -R: %s", out)
	}
	if out := sh(t, sb, "bash -c 'ulimit -n 100; ulimit -n'"); out != "100" {
		t.Errorf("other limits can be lowered: %q", out)
	}
}

func TestMounts(t *testing.T) {
	outside := t.TempDir()
	for dir := outside; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
	secretDir := filepath.Join(outside, "private") // root's own rights are needed to go through
	for _, err := range []error{
		os.MkdirAll(filepath.Join(secretDir, "tree", "sub"), 0o700),
		os.WriteFile(filepath.Join(secretDir, "tree", "sub", "f"), []byte("in the tree"), 0o644),
		os.WriteFile(filepath.Join(secretDir, "program"), []byte("#!/bin/sh\necho mounted\n"), 0o755),
		os.Symlink("private/program", filepath.Join(outside, "link")),
		os.Chmod(filepath.Join(secretDir, "tree"), 0o755),
		os.Chmod(filepath.Join(secretDir, "tree", "sub"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, stateDir(t))
	sb := create(t, p, &sandbox.Config{Mounts: []sandbox.Mount{
		{Source: filepath.Join(outside, "link"), Target: "/opt/claude/program"},
		{Source: filepath.Join(secretDir, "tree"), Target: "/workspace/tree"},
	}})
	if out := sh(t, sb, "program; cat /workspace/tree/sub/f"); out != "mounted\nin the tree" {
		t.Errorf("inside: %q", out)
	}
	if out, err := sb.Command(testContext(t), "sh", "-c", "echo x > /workspace/tree/new || echo x >> /opt/claude/program").CombinedOutput(); err == nil {
		t.Errorf("mounts can be written: %s", out)
	}
	sh(t, sb, "echo kept > /workspace/kept")
	snap, err := sb.Snapshot(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	again := create(t, p, &sandbox.Config{Image: snap})
	if out := sh(t, again, "ls /workspace; cat kept"); out != "kept\nkept" && out != "kept\ntree\nkept" {
		t.Errorf("from the snapshot: %q", out)
	}
	for _, target := range []string{"/proc/x", "/dev/x", "/usr/no/such/place"} {
		sb, err := p.Create(testContext(t), &sandbox.Config{Mounts: []sandbox.Mount{{Source: secretDir, Target: target}}})
		if err == nil {
			t.Errorf("mounted on %s", target)
			end(t, sb)
		}
	}
}

// TestSecrets are in the environment of commands, and in no file or process
// that is not theirs.
func TestSecrets(t *testing.T) {
	dir := stateDir(t)
	p := open(t, dir)
	const secret = "sw0rdfish-3141592653"
	sb := create(t, p, &sandbox.Config{Secrets: map[string]sandbox.Secret{"TOKEN": sandbox.NewSecret(secret)}})
	if out := sh(t, sb, "echo $TOKEN"); out != secret {
		t.Fatalf("inside: %q", out)
	}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), secret) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	env, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range append(files, env...) {
		if text, err := os.ReadFile(f); err == nil && strings.Contains(string(text), secret) {
			t.Errorf("%s shows the secret", f)
		}
	}
	for _, f := range []string{"/proc/1/environ", "/proc/1/mem", "/proc/1/maps", "/proc/1/fd/3"} {
		if out, err := sb.Command(testContext(t), "cat", f).CombinedOutput(); err == nil {
			t.Errorf("%s can be read inside: %d bytes", f, len(out))
		}
	}
}

// TestLimitsAreToldWhereTheyFail: every limit is enforced or named.
func TestLimitsAreToldWhereTheyFail(t *testing.T) {
	p := open(t, stateDir(t))
	sb := create(t, p, &sandbox.Config{CPU: 0.5, Memory: 1 << 30, Pids: 64})
	info, err := sb.Info(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("not enforced: %v", info.Unenforced)
	if why, ok := info.Unenforced["Pids"]; ok {
		t.Logf("pids: %s", why)
	} else if out := sh(t, sb, `(i=0; while [ $i -lt 200 ]; do (sleep 100 >/dev/null 2>&1 &) 2>/dev/null || break; i=$((i+1)); done); n=0; for p in /proc/[0-9]*; do n=$((n+1)); done; echo $n`); strings.Count(out, "") > 3 {
		t.Errorf("%s processes with a limit of 64", out)
	}
	if _, ok := info.Unenforced["CPU"]; ok {
		if out, err := sb.Command(testContext(t), "taskset", "-p", "ff", "1").CombinedOutput(); err == nil {
			t.Errorf("the processors can be changed: %s", out)
		}
	}
}

// TestKillManyTimes: exits are never lost, whatever the pace.
func TestKillManyTimes(t *testing.T) {
	sb := create(t, open(t, stateDir(t)), nil)
	for i := range 200 {
		ctx, cancel := context.WithTimeout(testContext(t), time.Duration(i%20)*100*time.Microsecond)
		err := sb.Command(ctx, "sleep", "1000").Run()
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	eventually(t, "every command ends", func() bool {
		return sh(t, sb, "pgrep -x sleep | wc -l") == "0"
	})
}
