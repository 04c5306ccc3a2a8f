//go:build linux

package localbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/probe"
)

// This binary is shown to the sandboxes, and is the probe there.
func init() {
	if probe.IsProbe(os.Args) {
		os.Exit(probe.Main(os.Args))
	}
}

const (
	probeDir = "/opt/probe"
	probeExe = probeDir + "/probe"
)

// Limits of the probed sandboxes. A probe is a Go program: it has ten threads
// before it begins.
const (
	probedMemory = 1 << 30
	probedDisk   = 64 << 20
	probedPids   = 96
	probedCPU    = 1
)

// escape is the host around the sandboxes that are probed.
type escape struct {
	provider *sandbox.Provider
	host     *probe.Host
	shown    string // the directory that is mounted at probeDir
}

// newEscape sets the host up. What the probes look for is open to anybody who
// can name it: nothing but the sandbox stands between.
func newEscape(t *testing.T) *escape {
	t.Helper()
	e := &escape{provider: open(t, stateDir(t))}
	dir := openDir(t)
	e.shown = filepath.Join(dir, "shown")
	if err := os.Mkdir(e.shown, 0o755); err != nil {
		t.Fatal(err)
	}
	copyExe(t, filepath.Join(e.shown, "probe"))
	if err := os.Mkdir(filepath.Join(e.shown, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.shown, "data", "file"), []byte("shown\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data", "data/file"} {
		if err := os.Chmod(filepath.Join(e.shown, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if e.host, err = probe.StartHost(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.host.Close(); err != nil {
			t.Errorf("the host did not come out of it as it was: %v", err)
		}
		e.checkShown(t)
	})
	return e
}

// openDir is a directory that anybody may look into.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "escape-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyExe(t *testing.T, to string) {
	t.Helper()
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		t.Fatal(err)
	}
}

func (e *escape) checkShown(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(e.shown, "data", "file"))
	if err != nil || string(b) != "shown\n" {
		t.Errorf("what was shown read-only is %q, %v", b, err)
	}
	for dir, want := range map[string]int{e.shown: 2, filepath.Join(e.shown, "data"): 1} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != want {
			t.Errorf("what was shown read-only holds %v, %v", entries, err)
		}
	}
}

// box makes a sandbox to be probed, and the facts for it.
func (e *escape) box(t *testing.T) (*sandbox.Sandbox, *probe.Facts, map[string]string) {
	t.Helper()
	sb := create(t, e.provider, &sandbox.Config{
		Memory: probedMemory, Disk: probedDisk, Pids: probedPids, CPU: probedCPU,
		Mounts: []sandbox.Mount{{Source: e.shown, Target: probeDir}},
	})
	info, err := sb.Info(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	f := e.host.Facts
	f.Workspace, f.Fill = sb.Dir(), sb.Dir()
	f.ReadOnlyDir, f.ReadOnlyFile = probeDir+"/data", probeDir+"/data/file"
	f.Closed = []string{"127.0.0.1:3128", "127.0.0.1:8089"}
	for setting, set := range map[string]func(){
		"Memory": func() { f.Memory = probedMemory },
		"Disk":   func() { f.Disk = probedDisk },
		"Pids":   func() { f.Pids = probedPids },
		"CPU":    func() { f.CPU = probedCPU },
	} {
		if info.Unenforced[setting] == "" {
			set()
		}
	}
	return sb, &f, info.Unenforced
}

// run runs a probe inside. A probe that the sandbox kills, or whose memory it
// takes, did not get through; one that could not be run is no probe.
func runProbe(t *testing.T, sb *sandbox.Sandbox, name string, f *probe.Facts, tty *sandbox.Winsize) probe.Result {
	t.Helper()
	args, err := probe.Args(probeExe, name, f)
	if err != nil {
		t.Fatal(err)
	}
	cmd := sb.Command(testContext(t), args[0], args[1:]...)
	cmd.Env = []string{"GORACE=atexit_sleep_ms=0"} // instead of a second for each process
	cmd.TTY = tty
	out, err := cmd.Output()
	var r probe.Result
	if json.Unmarshal(out, &r) == nil {
		t.Logf("%+v", r)
		return r
	}
	exit := new(sandbox.ExitError)
	if errors.Is(err, sandbox.ErrEnded) || errors.As(err, &exit) && exit.Signal != 0 && exit.Cause == nil {
		t.Logf("ended: %v", err)
		return probe.Result{Name: name}
	}
	if exit.Stderr != nil {
		t.Logf("%s", exit.Stderr)
	}
	t.Fatalf("the probe could not be run: printed %q, %v", out, err)
	return r
}

func judgeProbe(t *testing.T, sb *sandbox.Sandbox, p probe.Probe, f *probe.Facts, unenforced map[string]string) {
	t.Helper()
	switch r := runProbe(t, sb, p.Name, f, nil); {
	case r.Through:
		t.Errorf("got through: %s", r.Detail)
	case r.Skipped:
		t.Skipf("not enforced on this machine: %v", unenforced)
	}
}

// TestProbes: nothing that runs inside gets out, sees what it must not, or
// takes more than it may.
func TestProbes(t *testing.T) {
	e := newEscape(t)
	sb, facts, unenforced := e.box(t)
	t.Run("control", func(t *testing.T) { control(t, sb) })
	for _, p := range probe.All() {
		if !p.Destructive {
			t.Run(p.Name, func(t *testing.T) { judgeProbe(t, sb, p, facts, unenforced) })
		}
	}
	t.Run("control after", func(t *testing.T) { control(t, sb) })
}

// control shows that the sandbox is one that probes can be run in.
func control(t *testing.T, sb *sandbox.Sandbox) {
	if got := sh(t, sb, "cat "+probeDir+"/data/file && echo x >here && cat here && rm here"); got != "shown\nx" {
		t.Errorf("printed %q", got)
	}
}

// TestProbesDestructive gives each its own sandbox.
func TestProbesDestructive(t *testing.T) {
	e := newEscape(t)
	for _, p := range probe.All() {
		if !p.Destructive {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			sb, facts, unenforced := e.box(t)
			judgeProbe(t, sb, p, facts, unenforced)
		})
	}
}

