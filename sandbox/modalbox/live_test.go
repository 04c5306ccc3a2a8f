package modalbox_test

import (
	"cmp"
	"errors"
	"os"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

// liveApp is the app, in the workspace of the credentials, that these tests use.
const liveApp = "vivarium-live-test"

// live opens Modal itself, with the credentials in the environment.
func live(t *testing.T) *sandbox.Provider {
	t.Helper()
	if os.Getenv("MODAL_TOKEN_ID") == "" || os.Getenv("MODAL_TOKEN_SECRET") == "" {
		t.Skip("no credentials of Modal: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to run this in your workspace, for some cents")
	}
	client, err := modal.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	p, err := modalbox.Open(client, &modalbox.Options{App: liveApp})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// liveImage has what the suite needs. MODALBOX_LIVE_IMAGE names another.
func liveImage() sandbox.Image {
	return sandbox.Image{
		Base:     cmp.Or(os.Getenv("MODALBOX_LIVE_IMAGE"), "debian:12-slim"),
		Commands: []string{"RUN apt-get update && apt-get install -y --no-install-recommends python3"},
	}
}

// TestLiveConformance runs the suite on Modal.
func TestLiveConformance(t *testing.T) {
	live(t)
	sandboxtest.Run(t, live, &sandboxtest.Options{
		Supports: supports, Deadline: 5 * time.Minute,
		Config: sandbox.Config{Image: liveImage(), Timeout: 20 * time.Minute},
	})
}

// TestLiveSettings asks Modal for what the suite does not.
func TestLiveSettings(t *testing.T) {
	p := live(t)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, cfg := range map[string]*sandbox.Config{
		"limits": {CPU: 0.5, Memory: 512 << 20, Timeout: 10 * time.Minute, IdleTimeout: 5 * time.Minute},
		"volume": {Volumes: []sandbox.Volume{{Name: liveApp, Target: "/keep"}}},
		"probe":  {Probe: &sandbox.Probe{Command: []string{"true"}}},
		"rules": {
			Network:     sandbox.Network{Mode: sandbox.NetworkFull},
			HeaderRules: []sandbox.HeaderRule{{Domain: "example.com", Headers: map[string]string{"X-Vivarium": "live"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			sb, err := p.Create(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := errors.Join(sb.Terminate(t.Context()), sb.Close()); err != nil {
					t.Error(err)
				}
			}()
			if err := sb.WaitReady(t.Context()); err != nil {
				t.Error(err)
			}
			if got := sh(t, sb, "echo hello"); got != "hello" {
				t.Errorf("said %q", got)
			}
		})
	}
}
