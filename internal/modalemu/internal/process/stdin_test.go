package process_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
)

// echo is a Func that gives back its stdin.
func echo(_ context.Context, stdin *process.Reader, stdout, _ io.Writer) process.Exit {
	if _, err := io.Copy(stdout, stdin); err != nil {
		return process.Exit{Code: 1}
	}
	return process.Exit{}
}

func runEcho(t *testing.T) *process.Process {
	p := process.Run(echo, t.TempDir(), nil)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestStdinByOffset(t *testing.T) {
	p := runEcho(t)
	ctx := testContext(t)
	for _, w := range []struct {
		off  uint64
		data string
		eof  bool
		want error
	}{
		{0, "abc", false, nil},
		{0, "abc", false, nil},   // again
		{0, "abcde", false, nil}, // again, and more
		{2, "cd", false, nil},
		{6, "x", false, process.ErrGap},
		{6, "", true, process.ErrGap},
		{5, "f", true, nil},
		{5, "f", true, nil},
		{0, "abcdef", true, nil},
		{6, "", true, nil},
		{6, "g", false, process.ErrStdinClosed},
		{4, "efg", false, process.ErrStdinClosed},
	} {
		if err := p.Stdin.Write(ctx, w.off, []byte(w.data), w.eof); !errors.Is(err, w.want) {
			t.Errorf("%q at %d: %v, want %v", w.data, w.off, err, w.want)
		}
	}
	if got := string(readAll(t, &p.Stdout, 0)); got != "abcdef" {
		t.Errorf("%q", got)
	}
	if n, closed := p.Stdin.Status(); n != 6 || !closed {
		t.Errorf("status %d %v", n, closed)
	}
	if e := exitOf(t, p); e != (process.Exit{}) {
		t.Errorf("exit %+v", e)
	}
}

// hold is a Func that does not read before it is told to.
func hold(release <-chan struct{}) process.Func {
	return func(ctx context.Context, stdin *process.Reader, stdout, stderr io.Writer) process.Exit {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return echo(ctx, stdin, stdout, stderr)
	}
}

// Writers of the same bytes at once, each cut off at some time, leave each byte
// there once.
func TestWritersThatAreCutOff(t *testing.T) {
	release := make(chan struct{})
	p := process.Run(hold(release), t.TempDir(), nil)
	defer p.Close()
	data := make([]byte, 5<<20)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	// Nobody reads, so none of these can finish.
	var wg sync.WaitGroup
	for range 4 {
		ctx, cancel := context.WithCancel(testContext(t))
		wg.Go(func() {
			if err := p.Stdin.Write(ctx, 0, data, true); !errors.Is(err, context.Canceled) {
				t.Errorf("a writer that was cut off: %v", err)
			}
		})
		cancel()
	}
	wg.Wait()
	accepted, closed := p.Stdin.Status()
	if accepted == 0 || accepted >= uint64(len(data)) || closed {
		t.Errorf("status %d %v: bounded, and not ended", accepted, closed)
	}
	close(release)
	for range 3 {
		wg.Go(func() {
			if err := p.Stdin.Write(testContext(t), 0, data, true); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := readAll(t, &p.Stdout, 0); string(got) != string(data) {
		t.Errorf("%d bytes came out that are not the %d that went in", len(got), len(data))
	}
}

func TestStreamsEvictEachOther(t *testing.T) {
	p := runEcho(t)
	ctx := testContext(t)
	first := p.Stdin.Stream(0)
	if err := first.Write(ctx, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.Evicted():
		t.Fatal("evicted by nobody")
	default:
	}
	if n, closed := p.Stdin.Status(); n != 3 || closed {
		t.Errorf("status %d %v", n, closed)
	}
	<-first.Evicted()
	if err := first.Write(ctx, []byte("lost")); !errors.Is(err, process.ErrEvicted) {
		t.Errorf("a stream after Status: %v", err)
	}
	second := p.Stdin.Stream(3)
	third := p.Stdin.Stream(2)
	<-second.Evicted()
	if err := second.End(ctx); !errors.Is(err, process.ErrEvicted) {
		t.Errorf("the older stream: %v", err)
	}
	if err := errors.Join(third.Write(ctx, []byte("cdef")), third.End(ctx)); err != nil {
		t.Fatal(err)
	}
	if got := string(readAll(t, &p.Stdout, 0)); got != "abcdef" {
		t.Errorf("%q", got)
	}
}

func TestEvictionFreesAWriterThatWaits(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	p := process.Run(hold(release), t.TempDir(), nil)
	defer func() { _ = p.Kill(context.Background()); _ = p.Close() }()
	w := p.Stdin.Stream(0)
	done := make(chan error, 1)
	go func() { done <- w.Write(testContext(t), make([]byte, 8<<20)) }()
	p.Stdin.Status()
	if err := <-done; !errors.Is(err, process.ErrEvicted) {
		t.Errorf("%v", err)
	}
}

func TestStdinOfWhatDoesNotRead(t *testing.T) {
	p := start(t, newBox(t), "exec 0<&-; sleep 999", nil)
	err := p.Stdin.Write(testContext(t), 0, make([]byte, 8<<20), false)
	if !errors.Is(err, process.ErrStdinClosed) {
		t.Errorf("a command that closed its stdin: %v", err)
	}
	p = start(t, newBox(t), "head -c 1 >/dev/null", nil)
	err = p.Stdin.Write(testContext(t), 0, make([]byte, 8<<20), false)
	if !errors.Is(err, process.ErrStdinClosed) {
		t.Errorf("a command that ended early: %v", err)
	}
}

func TestFuncIsKilled(t *testing.T) {
	p := process.Run(hold(nil), t.TempDir(), nil)
	if err := p.Kill(context.Background()); err != nil {
		t.Fatal(err)
	}
	if e := exitOf(t, p); e.Signal != 9 || e.Code != -1 {
		t.Errorf("exit %+v", e)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
