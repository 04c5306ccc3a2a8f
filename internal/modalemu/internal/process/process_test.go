package process_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func TestExits(t *testing.T) {
	box := newBox(t)
	for _, tt := range []struct {
		script string
		want   process.Exit
	}{
		{"exit 0", process.Exit{}},
		{"exit 42", process.Exit{Code: 42}},
		{"kill -9 $$", process.Exit{Code: -1, Signal: driver.SIGKILL}},
		{"kill -15 $$", process.Exit{Code: -1, Signal: driver.SIGTERM}},
	} {
		if got := exitOf(t, start(t, box, tt.script, nil)); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.script, got, tt.want)
		}
	}
}

func TestStartErrors(t *testing.T) {
	box := newBox(t)
	_, err := process.Start(testContext(t), box, &driver.Exec{Args: []string{"no-such-program"}}, t.TempDir(), nil)
	if !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("missing program: %v", err)
	}
	_, err = process.Start(testContext(t), box, &driver.Exec{Args: []string{"true"}, Dir: "/no/such"}, t.TempDir(), nil)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

// Many readers from many offsets, while it runs and after, see the same bytes.
func TestReadersSeeTheSame(t *testing.T) {
	box := newBox(t)
	const total = 20 << 20
	p := start(t, box, "yes 0123456789abcdefghijklmnopqrstuvwxyz | head -c 20971520; echo to stderr >&2", nil)
	want := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz\n"), total/37+1)[:total]
	offsets := []int64{0, 1, 4096, 16<<10 - 1, 16 << 10, 16<<10 + 1, total / 2, total - 1, total}
	var wg sync.WaitGroup
	for range 2 { // while it runs, and once more after
		for _, off := range offsets {
			wg.Go(func() {
				if got := readAll(t, &p.Stdout, off); !bytes.Equal(got, want[off:]) {
					t.Errorf("from %d on: %d bytes that are not those written", off, len(got))
				}
			})
		}
		wg.Wait()
		exitOf(t, p)
	}
	if got := readAll(t, &p.Stderr, 0); string(got) != "to stderr\n" {
		t.Errorf("stderr %q", got)
	}
	if n, ended := p.Stdout.Size(); n != total || !ended {
		t.Errorf("size %d, ended %v", n, ended)
	}
	if _, err := p.Stdout.ReadAt(testContext(t), make([]byte, 1), total+1); err != io.EOF {
		t.Errorf("beyond the end: %v", err)
	}
	if _, err := p.Stdout.ReadAt(testContext(t), make([]byte, 1), -1); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("negative offset: %v", err)
	}
}

func TestReadWaitsForMore(t *testing.T) {
	p := start(t, newBox(t), "read a; echo $a; read b; echo $b", nil)
	ctx := testContext(t)
	buf := make([]byte, 100)
	short, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := p.Stdout.ReadAt(short, buf, 0)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a reader whose context ended: %v", err)
	}
	for i, line := range []string{"one\n", "two\n"} {
		if err := p.Stdin.Write(ctx, uint64(i*4), []byte(line), false); err != nil {
			t.Fatal(err)
		}
		n, err := p.Stdout.ReadAt(ctx, buf, int64(i*4))
		if err != nil || string(buf[:n]) != line {
			t.Errorf("read %q, %v; want %q", buf[:n], err, line)
		}
	}
}

