package sandboxtest

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) cancelTests() []test {
	return []test{
		{"ContextEndsTheCommand", s.testCancel},
		{"CauseIsReported", s.testCancelCause},
		{"ContextEndsTheTree", s.testCancelTree},
		{"ContextEndsDaemons", s.testCancelDaemon},
		{"OtherCommandsGoOn", s.testCancelOthers},
		{"CancelFunc", s.testCancelFunc},
		{"CancelFuncAndWaitDelay", s.testCancelWaitDelay},
		{"CancelAfterTheEnd", s.testCancelLate},
		{"CancelWithOutputPending", s.testCancelOutput},
	}
}

// cancelled checks what Wait says about a command that its context killed.
func cancelled(t *testing.T, err, cause error) {
	t.Helper()
	isErr(t, "a cancelled command", err, context.Canceled)
	isErr(t, "a cancelled command", err, cause)
	if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || ee.Signal == 0 || ee.Cause == nil {
		t.Errorf("a cancelled command: got %#v, want an ExitError with signal and cause", err)
	}
}

func (s *suite) testCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(s.context(t))
	cmd := s.running(t, s.shared, ctx, "trap '' INT TERM HUP; echo ready; sleep 600; sleep 600")
	cancel()
	cancelled(t, cmd.Wait(), context.Canceled)
}

func (s *suite) testCancelCause(t *testing.T) {
	ctx, cancel := context.WithCancelCause(s.context(t))
	cmd := s.running(t, s.shared, ctx, "echo ready; exec sleep 600")
	cancel(errBroken)
	cancelled(t, cmd.Wait(), errBroken)

	ctx, stop := context.WithTimeout(s.context(t), 50*time.Millisecond)
	defer stop()
	isErr(t, "a command out of time", s.shared.Command(ctx, "sleep", "600").Run(), context.DeadlineExceeded)
}

// watched starts a command that ends when nothing holds the FIFO open any more,
// and says when something does. up waits for that, gone for the end.
func (s *suite) watched(t *testing.T, fifo string) (up, gone func()) {
	t.Helper()
	s.sh(t, s.shared, `mkfifo "$1"`, fifo)
	cmd := s.shared.Command(s.context(t), "cat", fifo)
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	up = func() {
		t.Helper()
		if _, err := io.ReadFull(out, make([]byte, len("up\n"))); err != nil {
			t.Fatalf("nothing came up: %v", err)
		}
	}
	gone = func() {
		t.Helper()
		if _, err := io.Copy(io.Discard, out); err != nil {
			t.Errorf("something is still up: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("something is still up: %v", err)
		}
	}
	return up, gone
}

func (s *suite) testCancelTree(t *testing.T) {
	dir, _ := s.dir(t)
	up, gone := s.watched(t, dir+"/life")
	ctx, cancel := context.WithCancel(s.context(t))
	// A double fork: the grandchild has lost its parents when this is ready.
	cmd := s.shared.Command(ctx, "sh", "-c", `
		(trap '' INT TERM HUP; (exec >"$1" 2>/dev/null </dev/null; echo up; sleep 600; sleep 600) &)
		sleep 600`, "sh", dir+"/life")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up()
	cancel()
	cancelled(t, cmd.Wait(), context.Canceled)
	gone()
}

func (s *suite) testCancelDaemon(t *testing.T) {
	dir, _ := s.dir(t)
	probe := s.probe(t, s.shared)
	up, gone := s.watched(t, dir+"/life")
	ctx, cancel := context.WithCancel(s.context(t))
	cmd := s.shared.Command(ctx, "sh", "-c", `"$0" daemon "$1"; exec sleep 600`, probe, dir+"/life")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up()
	cancel()
	cancelled(t, cmd.Wait(), context.Canceled)
	gone()
}

func (s *suite) testCancelOthers(t *testing.T) {
	other := s.running(t, s.shared, s.context(t), "echo ready; cat >/dev/null")
	ctx, cancel := context.WithCancel(s.context(t))
	cmd := s.running(t, s.shared, ctx, "echo ready; exec sleep 600")
	cancel()
	cancelled(t, cmd.Wait(), context.Canceled)
	if err := other.Signal(sandbox.SIGTERM); err != nil {
		t.Errorf("another command was ended too: %v", err)
	}
	err := other.Wait()
	if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || ee.Signal != sandbox.SIGTERM {
		t.Errorf("another command: got %v, want the signal it was sent", err)
	}
}

func (s *suite) testCancelFunc(t *testing.T) {
	ctx, cancel := context.WithCancel(s.context(t))
	var cmd *sandbox.Cmd
	cmd = s.cancelling(t, ctx, "trap 'exit 0' TERM; echo ready; while :; do read x || sleep 1; done",
		func() error { return cmd.Signal(sandbox.SIGTERM) })
	cancel()
	err := cmd.Wait()
	isErr(t, "a command that ended well when told to", err, context.Canceled)
	if ee, ok := errors.AsType[*sandbox.ExitError](err); ok {
		t.Errorf("it is an ExitError too: %v", ee)
	}

	ctx, cancel = context.WithCancel(s.context(t))
	cmd = s.cancelling(t, ctx, "echo ready; read x; exit 0", func() error {
		_ = cmd.Signal(sandbox.SIGHUP)
		return os.ErrProcessDone
	})
	cancel()
	if err := cmd.Wait(); errors.Is(err, context.Canceled) {
		t.Errorf("Cancel said that the process was done, but Wait reports the context: %v", err)
	}
}

// cancelling is running with a Cancel func.
func (s *suite) cancelling(t *testing.T, ctx context.Context, script string, cancel func() error) *sandbox.Cmd {
	t.Helper()
	cmd := s.shared.Command(ctx, "sh", "-c", script)
	cmd.Cancel, cmd.WaitDelay = cancel, s.opts.Deadline
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func (s *suite) testCancelWaitDelay(t *testing.T) {
	ctx, cancel := context.WithCancel(s.context(t))
	cmd := s.cancelling(t, ctx, "trap '' TERM; echo ready; while :; do sleep 1; done", nil)
	cmd.WaitDelay = 50 * time.Millisecond
	cmd.Cancel = func() error { return cmd.Signal(sandbox.SIGTERM) }
	cancel()
	cancelled(t, cmd.Wait(), context.Canceled)
}

func (s *suite) testCancelLate(t *testing.T) {
	ctx, cancel := context.WithCancel(s.context(t))
	cmd := s.shared.Command(ctx, "true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.eventually(t, "the command's end", func() bool { return errors.Is(cmd.Signal(0), os.ErrProcessDone) })
	// Its end may be known inside and not yet here; another round trip is later.
	s.sh(t, s.shared, "true")
	cancel()
	if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled after its end: %v", err)
	}
}

func (s *suite) testCancelOutput(t *testing.T) {
	ctx, cancel := context.WithCancel(s.context(t))
	defer cancel()
	cmd := s.shared.Command(ctx, "sh", "-c", "while echo more; do :; done")
	cmd.Stdout = writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	cancelled(t, cmd.Run(), context.Canceled)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
