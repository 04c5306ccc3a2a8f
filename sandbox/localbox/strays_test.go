//go:build linux

package localbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
)

func init() { childRoles["create"] = childCreates }

// childCreates makes a sandbox, prints its id, and waits to be killed.
func childCreates() int {
	timeout, _ := time.ParseDuration(os.Getenv("LOCALBOX_TEST_TIMEOUT"))
	if os.Getenv("LOCALBOX_TEST_VANISH") != "" {
		// As a program that was replaced by its update, started somewhere else.
		if exe, err := os.Executable(); err != nil || os.Remove(exe) != nil || os.Chdir("/") != nil {
			return 3
		}
	}
	p, err := localbox.Open(&localbox.Options{Dir: os.Getenv("LOCALBOX_TEST_DIR")})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	sb, err := p.Create(context.Background(), &sandbox.Config{Name: "orphan", Timeout: timeout, Ports: []int{8123}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	cmd := sb.Command(context.Background(), "setsid", "sleep", os.Getenv("LOCALBOX_TEST_MARK"))
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(sb.ID())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// host is a child process that has made a sandbox.
type host struct {
	cmd  *exec.Cmd
	id   string
	dir  string
	mark string // in the arguments of a process in the sandbox
	out  *bufio.Reader
}

func newMark() string { return strconv.Itoa(100_000_000 + rand.IntN(800_000_000)) }

func startHost(t *testing.T, exe string, env ...string) *host {
	t.Helper()
	return startRole(t, "create", exe, env...)
}

// startRole starts a child with another role, which prints the id of its sandbox first.
func startRole(t *testing.T, role, exe string, env ...string) *host {
	t.Helper()
	h := &host{dir: stateDir(t), mark: newMark()}
	open(t, h.dir)
	h.cmd = exec.Command(exe)
	h.cmd.Env = append(os.Environ(), append(env, "LOCALBOX_TEST_ROLE="+role, "LOCALBOX_TEST_DIR="+h.dir,
		"LOCALBOX_TEST_MARK="+h.mark)...)
	h.cmd.Stderr = os.Stderr
	in, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewReader(out)
	line, err := h.out.ReadString('\n')
	h.id = strings.TrimSpace(line)
	if err != nil || !strings.HasPrefix(h.id, "box-") {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
		t.Fatalf("the host printed %q, %v", line, err)
	}
	return h
}

func (h *host) kill(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = h.cmd.Wait()
}

// running counts the processes of the machine whose arguments contain mark.
func running(mark string) (n int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.Contains(string(text), mark) {
			n++
		}
	}
	return n
}

// nothingLeft fails the test when something of a sandbox is left.
func nothingLeft(t *testing.T, dir, id, mark string) {
	t.Helper()
	eventually(t, "its processes end", func() bool { return running(mark) == 0 })
	d, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "its helper ends", func() bool { return !d.Alive(id) })
	entries, err := os.ReadDir(d.Box(id))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "info.json" {
			t.Errorf("file %s is left", e.Name())
		}
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.Contains(path, id) {
			t.Errorf("cgroup %s is left", path)
		}
		return nil
	})
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), id) {
		t.Errorf("a mount is left: %v", err)
	}
}

func TestSurvivesAKilledHost(t *testing.T) {
	h := startHost(t, "/proc/self/exe")
	h.kill(t)
	p := open(t, h.dir)
	sb, err := p.AttachName(testContext(t), "orphan")
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	if sb.ID() != h.id {
		t.Fatalf("attached to %s, want %s", sb.ID(), h.id)
	}
	if out := sh(t, sb, "pgrep -f "+h.mark+" >/dev/null && echo still running"); out != "still running" {
		t.Errorf("the command of the killed host: %q", out)
	}
	forwarded(t, sb)
	if err := sb.Terminate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, h.dir, h.id, h.mark)
	if _, err := p.Attach(testContext(t), h.id); !errors.Is(err, sandbox.ErrEnded) {
		t.Errorf("attach to the ended: %v", err)
	}
}

