package sandboxtest_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

// t is the *testing.T of the test that these lines stand in.
var t *testing.T

func ExampleNew() {
	sb := sandboxtest.New(t, nil) // terminated when the test ends
	if err := sb.FS(t.Context()).WriteFile("in.txt", []byte("b\na\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := sb.Command(t.Context(), "sort", "in.txt").Output()
	if err != nil || string(out) != "a\nb\n" {
		t.Errorf("sort: %q, %v", out, err)
	}
}

func ExampleNewProvider() {
	p := sandboxtest.NewProvider(t, nil)
	sb, err := p.Create(t.Context(), &sandbox.Config{Name: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(sb.ID())
}

func ExampleRun() {
	dir := t.TempDir()
	sandboxtest.Run(t, func(t *testing.T) *sandbox.Provider {
		p, err := localbox.Open(&localbox.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}, &sandboxtest.Options{Supports: []sandboxtest.Feature{sandboxtest.TTY, sandboxtest.Snapshots}})
}

func ExampleFaulty() {
	var faults sandboxtest.Faults
	p := sandbox.NewProvider(sandboxtest.Faulty(sandboxtest.NewProvider(t, nil).Driver(), &faults))
	sb, err := p.Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// The second command is started, but its answer is lost.
	faults.On(sandboxtest.OpStart, 2, sandboxtest.Fault{Lose: driver.ErrUnavailable})
	for range 3 {
		err := sb.Command(t.Context(), "true").Run()
		fmt.Println(errors.Is(err, sandbox.ErrUnavailable))
	}
	// Prints false, true, false.
}

func ExampleNewGate() {
	var faults sandboxtest.Faults
	p := sandbox.NewProvider(sandboxtest.Faulty(sandboxtest.NewProvider(t, nil).Driver(), &faults))
	gate := sandboxtest.NewGate()
	faults.On(sandboxtest.OpCreate, 1, sandboxtest.Fault{Gate: gate})
	go func() {
		<-gate.Arrived() // the creation is under way: look at what the program shows
		gate.Release()
	}()
	if _, err := p.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}
