package localbox_test

import (
	"errors"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

// TestConformance runs the suite of all drivers. Limits that need a cgroup are
// not expected: where none can be had, Info says so and the suite lists them.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite is long: -short")
	}
	dir := t.TempDir()
	open := func(t *testing.T) *sandbox.Provider {
		p, err := localbox.Open(&localbox.Options{Dir: dir})
		if errors.Is(err, sandbox.ErrNoIsolation) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	sandboxtest.Run(t, open, &sandboxtest.Options{Supports: []sandboxtest.Feature{
		sandboxtest.Name, sandboxtest.Timeout, sandboxtest.IdleTimeout, sandboxtest.NoNetwork, sandboxtest.Allowlist,
		sandboxtest.Ports, sandboxtest.Mounts, sandboxtest.TTY, sandboxtest.Snapshots, sandboxtest.SnapshotDrops,
		sandboxtest.Listening, sandboxtest.Dialing, sandboxtest.Isolation,
	}})
}
