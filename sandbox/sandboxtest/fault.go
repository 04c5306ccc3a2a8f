package sandboxtest

import (
	"context"
	"fmt"
	"sync"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Op is an operation of a driver that a Fault can be put on.
type Op string

// The operations.
const (
	OpCreate    Op = "create"
	OpAttach    Op = "attach"
	OpLookup    Op = "lookup"
	OpList      Op = "list"
	OpInfo      Op = "info"
	OpStart     Op = "start"
	OpWait      Op = "wait" // of a sandbox
	OpTerminate Op = "terminate"
	OpSnapshot  Op = "snapshot"
	OpListen    Op = "listen"
	OpDial      Op = "dial"
	OpExit      Op = "exit" // waiting for a command
	OpSignal    Op = "signal"
	OpKill      Op = "kill"
	OpFile      Op = "file" // every operation of driver.FileSystem
	OpBuild     Op = "build"
	OpMount     Op = "mount" // of an image, and undoing it
	OpNetwork   Op = "network"
	OpReady     Op = "ready"
	OpWatch     Op = "watch" // its beginning
)

// Fault is what goes wrong with one operation. The zero Fault changes nothing;
// several fields act in the order in which they stand here.
type Fault struct {
	// Gate delays the operation until it is released.
	Gate *Gate
	// End terminates the sandbox before the operation is passed on. It does
	// nothing to an operation that has no sandbox yet.
	End bool
	// Err, if set, is returned in place of the operation, which does not happen.
	Err error
	// Lose, if set, is returned after the operation happened: its answer was
	// lost. driver.ErrUnavailable is what a driver returns then.
	Lose error
	// CutStdout and CutStderr, for OpStart, end the stream after that many
	// bytes with the error Cut. 0 cuts nothing; Nothing ends it at once.
	CutStdout, CutStderr int64
	// Cut is what a cut stream ends with. Nil means driver.ErrUnavailable; io.EOF
	// makes it look complete.
	Cut error
}

// Nothing, as CutStdout or CutStderr, lets no byte through.
const Nothing = -1

// Faults says which calls of a driver go wrong. The zero value is ready and
// lets all pass; its methods are safe for concurrent use.
type Faults struct {
	mu    sync.Mutex
	calls map[Op]int
	nth   map[Op]map[int]Fault
	every map[Op]Fault
}

// On puts a fault on the nth call of op from now on, counting from 1; n 0 is
// every call that has no fault of its own.
func (f *Faults) On(op Op, n int, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n == 0 {
		if f.every == nil {
			f.every = map[Op]Fault{}
		}
		f.every[op] = fault
		return
	}
	if f.nth == nil {
		f.nth = map[Op]map[int]Fault{}
	}
	if f.nth[op] == nil {
		f.nth[op] = map[int]Fault{}
	}
	f.nth[op][f.calls[op]+n] = fault
}

// Clear takes every fault away that has not happened yet.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nth, f.every = nil, nil
}

// Calls is how often op was called, faults included.
func (f *Faults) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// next counts a call of op and gives the fault it meets.
func (f *Faults) next(op Op) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[Op]int{}
	}
	f.calls[op]++
	if fault, ok := f.nth[op][f.calls[op]]; ok {
		delete(f.nth[op], f.calls[op])
		return fault
	}
	return f.every[op]
}

// do runs one operation with whatever is to go wrong with it. end terminates
// the sandbox; it is nil where there is none.
func (f *Faults) do(ctx context.Context, op Op, end func(context.Context) error, act func(Fault) error) error {
	fault := f.next(op)
	if fault.Gate != nil {
		if err := fault.Gate.pass(ctx); err != nil {
			return err
		}
	}
	if fault.End && end != nil {
		if err := end(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("sandboxtest: end the sandbox: %w", err)
		}
	}
	if fault.Err != nil {
		return fault.Err
	}
	if err := act(fault); err != nil {
		return err
	}
	return fault.Lose
}

// Gate holds operations up until Release. NewGate makes one.
type Gate struct {
	arrived  chan struct{}
	released chan struct{}
	release  sync.Once
}

// NewGate makes a closed gate.
func NewGate() *Gate {
	return &Gate{arrived: make(chan struct{}, 1<<10), released: make(chan struct{})}
}

// Arrived receives once for each operation that has come to the gate.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Release opens the gate for good. Releasing again does nothing.
func (g *Gate) Release() { g.release.Do(func() { close(g.released) }) }

func (g *Gate) pass(ctx context.Context) error {
	select {
	case g.arrived <- struct{}{}:
	default: // nobody counts that far
	}
	select {
	case <-g.released:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Faulty puts faults around a driver's provider: what faults says goes wrong,
// all else is passed on. Put the result in sandbox.NewProvider:
//
//	var faults sandboxtest.Faults
//	p := sandbox.NewProvider(sandboxtest.Faulty(real.Driver(), &faults))
//	faults.On(sandboxtest.OpStart, 3, sandboxtest.Fault{Lose: driver.ErrUnavailable})
//
// Optional interfaces of the driver are passed on too; one it lacks is answered
// with errors.ErrUnsupported.
func Faulty(p driver.Provider, faults *Faults) driver.Provider {
	return &faultyProvider{Provider: p, faults: faults}
}