// TestProbesFill fills every directory that takes files.
func TestProbesFill(t *testing.T) {
	e := newEscape(t)
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm", "/home/user", "/run", "/dev", "/dev/mqueue"} {
		for _, p := range probe.All() {
			if p.Name != "disk filled" && p.Name != "inodes used up" {
				continue
			}
			t.Run(p.Name+" in "+dir, func(t *testing.T) {
				sb, facts, unenforced := e.box(t)
				facts.Fill = dir
				judgeProbe(t, sb, p, facts, unenforced)
			})
		}
	}
}

// TestProbesOnTerminal runs those that a terminal could help.
func TestProbesOnTerminal(t *testing.T) {
	e := newEscape(t)
	sb, facts, _ := e.box(t)
	for _, name := range []string{"input pushed into a terminal", "console paste", "terminals of others", "leaked file descriptors", "pid 1 file descriptors", "host file by path"} {
		t.Run(name, func(t *testing.T) {
			if r := runProbe(t, sb, name, facts, &sandbox.Winsize{Rows: 24, Cols: 80}); r.Through {
				t.Errorf("got through: %s", r.Detail)
			}
		})
	}
}

// TestProbesWithProxy: the ways out that a network has open no other.
func TestProbesWithProxy(t *testing.T) {
	e := newEscape(t)
	sb := create(t, e.provider, &sandbox.Config{
		Network: sandbox.Network{Mode: sandbox.NetworkFull},
		Mounts:  []sandbox.Mount{{Source: e.shown, Target: probeDir}},
	})
	facts := e.host.Facts
	facts.Workspace = sb.Dir()
	for _, name := range []string{
		"host's loopback listener", "host's name server", "route to the metadata address", "route to the internet", "network interfaces",
		"host's sockets listed", "abstract unix socket", "unix socket by path", "leaked file descriptors", "pid 1 file descriptors", "raw socket", "packet socket",
	} {
		t.Run(name, func(t *testing.T) {
			if r := runProbe(t, sb, name, &facts, nil); r.Through {
				t.Errorf("got through: %s", r.Detail)
			}
		})
	}
	t.Run("host's loopback through the proxy", func(t *testing.T) {
		for _, to := range []string{facts.TCP, "localhost:" + facts.TCP[strings.LastIndexByte(facts.TCP, ':')+1:], "[::ffff:127.0.0.1]:80", "169.254.169.254:80", "10.0.0.1:80"} {
			script := `exec 3<>/dev/tcp/127.0.0.1/3128 && printf 'CONNECT ` + to + ` HTTP/1.1\r\nHost: ` + to + `\r\n\r\n' >&3 && head -n 1 <&3`
			out, err := sb.Command(testContext(t), "bash", "-c", script).Output()
			if err != nil {
				t.Fatalf("%s: %v", to, err)
			}
			if !strings.HasPrefix(string(out), "HTTP/1.1 403 ") {
				t.Errorf("%s: answered %q", to, out)
			}
		}
	})
}

// hostSees reports whether a process of this machine has the marker for its
// last argument.
func hostSees(t *testing.T, marker string) bool {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range lines {
		b, err := os.ReadFile(name)
		if err == nil && strings.HasSuffix(strings.TrimSuffix(string(b), "\x00"), "\x00"+marker) {
			return true
		}
	}
	return false
}

// stays is a command line that lives until it is killed, whatever ends around it.
func stays(marker string) string {
	return probeExe + " vivarium-probe-child wait " + marker
}

// leave is a script that leaves processes behind in every way a process can
// leave its parent: n is how many.
func leave(marker string) (script string, markers []string) {
	for i, form := range []string{
		"%s </dev/zero &",                           // in the background
		"setsid %s </dev/zero &",                    // in a session of its own
		"(setsid %s </dev/zero >&- 2>&- &) &",       // twice removed
		"(trap '' TERM HUP INT; %s </dev/zero &) &", // deaf to signals
		"env -i setsid sh -c 'cd /; (%s </dev/zero >/dev/null 2>&1 &)' &", // with nothing of its parent's
	} {
		m := marker + "-" + string(rune('a'+i))
		markers = append(markers, m)
		script += strings.Replace(form, "%s", stays(m), 1) + "\n"
	}
	return script, markers
}

