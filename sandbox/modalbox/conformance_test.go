package modalbox_test

import (
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

// supports are the features that must not be missing on Modal.
var supports = []sandboxtest.Feature{
	sandboxtest.Name, sandboxtest.Dir, sandboxtest.CPU, sandboxtest.Memory, sandboxtest.Timeout, sandboxtest.IdleTimeout,
	sandboxtest.NoNetwork, sandboxtest.Allowlist, sandboxtest.Ports, sandboxtest.TTY, sandboxtest.Snapshots,
	sandboxtest.SnapshotDrops, sandboxtest.Isolation,
}

func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite is long: -short")
	}
	client := newClient(t, nil)
	sandboxtest.Run(t, func(t *testing.T) *sandbox.Provider {
		p, err := modalbox.Open(client, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}, &sandboxtest.Options{Supports: supports})
}
