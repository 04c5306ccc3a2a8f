package modalemu

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
)

// printed is a process that has printed so many bytes and ended.
func printed(t *testing.T, size int) *process.Process {
	t.Helper()
	p := process.Run(func(_ context.Context, _ *process.Reader, stdout, _ io.Writer) process.Exit {
		_, _ = stdout.Write(make([]byte, size))
		return process.Exit{}
	}, t.TempDir(), nil)
	t.Cleanup(func() { _ = p.Close() })
	if _, err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

// readable reports whether an output is still kept.
func readable(t *testing.T, p *process.Process) bool {
	t.Helper()
	_, err := p.Stdout.ReadAt(t.Context(), make([]byte, 1), 0)
	if err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	return err == nil
}

func TestDeliveredIsGivenUpInTime(t *testing.T) {
	var d delivered
	start := time.Now()
	small, large := printed(t, deliveredLarge-1), printed(t, deliveredLarge)
	for range 3 { // as often as it is read
		d.add(&small.Stdout, start)
		d.add(&large.Stdout, start)
	}
	d.trim(start.Add(deliveredFor - time.Second))
	if !readable(t, small) || !readable(t, large) {
		t.Error("given up too early")
	}
	d.trim(start.Add(deliveredFor))
	if readable(t, large) {
		t.Error("a large output is kept for ever")
	}
	if !readable(t, small) {
		t.Error("a small output is not kept")
	}
	if d.bytes != 0 || len(d.known) != 0 || len(d.order) != 0 {
		t.Errorf("%d bytes of %d outputs are counted, %d are in order", d.bytes, len(d.known), len(d.order))
	}
}

func TestDeliveredIsBounded(t *testing.T) {
	var d delivered
	now := time.Now()
	first, second := printed(t, deliveredLarge), printed(t, deliveredLarge)
	d.add(&first.Stdout, now)
	d.add(&second.Stdout, now)
	ended := make(chan struct{})
	huge := process.Run(func(_ context.Context, _ *process.Reader, stdout, _ io.Writer) process.Exit {
		_ = stdout.(*process.Output).Adopt(nothing{}, deliveredKept-deliveredLarge)
		<-ended
		return process.Exit{}
	}, t.TempDir(), nil)
	t.Cleanup(func() { _ = huge.Close() })
	if err := huge.Stdout.Await(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	d.add(&huge.Stdout, now) // it goes on
	if !readable(t, first) {
		t.Error("given up for an output that goes on")
	}
	close(ended)
	if _, err := huge.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.add(&huge.Stdout, now)
	if readable(t, first) || !readable(t, second) {
		t.Errorf("the first is kept: %v; the second: %v", readable(t, first), readable(t, second))
	}
}

type nothing struct{}

func (nothing) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nothing) Close() error                          { return nil }