func TestProbesDaemonsEndWithTheSandbox(t *testing.T) {
	e := newEscape(t)
	sb, facts, _ := e.box(t)
	script, markers := leave(facts.Marker)
	sh(t, sb, "{ "+script+" } >/dev/null 2>&1")
	for _, m := range markers {
		eventually(t, m+" runs", func() bool { return hostSees(t, m) })
	}
	if err := sb.Terminate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for _, m := range markers {
		if hostSees(t, m) {
			t.Errorf("%s runs after Terminate", m)
		}
	}
}

func TestProbesKilledCommandLeavesNothing(t *testing.T) {
	e := newEscape(t)
	sb, facts, _ := e.box(t)
	bystander := facts.Marker + "-bystander"
	other := sb.Command(testContext(t), probeExe, "vivarium-probe-child", "wait", bystander)
	hold, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	script, markers := leave(facts.Marker)
	cmd := sb.Command(ctx, "sh", "-c", "{ "+script+" } >/dev/null 2>&1\nexec sleep infinity")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, m := range append(markers, bystander) {
		eventually(t, m+" runs", func() bool { return hostSees(t, m) })
	}
	cancel()
	if err := cmd.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	for _, m := range markers {
		eventually(t, m+" ends", func() bool { return !hostSees(t, m) })
	}
	if !hostSees(t, bystander) {
		t.Error("another command was killed too")
	}
	hold.Close()
	if err := other.Wait(); err != nil {
		t.Errorf("the other command: %v", err)
	}
}

func TestProbesForkBombEndsWithTheSandbox(t *testing.T) {
	e := newEscape(t)
	sb, facts, _ := e.box(t)
	marker := facts.Marker + "-bomb"
	// Each generation starts two more, deaf to everything but the kill.
	script := `trap '' TERM HUP INT; bomb() { bomb "$@" & bomb "$@" & ` + stays(marker) + ` </dev/zero; }; bomb`
	cmd := sb.Command(testContext(t), "sh", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bomb goes off", func() bool { return hostSees(t, marker) })
	if err := sb.Terminate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the bomb ended well")
	}
	if hostSees(t, marker) {
		t.Error("the bomb goes on after Terminate")
	}
}

// TestProbesHugeOutput: what a command writes is in pipes, and never in the
// memory of this process.
func TestProbesHugeOutput(t *testing.T) {
	e := newEscape(t)
	sb, _, _ := e.box(t)
	const size, limit = 512 << 20, 32 << 20
	heap := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	runtime.GC()
	base := heap()
	t.Run("read", func(t *testing.T) {
		cmd := sb.Command(testContext(t), "head", "-c", "536870912", "/dev/zero")
		var n, most, next int64
		cmd.Stdout = writerFunc(func(b []byte) (int, error) {
			if n += int64(len(b)); n >= next {
				next += 16 << 20
				most = max(most, heap()-base)
			}
			return len(b), nil
		})
		if err := cmd.Run(); err != nil || n != size {
			t.Errorf("%d bytes, %v", n, err)
		}
		if most > limit {
			t.Errorf("the heap grew by %d bytes", most)
		}
	})
	t.Run("not read, then closed", func(t *testing.T) {
		cmd := sb.Command(testContext(t), "sh", "-c", "trap - PIPE; exec cat /dev/zero")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if grown := heap() - base; grown > limit {
			t.Errorf("the heap grew by %d bytes", grown)
		}
		if err := out.Close(); err != nil {
			t.Error(err)
		}
		exit := new(sandbox.ExitError)
		if err := cmd.Wait(); !errors.As(err, &exit) {
			t.Errorf("the writer ended with %v", err)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestProbesTerminalHandedBack: a terminal is its command's own. What stays
// behind on it neither reaches the next command's, nor keeps Wait.
func TestProbesTerminalHandedBack(t *testing.T) {
	e := newEscape(t)
	sb, facts, _ := e.box(t)
	size := &sandbox.Winsize{Rows: 24, Cols: 80}
	marker := facts.Marker + "-tty"
	first := sb.Command(testContext(t), "sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2; "+stays(marker)+" </dev/tty & echo left")
	first.TTY = size
	out, err := first.Output()
	if err != nil || !strings.Contains(string(out), "/dev/pts/") || !strings.Contains(string(out), "left") {
		t.Fatalf("printed %q, %v", out, err)
	}
	second := sb.Command(testContext(t), "sh", "-c", "tty; stty size; read line && echo got $line")
	second.TTY = size
	second.Stdin = strings.NewReader("hello\n")
	out, err = second.Output()
	if err != nil || !strings.Contains(string(out), "/dev/pts/") || !strings.Contains(string(out), "24 80") || !strings.Contains(string(out), "got hello") {
		t.Errorf("the next terminal printed %q, %v", out, err)
	}
	if _, err := sb.Command(testContext(t), "sh", "-c", "exec </dev/tty").Output(); err == nil {
		t.Error("a command without a terminal has one")
	}
}
