package sandboxtest

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) lifeTests() []test {
	return []test{
		{"InfoWhileRunning", s.testInfo},
		{"TerminateEndsCommands", s.testTerminateCommands},
		{"TerminateTwiceAndAtOnce", s.testTerminateTwice},
		{"EndedIsRefused", s.testEnded},
		{"EndedIsSeenByOtherHandles", s.testEndedElsewhere},
		{"WaitEndsWithItsContext", s.testWaitContext},
		{"TimeoutEndsIt", s.testTimeout},
		{"IdleTimeoutEndsIt", s.testIdle},
		{"IdleTimeoutSparesACommand", s.testNotIdle},
		{"CancelledContext", s.testCancelledContext},
	}
}

func (s *suite) testInfo(t *testing.T) {
	sb := s.create(t, func(c *sandbox.Config) { c.Timeout = time.Hour })
	info, err := sb.Info(s.context(t))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "ID", info.ID, sb.ID())
	equal(t, "Dir", info.Dir, sb.Dir())
	equal(t, "State", info.State, sandbox.StateRunning)
	equal(t, "End", info.End, "")
	if info.Driver == "" || info.ID == "" {
		t.Errorf("Driver %q, ID %q", info.Driver, info.ID)
	}
	if info.CreatedAt.IsZero() || !info.EndedAt.IsZero() {
		t.Errorf("CreatedAt %v, EndedAt %v", info.CreatedAt, info.EndedAt)
	}
	equal(t, "lifetime", info.ExpiresAt.Sub(info.CreatedAt).Round(time.Minute), time.Hour)
	if !info.Isolated {
		s.lacks(t, Isolation, "sandboxes are plain processes")
	}
}

func (s *suite) isolated(t *testing.T) bool {
	t.Helper()
	info, err := s.shared.Info(s.context(t))
	if err != nil {
		t.Fatal(err)
	}
	return info.Isolated
}

// running starts a command that runs until its stdin ends, and waits until it does.
func (s *suite) running(t *testing.T, sb *sandbox.Sandbox, ctx context.Context, script string) *sandbox.Cmd {
	t.Helper()
	cmd := sb.Command(ctx, "sh", "-c", script)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, ready); err != nil || string(ready) != "ready\n" {
		t.Fatalf("%q said %q, %v; want ready", script, ready, err)
	}
	return cmd
}

func (s *suite) testTerminateCommands(t *testing.T) {
	sb := s.create(t, nil)
	cmd := s.running(t, sb, s.context(t), "echo ready; cat")
	if err := sb.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	isErr(t, "Wait of a command", err, sandbox.ErrEnded)
	if ee, ok := errors.AsType[*sandbox.ExitError](err); ok {
		t.Errorf("it is an ExitError too: %v", ee)
	}
}

