//go:build unix

package localbox_test

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

func TestConformance(t *testing.T) { conform(t, sandbox.Config{}) }

// TestConformanceOfImages runs the suite in sandboxes that are root of their own files.
func TestConformanceOfImages(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("images need Linux")
	}
	conform(t, sandbox.Config{Image: sandbox.Image{Base: localbox.HostRoot}})
}

func conform(t *testing.T, cfg sandbox.Config) {
	if testing.Short() {
		t.Skip("the suite is long: -short")
	}
	dir := stateDir(t)
	open(t, dir)
	sandboxtest.Run(t, func(t *testing.T) *sandbox.Provider {
		p, err := localbox.Open(&localbox.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}, &sandboxtest.Options{Config: cfg, Supports: supported()})
}

// supported is what isolated sandboxes have on this machine.
func supported() []sandboxtest.Feature {
	supports := []sandboxtest.Feature{
		sandboxtest.Name, sandboxtest.Pids, sandboxtest.Disk, sandboxtest.Timeout, sandboxtest.IdleTimeout,
		sandboxtest.NoNetwork, sandboxtest.Allowlist, sandboxtest.Ports, sandboxtest.Mounts, sandboxtest.TTY,
		sandboxtest.Snapshots, sandboxtest.SnapshotDrops, sandboxtest.Listening, sandboxtest.Dialing,
		sandboxtest.Isolation, sandboxtest.Watching, sandboxtest.WatchingMoves, sandboxtest.Probing,
		sandboxtest.ProbeEnds, sandboxtest.SettingNet, sandboxtest.UnknownBase,
	}
	if os.Geteuid() == 0 {
		supports = append(supports, sandboxtest.Memory, sandboxtest.CPU)
	}
	return supports
}

// TestPlain runs the suite over plain processes, but for what they cannot keep:
// files outside of their own directory are not theirs, whatever Dir is.
func TestPlain(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite is long: -short")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestPlainConformance$",
		"-test.skip=^TestPlainConformance$/^Config$/^Dir$")
	cmd.Env = append(os.Environ(), "LOCALBOX_TEST_PLAIN=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestPlainConformance(t *testing.T) {
	if os.Getenv("LOCALBOX_TEST_PLAIN") == "" {
		t.Skip("run by TestPlain, which leaves out what plain processes cannot keep")
	}
	if runtime.GOOS != "linux" {
		t.Skip("the suite needs /proc")
	}
	dir := stateDir(t)
	sandboxtest.Run(t, func(t *testing.T) *sandbox.Provider {
		p, err := localbox.OpenPlain(&localbox.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}, &sandboxtest.Options{Supports: []sandboxtest.Feature{
		sandboxtest.Name, sandboxtest.Timeout, sandboxtest.IdleTimeout, sandboxtest.Ports, sandboxtest.TTY,
		sandboxtest.Snapshots, sandboxtest.SnapshotDrops, sandboxtest.Listening, sandboxtest.Dialing,
		sandboxtest.Watching, sandboxtest.Probing,
	}})
}
