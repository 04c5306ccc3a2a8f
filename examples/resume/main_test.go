package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted makes the example find the CLI that the tests use. It skips where the
// main job cannot be done.
func scripted(t *testing.T) {
	t.Helper()
	cli := clitest.CLI(t)
	sandboxtest.New(t, nil) // skips where there is no isolation
	clitest.OnPath(t, cli)
}

// both runs the example, and checks that the second sandbox has what the first had.
func both(t *testing.T, env map[string]string, args ...string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	getenv := func(name string) string { return env[name] }
	if err := run(t.Context(), append([]string{"-dir", t.TempDir()}, args...), getenv, &stdout, &stderr); err != nil {
		t.Fatalf("%v\nstdout:\n%s\nstderr:\n%s", err, &stdout, &stderr)
	}
	_, second, ok := strings.Cut(stdout.String(), "That sandbox is gone")
	if !ok || !strings.Contains(second, `- "write plan.md: measure twice, cut once"`) || !strings.Contains(second, "  plan.md\n") {
		t.Errorf("the second sandbox does not go on from the first:\n%s\nstderr:\n%s", &stdout, &stderr)
	}
	if !strings.Contains(stderr.String(), "stand-in") {
		t.Errorf("stderr does not say that a stand-in answers:\n%s", &stderr)
	}
}

func TestResume(t *testing.T) {
	scripted(t)
	both(t, nil)
}

// What was begun on this machine goes on on Modal, as far as Modal's own client can
// tell, and the other way round.
func TestResumeOnTheOtherDriver(t *testing.T) {
	scripted(t)
	modal := modaltest.New(t, &modaltest.Options{Mounts: clitest.CLI(t).Mounts()})
	t.Setenv("MODAL_SERVER_URL", modal.URL())
	t.Setenv("MODAL_CONFIG_PATH", filepath.Join(t.TempDir(), "none"))
	env := map[string]string{"MODAL_TOKEN_ID": "ak-test", "MODAL_TOKEN_SECRET": "as-test"}
	for first, second := range map[string]string{"local": "modal", "modal": "local"} {
		t.Run(first+" to "+second, func(t *testing.T) {
			both(t, env, "-first", first, "-second", second, "-image", "debian:12-slim")
		})
	}
}

func TestProjectName(t *testing.T) {
	if got := projectName("/home/a_b/my.project"); got != "-home-a-b-my-project" {
		t.Errorf("got %q", got)
	}
}

func TestUsage(t *testing.T) {
	none := func(string) string { return "" }
	for _, args := range [][]string{{"-nonsense"}, {"-h"}} {
		if err := run(t.Context(), args, none, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
			t.Errorf("run(%q) = %v, want flag.ErrHelp", args, err)
		}
	}
	for _, args := range [][]string{{"extra"}, {"-dir", t.TempDir(), "-first", "nowhere"}} {
		if err := run(t.Context(), args, none, io.Discard, io.Discard); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("run(%q) = %v, want an error that says why", args, err)
		}
	}
}