func (s *suite) testTerminateTwice(t *testing.T) {
	sb := s.create(t, nil)
	other, err := s.second(t).Attach(s.context(t), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if err := []*sandbox.Sandbox{sb, other}[i%2].Terminate(s.context(t)); err != nil {
				t.Errorf("terminate: %v", err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(sb.Terminate(s.context(t)), other.Terminate(s.context(t)), other.Close()); err != nil {
		t.Errorf("terminate again: %v", err)
	}
}

func (s *suite) testEnded(t *testing.T) {
	sb := s.create(t, nil)
	before, err := sb.Info(s.context(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := sb.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	isErr(t, "run", sb.Command(s.context(t), "true").Run(), sandbox.ErrEnded)
	fsys := sb.FS(s.context(t))
	isErr(t, "write", fsys.WriteFile("f", nil, 0o644), sandbox.ErrEnded)
	_, err = fsys.ReadDir(".")
	isErr(t, "readdir", err, sandbox.ErrEnded)
	_, err = fsys.Stat("f")
	isErr(t, "stat", err, sandbox.ErrEnded)
	if _, err = sb.Snapshot(s.context(t)); !errors.Is(err, errors.ErrUnsupported) {
		isErr(t, "snapshot", err, sandbox.ErrEnded)
	}
	if _, err = sb.Listen(s.context(t), "127.0.0.1:0"); !errors.Is(err, errors.ErrUnsupported) {
		isErr(t, "listen", err, sandbox.ErrEnded)
	}
	info, err := sb.Wait(s.context(t))
	if err != nil {
		t.Fatalf("wait: %v", err)
	}
	s.checkEnded(t, info, sandbox.EndCancelled)
	equal(t, "CreatedAt after the end", info.CreatedAt.Equal(before.CreatedAt), true)
	if info, err = sb.Info(s.context(t)); err == nil {
		s.checkEnded(t, info, sandbox.EndCancelled)
	} else {
		isErr(t, "info", err, sandbox.ErrNotFound) // forgotten already
	}
}

func (s *suite) checkEnded(t *testing.T, info *sandbox.Info, end sandbox.End) {
	t.Helper()
	equal(t, "State", info.State, sandbox.StateEnded)
	equal(t, "End", info.End, end)
	if info.EndedAt.Before(info.CreatedAt) {
		t.Errorf("EndedAt %v, CreatedAt %v", info.EndedAt, info.CreatedAt)
	}
}

func (s *suite) testEndedElsewhere(t *testing.T) {
	sb := s.create(t, nil)
	other, err := s.second(t).Attach(s.context(t), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		info, err := other.Wait(s.context(t))
		if err == nil && info.End != sandbox.EndCancelled {
			err = errors.New("End is " + string(info.End))
		}
		waited <- err
	}()
	if err := sb.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("wait by another handle: %v", err)
	}
	isErr(t, "run by another handle", other.Command(s.context(t), "true").Run(), sandbox.ErrEnded)
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}

func (s *suite) testWaitContext(t *testing.T) {
	ctx, cancel := context.WithCancel(s.context(t))
	cancel()
	_, err := s.shared.Wait(ctx)
	isErr(t, "wait", err, context.Canceled)
	equal(t, "output", s.sh(t, s.shared, "echo on"), "on")
}

func (s *suite) testTimeout(t *testing.T) {
	sb := s.createWith(t, Timeout, func(c *sandbox.Config) { c.Timeout = 2 * time.Second })
	cmd := sb.Command(s.context(t), "sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	isErr(t, "Wait of a command", cmd.Wait(), sandbox.ErrEnded)
	info, err := sb.Wait(s.context(t))
	if err != nil {
		t.Fatal(err)
	}
	s.checkEnded(t, info, sandbox.EndLifetime)
}

func (s *suite) testIdle(t *testing.T) {
	sb := s.createWith(t, IdleTimeout, func(c *sandbox.Config) { c.IdleTimeout = time.Second })
	info, err := sb.Wait(s.context(t))
	if err != nil {
		t.Fatal(err)
	}
	s.checkEnded(t, info, sandbox.EndIdle)
}

func (s *suite) testNotIdle(t *testing.T) {
	sb := s.createWith(t, IdleTimeout, func(c *sandbox.Config) { c.IdleTimeout = 2 * time.Second })
	// The command itself takes longer than the limit, and must reach its end.
	out, err := sb.Command(s.context(t), "sh", "-c", "sleep 4; echo done").Output()
	if err != nil || string(out) != "done\n" {
		t.Errorf("a command longer than IdleTimeout: %q, %v", out, err)
	}
}

func (s *suite) testCancelledContext(t *testing.T) {
	ctx, cancel := context.WithCancel(s.context(t))
	cancel()
	_, err := s.provider.Attach(ctx, s.shared.ID())
	isErr(t, "attach", err, context.Canceled)
	isErr(t, "run", s.shared.Command(ctx, "true").Run(), context.Canceled)
	isErr(t, "write", s.shared.FS(ctx).WriteFile("cancelled", nil, 0o644), context.Canceled)
	_, err = s.shared.FS(ctx).ReadDir(".")
	isErr(t, "readdir", err, context.Canceled)
	_, err = s.shared.FS(s.context(t)).Stat("cancelled")
	if err == nil {
		t.Error("a file was made under a cancelled context")
	}
}
