package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted makes the example find the CLI that the tests use, and no key. It
// skips where the main job cannot be done.
func scripted(t *testing.T) {
	t.Helper()
	cli := clitest.CLI(t)
	sandboxtest.New(t, nil) // skips where there is no isolation
	clitest.OnPath(t, cli)
	t.Setenv("ANTHROPIC_API_KEY", "")
	t.Setenv("ANTHROPIC_AUTH_TOKEN", "")
}

func TestQuickstart(t *testing.T) {
	scripted(t)
	for _, tt := range []struct{ prompt, file, said string }{
		{"make a file hello.txt", "added    hello.txt", "hello.txt"},
		{"write docs/a b.txt: hi there", "added    docs/a b.txt (8 bytes)", "a b.txt"},
		{"run: echo $((6*7)) >answer; cat answer", "added    answer (3 bytes)", "42"},
		{"what are you?", "no file changed", "stand-in"},
	} {
		t.Run(tt.prompt, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			err := run(t.Context(), []string{"-dir", t.TempDir(), tt.prompt}, &stdout, &stderr)
			if err != nil {
				t.Fatalf("%v\nstdout:\n%s\nstderr:\n%s", err, &stdout, &stderr)
			}
			if !strings.Contains(stdout.String(), tt.file) || !strings.Contains(stdout.String(), tt.said) {
				t.Errorf("stdout has not %q and %q:\n%s\nstderr:\n%s", tt.file, tt.said, &stdout, &stderr)
			}
			if !strings.Contains(stderr.String(), "stand-in") {
				t.Errorf("stderr does not say that a stand-in answers:\n%s", &stderr)
			}
		})
	}
}

func TestQuickstartCancelled(t *testing.T) {
	scripted(t)
	ctx, cancel := context.WithCancel(t.Context())
	stderr := &cancelOn{word: "* Bash", cancel: cancel}
	var stdout bytes.Buffer
	err := run(ctx, []string{"-dir", t.TempDir(), "run: sleep 1000"}, &stdout, stderr)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("run = %v, want context.Canceled\nstderr:\n%s", err, &stderr.Buffer)
	}
}

// cancelOn cancels when a word is written.
type cancelOn struct {
	bytes.Buffer
	word   string
	cancel func()
}

func (c *cancelOn) Write(p []byte) (int, error) {
	n, err := c.Buffer.Write(p)
	if strings.Contains(c.String(), c.word) {
		c.cancel()
	}
	return n, err
}

func TestQuickstartUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"-nonsense", "x"}, {"-h"}} {
		var stdout, stderr bytes.Buffer
		if err := run(t.Context(), args, &stdout, &stderr); !errors.Is(err, flag.ErrHelp) {
			t.Errorf("run(%q) = %v, want flag.ErrHelp", args, err)
		}
		if !strings.Contains(stderr.String(), "usage: quickstart") {
			t.Errorf("run(%q) does not show its usage:\n%s", args, &stderr)
		}
	}
}
