//go:build linux

package probe_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/probe"
)

func TestMain(m *testing.M) {
	if probe.IsProbe(os.Args) {
		os.Exit(probe.Main(os.Args))
	}
	goleak.VerifyTestMain(m)
}

// plainly runs a probe as a process without a sandbox.
func plainly(t *testing.T, name string, f *probe.Facts) (r probe.Result, printed bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args, err := probe.Args(exe, name, f)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = f.Workspace
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // instead of a second for each process
	out, err := cmd.Output()
	if ctx.Err() != nil {
		t.Fatalf("%s did not end", name)
	}
	if json.Unmarshal(out, &r) != nil {
		t.Logf("%s printed %q, %v", name, out, err)
		return r, false
	}
	return r, true
}

func newHost(t *testing.T) *probe.Host {
	t.Helper()
	h, err := probe.StartHost(t.TempDir())
	if err != nil {
		t.Skipf("what the probes look for cannot be set up here: %v", err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &h.Facts
	f.Workspace = t.TempDir()
	f.Closed = []string{f.TCP}
	f.ReadOnlyDir = t.TempDir()
	f.ReadOnlyFile = filepath.Join(f.ReadOnlyDir, "data")
	if err := os.WriteFile(f.ReadOnlyFile, []byte("data"), 0o666); err != nil {
		t.Fatal(err)
	}
	return h
}

// always get through where there is no sandbox, whoever runs the test and
// wherever: in a container too, with a kernel of few options.
var always = []string{
	"leaked file descriptors", "own environment", "environment of other processes", "host processes visible", "host process signalled",
	"host process by pidfd", "host process through cwd and root", "host home", "host file by path", "host file by symbolic link",
	"host file by dot-dot", "host directory written", "read-only file written", "read-only directory written", "read-only file linked and renamed",
	"host's loopback listener", "ports nobody may listen on", "host's name server", "host's sockets listed", "abstract unix socket", "unix socket by path",
	"host's System V memory", "host's System V objects listed",
}

// TestPlainProcessGetsThrough shows that the probes can fail: without a sandbox
// many of them get through, and those that need no privilege do always.
func TestPlainProcessGetsThrough(t *testing.T) {
	h := newHost(t)
	var through, held []string
	for _, p := range probe.All() {
		if p.Destructive {
			continue
		}
		r, printed := plainly(t, p.Name, &h.Facts)
		t.Logf("%-40s through=%v skipped=%v %s", p.Name, r.Through, r.Skipped, r.Detail)
		if printed && r.Name != p.Name {
			t.Errorf("%s answered as %q", p.Name, r.Name)
		}
		if r.Through {
			through = append(through, p.Name)
		} else {
			held = append(held, p.Name)
		}
	}
	t.Logf("user %d: %d got through, %d did not", os.Getuid(), len(through), len(held))
	for _, name := range always {
		if !slices.Contains(through, name) {
			t.Errorf("%s did not get through", name)
		}
	}
	if len(through) < 26 {
		t.Errorf("%d probes got through, fewer than 26", len(through))
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range probe.All() {
		if seen[p.Name] {
			t.Errorf("two probes are called %q", p.Name)
		}
		seen[p.Name] = true
	}
	if len(seen) < 55 {
		t.Errorf("%d probes, fewer than 55", len(seen))
	}
}

// TestWithoutFacts: a probe that is told nothing finds nothing it was to be told.
func TestWithoutFacts(t *testing.T) {
	for _, name := range []string{"host home", "host file by path", "host's loopback listener", "host's System V memory"} {
		if r, printed := plainly(t, name, &probe.Facts{Workspace: t.TempDir()}); !printed || r.Through || !r.Skipped {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestUnknownProbe(t *testing.T) {
	if r, printed := plainly(t, "no such probe", &probe.Facts{Workspace: t.TempDir()}); printed {
		t.Errorf("answered %+v", r)
	}
	if code := probe.Main([]string{"exe"}); code != 2 {
		t.Errorf("code %d without a probe's name", code)
	}
}
