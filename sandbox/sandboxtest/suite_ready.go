package sandboxtest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) readyTests() []test {
	return []test{
		{"NoProbe", s.testReadyWithoutProbe},
		{"Command", s.testReadyCommand},
		{"Port", s.testReadyPort},
		{"Environment", s.testReadyEnvironment},
		{"Attached", s.testReadyAttached},
		{"ContextEnds", s.testReadyContext},
		{"SandboxEnds", s.testReadySandboxEnds},
	}
}

func (s *suite) probed(t *testing.T, p *sandbox.Probe) *sandbox.Sandbox {
	t.Helper()
	return s.createWith(t, Probing, func(c *sandbox.Config) { c.Probe = p })
}

func (s *suite) testReadyWithoutProbe(t *testing.T) {
	if err := s.shared.WaitReady(s.context(t)); err != nil {
		t.Errorf("without a probe: %v", err)
	}
}

// testReadyCommand makes ready what counts the probe's attempts.
func (s *suite) testReadyCommand(t *testing.T) {
	sb := s.probed(t, &sandbox.Probe{
		Command:  []string{"sh", "-c", `echo x >> tries && test -e ready`},
		Interval: 10 * time.Millisecond,
	})
	ready := make(chan error, 1)
	go func() { ready <- sb.WaitReady(s.context(t)) }()
	s.sh(t, sb, `until test -e tries && test "$(wc -l < tries)" -ge 3; do sleep 0.02; done`)
	select {
	case err := <-ready:
		t.Fatalf("ready although its probe fails: %v", err)
	default:
	}
	s.sh(t, sb, "touch ready")
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	s.sh(t, sb, "rm ready")
	if err := sb.WaitReady(s.context(t)); err != nil {
		t.Errorf("once it was ready: %v", err)
	}
}

func (s *suite) testReadyPort(t *testing.T) {
	const port = "23456"
	sb := s.probed(t, &sandbox.Probe{Port: 23456})
	ready := make(chan error, 1)
	go func() { ready <- sb.WaitReady(s.context(t)) }()
	s.sh(t, sb, "sleep 0.3")
	select {
	case err := <-ready:
		t.Fatalf("ready although nobody listens: %v", err)
	default:
	}
	s.listening(t, sb, "127.0.0.1:"+port)
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
}

// testReadyEnvironment holds that a probe runs as commands do.
func (s *suite) testReadyEnvironment(t *testing.T) {
	sb := s.createWith(t, Probing, func(c *sandbox.Config) {
		c.Env = map[string]string{"GREETING": "hello"}
		c.Probe = &sandbox.Probe{Command: []string{"sh", "-c", `test "$GREETING" = hello && pwd > where`}}
	})
	if err := sb.WaitReady(s.context(t)); err != nil {
		t.Fatal(err)
	}
	equal(t, "where the probe ran", s.sh(t, sb, "cat where"), sb.Dir())
}

// testReadyAttached waits in another process's place.
func (s *suite) testReadyAttached(t *testing.T) {
	sb := s.probed(t, &sandbox.Probe{Command: []string{"test", "-e", "ready"}})
	other, err := s.second(t).Attach(s.context(t), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx, stop := context.WithTimeout(s.context(t), time.Second)
	defer stop()
	isErr(t, "ready although its probe fails", other.WaitReady(ctx), context.DeadlineExceeded)
	s.sh(t, sb, "touch ready")
	if err := other.WaitReady(s.context(t)); err != nil {
		t.Error(err)
	}
}

func (s *suite) testReadyContext(t *testing.T) {
	sb := s.probed(t, &sandbox.Probe{Command: []string{"sh", "-c", `touch started; exec sleep 1000`}})
	ctx, stop := context.WithCancel(s.context(t))
	defer stop()
	ready := make(chan error, 1)
	go func() { ready <- sb.WaitReady(ctx) }()
	s.sh(t, sb, "until test -e started; do sleep 0.02; done")
	stop()
	isErr(t, "with its context", <-ready, context.Canceled)
	if left := s.sh(t, sb, `grep -slx sleep /proc/[0-9]*/comm | wc -l`); strings.TrimSpace(left) != "0" {
		s.lacks(t, ProbeEnds, "a command of the probe goes on when nobody waits for it any more")
	}
}

func (s *suite) testReadySandboxEnds(t *testing.T) {
	sb := s.probed(t, &sandbox.Probe{Command: []string{"sh", "-c", "touch tried; false"}})
	ready := make(chan error, 1)
	go func() { ready <- sb.WaitReady(s.context(t)) }()
	s.sh(t, sb, "until test -e tried; do sleep 0.02; done")
	if err := sb.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	isErr(t, "with its sandbox", <-ready, sandbox.ErrEnded)
	isErr(t, "after the end", sb.WaitReady(s.context(t)), sandbox.ErrEnded)
}