func TestLeavesNothingWhenItsTimeIsUp(t *testing.T) {
	h := startHost(t, "/proc/self/exe", "LOCALBOX_TEST_TIMEOUT=1s")
	h.kill(t)
	p := open(t, h.dir)
	eventually(t, "the sandbox ends", func() bool {
		for info, err := range p.List(testContext(t), &sandbox.ListOptions{Ended: true}) {
			if err != nil {
				t.Fatal(err)
			}
			if info.ID == h.id && info.State == sandbox.StateEnded {
				if info.End != sandbox.EndLifetime {
					t.Errorf("it ended by %s", info.End)
				}
				return true
			}
		}
		return false
	})
	nothingLeft(t, h.dir, h.id, h.mark)
	eventually(t, "its keeper ends", func() bool { return running(h.id) == 0 })
}

// TestSurvivesAnUpdate: the program's file is gone, and as root, nobody else
// could have run it.
func TestSurvivesAnUpdate(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "program")
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(exe, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	h := startHost(t, exe, "LOCALBOX_TEST_VANISH=1")
	h.kill(t)
	sb, err := open(t, h.dir).Attach(testContext(t), h.id)
	if err != nil {
		t.Fatal(err)
	}
	end(t, sb)
	nothingLeft(t, h.dir, h.id, h.mark)
}

// children finds the processes of a role whose parent is ppid.
func children(t *testing.T, role string, ppid int) (pids []int) {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || !strings.HasPrefix(string(text), "vivarium-localbox-"+role+"\x00") {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(f), "stat"))
		if err != nil {
			continue
		}
		var pid, parent int
		var state string
		_, after, _ := strings.Cut(string(stat), ") ")
		if _, err := fmt.Sscanf(after, "%s %d", &state, &parent); err != nil || parent != ppid || state == "Z" {
			continue
		}
		if _, err := fmt.Sscanf(string(stat), "%d", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// marked is a sandbox with a process that can be found from outside.
func marked(t *testing.T, p *sandbox.Provider) (*sandbox.Sandbox, string) {
	t.Helper()
	sb := create(t, p, nil)
	mark := newMark()
	sh(t, sb, "setsid sleep "+mark+" >/dev/null 2>&1 </dev/null &")
	eventually(t, "the process runs", func() bool { return running(mark) > 0 })
	return sb, mark
}

func TestLeavesNothingWhenTheKeeperIsKilled(t *testing.T) {
	dir := stateDir(t)
	p := open(t, dir)
	before := children(t, "keeper", os.Getpid())
	sb, mark := marked(t, p)
	keepers := children(t, "keeper", os.Getpid())
	if len(keepers) < 1 || len(keepers) > len(before)+1 {
		t.Fatalf("%d keepers", len(keepers))
	}
	for _, pid := range keepers {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	info, err := sb.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if info.State != sandbox.StateEnded || info.End != sandbox.EndProviderLost {
		t.Errorf("it ended as %s, %s", info.State, info.End)
	}
	nothingLeft(t, dir, sb.ID(), mark)
	if out := sh(t, create(t, p, nil), "echo again"); out != "again" {
		t.Errorf("after a new keeper: %q", out)
	}
}

// helperOf finds the one helper of this process's keepers.
func helperOf(t *testing.T) int {
	t.Helper()
	var helpers []int
	for _, k := range children(t, "keeper", os.Getpid()) {
		helpers = append(helpers, children(t, "helper", k)...)
	}
	if len(helpers) != 1 {
		t.Fatalf("%d helpers", len(helpers))
	}
	return helpers[0]
}

func TestLeavesNothingWhenTheHelperIsKilled(t *testing.T) {
	dir := stateDir(t)
	p := open(t, dir)
	sb, mark := marked(t, p)
	helper := helperOf(t)
	cmd := sb.Command(testContext(t), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(helper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); !errors.Is(err, sandbox.ErrEnded) {
		t.Errorf("a command in it: %v", err)
	}
	info, err := sb.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if info.End != sandbox.EndProviderLost {
		t.Errorf("it ended by %s", info.End)
	}
	nothingLeft(t, dir, sb.ID(), mark)
}
