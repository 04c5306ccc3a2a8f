package sandboxtest

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// faulty opens plain processes with faults around them.
func faulty(t *testing.T) (*sandbox.Provider, *Faults) {
	t.Helper()
	var faults Faults
	p := sandbox.NewProvider(Faulty(newPlain(t), &faults))
	t.Cleanup(func() {
		faults.Clear()
		for info, err := range p.List(context.Background(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			sb, err := p.Attach(context.Background(), info.ID)
			if err != nil {
				t.Fatal(err)
			}
			must(t, sb.Terminate(context.Background()))
		}
	})
	return p, &faults
}

func running(t *testing.T, p *sandbox.Provider) int {
	t.Helper()
	n := 0
	for _, err := range p.List(t.Context(), nil) {
		must(t, err)
		n++
	}
	return n
}

func TestFaultOnTheNthCall(t *testing.T) {
	p, faults := faulty(t)
	sb, err := p.Create(t.Context(), nil)
	must(t, err)
	faults.On(OpStart, 2, Fault{Err: errBroken})
	for i, want := range []error{nil, errBroken, nil} {
		if err := sb.Command(t.Context(), "true").Run(); !errors.Is(err, want) {
			t.Errorf("call %d: got %v, want %v", i+1, err, want)
		}
	}
	equal(t, "calls", faults.Calls(OpStart), 3)
	faults.On(OpStart, 0, Fault{Err: errBroken})
	faults.On(OpStart, 1, Fault{Err: io.ErrUnexpectedEOF}) // the nearer one wins
	for i, want := range []error{io.ErrUnexpectedEOF, errBroken, errBroken} {
		isErr(t, "call "+string(rune('1'+i)), sb.Command(t.Context(), "true").Run(), want)
	}
	faults.Clear()
	must(t, sb.Command(t.Context(), "true").Run())
}

func TestFaultBeforeAndAfterActing(t *testing.T) {
	p, faults := faulty(t)
	faults.On(OpCreate, 1, Fault{Err: sandbox.ErrExhausted})
	_, err := p.Create(t.Context(), nil)
	isErr(t, "create", err, sandbox.ErrExhausted)
	equal(t, "sandboxes after a refusal", running(t, p), 0)
	faults.On(OpCreate, 1, Fault{Lose: driver.ErrUnavailable})
	_, err = p.Create(t.Context(), nil)
	isErr(t, "create", err, sandbox.ErrUnavailable)
	equal(t, "sandboxes after a lost answer", running(t, p), 1)
}

func TestFaultOnEveryOperation(t *testing.T) {
	p, faults := faulty(t)
	sb, err := p.Create(t.Context(), nil)
	must(t, err)
	fsys := sb.FS(t.Context())
	ops := map[Op]func() error{
		OpAttach:    func() error { _, err := p.Attach(t.Context(), sb.ID()); return err },
		OpLookup:    func() error { _, err := p.AttachName(t.Context(), "x"); return err },
		OpInfo:      func() error { _, err := sb.Info(t.Context()); return err },
		OpExit:      func() error { return sb.Command(t.Context(), "true").Run() },
		OpTerminate: func() error { return sb.Terminate(t.Context()) },
		OpWait:      func() error { _, err := sb.Wait(t.Context()); return err },
		OpFile:      func() error { return fsys.WriteFile("f", nil, 0o600) },
		OpList: func() error {
			for _, err := range p.List(t.Context(), nil) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	for op, call := range ops {
		for _, fault := range []Fault{{Err: errBroken}, {Lose: errBroken}} {
			if op == OpWait && fault.Lose != nil || op == OpTerminate && fault.Lose != nil || op == OpLookup && fault.Lose != nil {
				continue // would wait for ever, end the sandbox, find nothing
			}
			faults.On(op, 1, fault)
			isErr(t, string(op), call(), errBroken)
		}
	}
	for op, call := range map[string]error{
		"stat": second(fsys.Stat("f")), "lstat": second(fsys.Lstat("f")), "readdir": second(fsys.ReadDir(".")), "readlink": second(fsys.ReadLink("f")),
		"mkdir": fsys.Mkdir("d", 0o700), "mkdirall": fsys.MkdirAll("d/e", 0o700), "symlink": fsys.Symlink("f", "l"), "rename": fsys.Rename("f", "g"),
		"remove": fsys.Remove("g"), "removeall": fsys.RemoveAll("d"),
	} {
		if call != nil && op != "readlink" {
			t.Errorf("%s without a fault: %v", op, call)
		}
	}
}

func TestFaultEndsTheSandbox(t *testing.T) {
	p, faults := faulty(t)
	sb, err := p.Create(t.Context(), nil)
	must(t, err)
	faults.On(OpStart, 1, Fault{End: true})
	isErr(t, "run", sb.Command(t.Context(), "true").Run(), sandbox.ErrEnded)
	info, err := sb.Wait(t.Context())
	must(t, err)
	equal(t, "state", info.State, sandbox.StateEnded)
}

func TestFaultCutsStreams(t *testing.T) {
	p, faults := faulty(t)
	sb, err := p.Create(t.Context(), nil)
	must(t, err)
	faults.On(OpStart, 1, Fault{CutStdout: 5})
	out, err := sb.Command(t.Context(), "echo", "hello world").Output()
	isErr(t, "a cut stdout", err, sandbox.ErrUnavailable)
	equal(t, "what came through", string(out), "hello")

	faults.On(OpStart, 1, Fault{CutStdout: 5, Cut: io.EOF})
	out, err = sb.Command(t.Context(), "echo", "hello world").Output()
	if err != nil || string(out) != "hello" {
		t.Errorf("a stdout that ends early: %q, %v", out, err)
	}

	faults.On(OpStart, 1, Fault{CutStderr: Nothing})
	var stdout, stderr strings.Builder
	cmd := sb.Command(t.Context(), "sh", "-c", "trap '' PIPE; echo out; echo err >&2; true")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	isErr(t, "a stderr that gives nothing", cmd.Run(), sandbox.ErrUnavailable)
	equal(t, "stdout", stdout.String(), "out\n")
	equal(t, "stderr", stderr.String(), "")
}

func TestGate(t *testing.T) {
	p, faults := faulty(t)
	sb, err := p.Create(t.Context(), nil)
	must(t, err)
	gate := NewGate()
	faults.On(OpStart, 0, Fault{Gate: gate})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { must(t, sb.Command(t.Context(), "true").Run()) })
	}
	for range 3 {
		<-gate.Arrived()
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- sb.Command(ctx, "true").Run() }()
	<-gate.Arrived()
	cancel()
	isErr(t, "cancelled at the gate", <-stopped, context.Canceled)
	gate.Release()
	gate.Release()
	wg.Wait()
}

func TestFaultsAtOnce(t *testing.T) {
	p, faults := faulty(t)
	sb, err := p.Create(t.Context(), nil)
	must(t, err)
	for i := range 10 {
		faults.On(OpStart, 2*i+1, Fault{Err: errBroken})
	}
	var mu sync.Mutex
	failed := 0
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := sb.Command(t.Context(), "true").Run(); errors.Is(err, errBroken) {
				mu.Lock()
				failed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	equal(t, "failures", failed, 10)
	equal(t, "calls", faults.Calls(OpStart), 20)
}

func TestFaultyPassesOnWhatADriverLacks(t *testing.T) {
	p, _ := faulty(t)
	sb, err := p.Create(t.Context(), nil)
	must(t, err)
	_, snapshot := sb.Snapshot(t.Context())
	_, listen := sb.Listen(t.Context(), "127.0.0.1:0")
	_, dial := sb.Dial(t.Context(), "127.0.0.1:1")
	for op, err := range map[string]error{"snapshot": snapshot, "listen": listen, "dial": dial, "delete": p.DeleteSnapshot(t.Context(), "x")} {
		isErr(t, op, err, errors.ErrUnsupported)
	}
}