func TestSilentStreams(t *testing.T) {
	box := newBox(t)
	p, err := process.Start(testContext(t), box, &driver.Exec{Args: []string{"cat"}}, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := readAll(t, &p.Stdout, 0); len(got) != 0 {
		t.Errorf("stdout %q", got)
	}
	if err := p.Stdin.Write(testContext(t), 0, []byte("x"), false); !errors.Is(err, process.ErrStdinClosed) {
		t.Errorf("stdin: %v", err)
	}
	if got := exitOf(t, p); got != (process.Exit{}) {
		t.Errorf("exit %+v", got)
	}
}

func TestTimeout(t *testing.T) {
	p := start(t, newBox(t), "echo hi; sleep 999 & sleep 999", &process.Options{Timeout: 300 * time.Millisecond})
	want := process.Exit{Code: -1, Signal: driver.SIGKILL, TimedOut: true}
	if got := exitOf(t, p); got != want {
		t.Errorf("exit %+v, want %+v", got, want)
	}
	if got := readAll(t, &p.Stdout, 0); string(got) != "hi\n" {
		t.Errorf("stdout %q", got)
	}
}

func TestSandboxEndsFirst(t *testing.T) {
	box := newBox(t)
	p := start(t, box, "echo before; sleep 999", nil)
	if n, err := p.Stdout.ReadAt(testContext(t), make([]byte, 7), 0); n != 7 || err != nil {
		t.Fatal(n, err)
	}
	if err := box.Terminate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := exitOf(t, p); got.Signal != driver.SIGKILL {
		t.Errorf("exit %+v", got)
	}
	if got := readAll(t, &p.Stdout, 0); string(got) != "before\n" {
		t.Errorf("stdout %q", got)
	}
	if err := p.Stdin.Write(testContext(t), 0, []byte("x"), false); !errors.Is(err, process.ErrStdinClosed) {
		t.Errorf("stdin: %v", err)
	}
	if err := p.Stdin.Write(testContext(t), 0, nil, true); err != nil {
		t.Errorf("ending the stdin of what has ended: %v", err)
	}
	e := &driver.Exec{Args: []string{"true"}}
	if _, err := process.Start(testContext(t), box, e, t.TempDir(), nil); !errors.Is(err, driver.ErrEnded) {
		t.Errorf("a start afterwards: %v", err)
	}
}

func TestCloseWhileRunning(t *testing.T) {
	box := newBox(t)
	e := &driver.Exec{Args: []string{"sleep", "999"}, Stdin: true, Stdout: true}
	p, err := process.Start(testContext(t), box, e, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := p.Stdout.ReadAt(context.Background(), make([]byte, 1), 0)
		read <- err
	}()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-read; err != io.EOF && !errors.Is(err, os.ErrClosed) {
		t.Errorf("a read that was waiting: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestTerminal(t *testing.T) {
	box := newBox(t)
	e := &driver.Exec{Args: []string{"/bin/sh", "-c", "stty size; tty >&2; cat"}, TTY: &driver.Winsize{Rows: 24, Cols: 80}}
	p, err := process.Start(testContext(t), box, e, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Stdin.Write(testContext(t), 0, []byte("typed\n"), true); err != nil {
		t.Fatal(err)
	}
	if got := exitOf(t, p); got != (process.Exit{}) {
		t.Errorf("exit %+v", got)
	}
	out := string(readAll(t, &p.Stdout, 0))
	for _, want := range []string{"24 80\r\n", "/dev/pts/", "typed\r\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
	if got := readAll(t, &p.Stderr, 0); len(got) != 0 {
		t.Errorf("stderr %q", got)
	}
}

func TestWrittenIsTold(t *testing.T) {
	var mu sync.Mutex
	next := map[bool]int64{}
	opts := &process.Options{Written: func(stderr bool, off int64, n int) {
		mu.Lock()
		defer mu.Unlock()
		if off != next[stderr] {
			t.Errorf("told of %d, not %d", off, next[stderr])
		}
		next[stderr] = off + int64(n)
	}}
	p := start(t, newBox(t), "head -c 100000 /dev/zero; echo abc >&2", opts)
	readAll(t, &p.Stdout, 0)
	readAll(t, &p.Stderr, 0)
	exitOf(t, p)
	mu.Lock()
	defer mu.Unlock()
	if next[false] != 100000 || next[true] != 4 {
		t.Errorf("told of %v", next)
	}
}

func TestThousandShortCommands(t *testing.T) {
	box := newBox(t)
	slots := make(chan struct{}, 50)
	var wg sync.WaitGroup
	for i := range 1000 {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			want := strings.Repeat("x", i)
			e := &driver.Exec{Args: []string{"/bin/sh", "-c", "cat; exit 7"}, Stdin: true, Stdout: true, Stderr: true}
			p, err := process.Start(testContext(t), box, e, t.TempDir(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer p.Close()
			if err := p.Stdin.Write(testContext(t), 0, []byte(want), true); err != nil {
				t.Error(err)
			}
			if e := exitOf(t, p); e.Code != 7 {
				t.Errorf("exit %+v", e)
			}
			if got := readAll(t, &p.Stdout, 0); string(got) != want {
				t.Errorf("%d bytes, want %d", len(got), len(want))
			}
		})
	}
	wg.Wait()
}

// A large file in through stdin and out through stdout is the same.
func TestLargeRoundTrip(t *testing.T) {
	p := start(t, newBox(t), "cat", nil)
	piece := bytes.Repeat([]byte("The quick brown fox.\n"), 50_000)
	in, out := sha256.New(), sha256.New()
	var wg sync.WaitGroup
	wg.Go(func() {
		w := p.Stdin.Stream(0)
		for range 64 {
			in.Write(piece)
			if err := w.Write(testContext(t), piece); err != nil {
				t.Error(err)
				return
			}
		}
		if err := w.End(testContext(t)); err != nil {
			t.Error(err)
		}
	})
	n, err := io.Copy(out, &reader{testContext(t), &p.Stdout, 0})
	wg.Wait()
	if err != nil || n != int64(64*len(piece)) {
		t.Fatal(n, err)
	}
	if !bytes.Equal(in.Sum(nil), out.Sum(nil)) {
		t.Error("what came out is not what went in")
	}
}
