//go:build linux

package localbox_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/helper"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/probe"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/setup"
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
	image    sandbox.Image // what they start from
	host     *probe.Host
	shown    string // the directory that is mounted at probeDir
}

// newEscape sets the host up. What the probes look for is open to anybody who
// can name it: nothing but the sandbox stands between.
func newEscape(t *testing.T) *escape {
	t.Helper()
	return newEscapeFrom(t, "")
}

// Kinds of images, beside none.
const (
	machineRoot = "machine's root"
	imageRoot   = "image's root"
)

// eachImage runs a test with every kind of root that a sandbox can have.
func eachImage(t *testing.T, test func(*testing.T, *escape)) {
	for _, kind := range []string{"", machineRoot, imageRoot} {
		t.Run(cmp.Or(kind, "no image"), func(t *testing.T) { test(t, newEscapeFrom(t, kind)) })
	}
}

// rootMay are probes that get through where the inside is root of its own files,
// and why that is as it should be; with otherUsers, only where it has other users.
var rootMay = map[string]struct {
	why        string
	otherUsers bool
}{
	"linker preload and account files written": {"they are its own copies", false},
	"setuid to root":         {"it is root from the beginning, of its own user namespace", false},
	"setuid to another user": {"its users are nobody's outside", true},
	"groups set":             {"its groups are nobody's outside", true},
}

func newEscapeFrom(t *testing.T, kind string) *escape {
	t.Helper()
	state := stateDir(t)
	e := &escape{provider: open(t, state)}
	switch kind {
	case machineRoot:
		e.image.Base = localbox.HostRoot
	case imageRoot:
		e.image.Snapshot = smallImage(t, state, "")
	}
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
		Image: e.image, Memory: probedMemory, Disk: probedDisk, Pids: probedPids, CPU: probedCPU,
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
	if f.Root = e.rooted(); f.Root {
		f.Rights = helper.RootRights
	}
	for setting, set := range map[string]func(){
		"Memory": func() { f.Memory = probedMemory },
		"Disk":   func() { f.Disk = probedDisk },
		"Pids":   func() { f.Pids = probedPids + setup.Processes }, // the helper's own are counted with them
		"CPU":    func() { f.CPU = probedCPU },
	} {
		if info.Unenforced[setting] == "" {
			set()
		}
	}
	return sb, &f, info.Unenforced
}

func (e *escape) rooted() bool { return e.image.Base != "" || e.image.Snapshot != "" }

// runProbe runs a probe inside. A probe that the sandbox kills, or that gets no
// memory or thread from it, did not get through; one that could not be run is no probe.
func runProbe(t *testing.T, sb *sandbox.Sandbox, name string, f *probe.Facts, tty *sandbox.Winsize) probe.Result {
	t.Helper()
	args, err := probe.Args(probeExe, name, f)
	if err != nil {
		t.Fatal(err)
	}
	cmd := sb.Command(testContext(t), args[0], args[1:]...)
	cmd.Env = []string{"GOTRACEBACK=none", "GORACE=atexit_sleep_ms=0"} // the latter instead of a second for each process
	cmd.TTY = tty
	out, err := cmd.Output()
	var r probe.Result
	if json.Unmarshal(out, &r) == nil {
		t.Logf("%+v", r)
		return r
	}
	exit := new(sandbox.ExitError)
	killed := errors.As(err, &exit) && exit.Signal != 0 && exit.Cause == nil
	if killed || starved(string(exit.Stderr)) || errors.Is(err, sandbox.ErrEnded) {
		t.Logf("ended: %v: %s", err, exit.Stderr)
		return probe.Result{Name: name}
	}
	t.Fatalf("the probe could not be run: printed %q, %v\n%s", out, err, exit.Stderr)
	return r
}

// starved reports whether a Go program ended because it got nothing more.
func starved(stderr string) bool {
	for _, text := range []string{"failed to create new OS thread", "pthread_create failed", "out of memory", "cannot allocate memory"} {
		if strings.Contains(stderr, text) {
			return true
		}
	}
	return false
}

func judgeProbe(t *testing.T, sb *sandbox.Sandbox, p probe.Probe, f *probe.Facts, unenforced map[string]string) {
	t.Helper()
	may, root := rootMay[p.Name]
	switch r := runProbe(t, sb, p.Name, f, nil); {
	case f.Root && root && (!may.otherUsers || os.Geteuid() == 0):
		if !r.Through {
			t.Errorf("%s, but it does not get through: %s", may.why, r.Detail)
		}
	case r.Through:
		t.Errorf("got through: %s", r.Detail)
	case r.Skipped:
		t.Skipf("not enforced on this machine: %v", unenforced)
	}
}

// TestProbes: nothing that runs inside gets out, sees what it must not, or
// takes more than it may.
func TestProbes(t *testing.T) { eachImage(t, testProbes) }

func testProbes(t *testing.T, e *escape) {
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
func TestProbesDestructive(t *testing.T) { eachImage(t, testProbesDestructive) }

func testProbesDestructive(t *testing.T, e *escape) {
	for _, p := range probe.All() {
		// The limits of memory are one group's, whatever the files: once is enough.
		if !p.Destructive || e.image.Snapshot != "" && strings.HasPrefix(p.Name, "memory") {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			sb, facts, unenforced := e.box(t)
			judgeProbe(t, sb, p, facts, unenforced)
		})
	}
}

// TestProbesOfLimitsCanGetThrough runs those of limits where the limit is far
// from what they are told it is.
func TestProbesOfLimitsCanGetThrough(t *testing.T) {
	e := newEscape(t)
	sb := create(t, e.provider, &sandbox.Config{
		Memory: 1 << 30, Disk: 512 << 20, Pids: 400,
		Mounts: []sandbox.Mount{{Source: e.shown, Target: probeDir}},
	})
	facts := e.host.Facts
	facts.Workspace, facts.Fill = sb.Dir(), sb.Dir()
	facts.Memory, facts.Disk, facts.Pids, facts.CPU = 128<<20, 16<<20, 20, 0.01
	for _, name := range []string{"fork bomb", "thread bomb", "memory of several processes", "memory in nameless files", "memory in System V segments",
		"disk filled", "disk filled by one file", "inodes used up", "cores beyond the limit"} {
		t.Run(name, func(t *testing.T) {
			if r := runProbe(t, sb, name, &facts, nil); !r.Through {
				t.Errorf("held: %s", r.Detail)
			}
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
