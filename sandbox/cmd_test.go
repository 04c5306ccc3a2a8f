package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func TestCmdPassesWhatWasAsked(t *testing.T) {
	sb, d := fake(t, func(*fakeProcess) (driver.Exit, error) { return driver.Exit{}, nil })
	var out, other bytes.Buffer
	type want struct {
		in, out, err, merge bool
		dir                 string
	}
	for name, c := range map[string]struct {
		set  func(*sandbox.Cmd)
		want want
	}{
		"nothing":      {func(*sandbox.Cmd) {}, want{}},
		"relative dir": {func(c *sandbox.Cmd) { c.Dir = "a/../b" }, want{dir: "/workspace/a/../b"}},
		"absolute dir": {func(c *sandbox.Cmd) { c.Dir = "/tmp" }, want{dir: "/tmp"}},
		"stdin":        {func(c *sandbox.Cmd) { c.Stdin = strings.NewReader("") }, want{in: true}},
		"stdout":       {func(c *sandbox.Cmd) { c.Stdout = &out }, want{out: true}},
		"stderr":       {func(c *sandbox.Cmd) { c.Stderr = &out }, want{err: true}},
		"two writers":  {func(c *sandbox.Cmd) { c.Stdout, c.Stderr = &out, &other }, want{out: true, err: true}},
		"one writer":   {func(c *sandbox.Cmd) { c.Stdout, c.Stderr = &out, &out }, want{out: true, merge: true}},
		"writers that cannot be compared": {func(c *sandbox.Cmd) { c.Stdout, c.Stderr = sliceWriter{}, sliceWriter{} },
			want{out: true, err: true}},
		"terminal": {func(c *sandbox.Cmd) { c.TTY = &sandbox.Winsize{} }, want{in: true, out: true, merge: true}},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := sb.Command(t.Context(), "prog", "arg")
			cmd.Env = []string{"K=V"}
			c.set(cmd)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			e := d.last()
			got := want{in: e.Stdin, out: e.Stdout, err: e.Stderr, merge: e.Merge, dir: e.Dir}
			if got != c.want || !slices.Equal(e.Args, []string{"prog", "arg"}) || !slices.Equal(e.Env, []string{"K=V"}) {
				t.Errorf("started %+v, want %+v", e, c.want)
			}
		})
	}
}

type sliceWriter []byte

func (sliceWriter) Write(p []byte) (int, error) { return len(p), nil }

func TestCmdRefusesWhatCannotBe(t *testing.T) {
	sb, d := fake(t, untilKilled)
	var out bytes.Buffer
	for name, set := range map[string]func(*sandbox.Cmd){
		"no program":          func(c *sandbox.Cmd) { c.Args = nil },
		"empty program":       func(c *sandbox.Cmd) { c.Args = []string{""} },
		"NUL in an argument":  func(c *sandbox.Cmd) { c.Args = append(c.Args, "a\x00b") },
		"NUL in Env":          func(c *sandbox.Cmd) { c.Env = []string{"A=\x00"} },
		"NUL in Dir":          func(c *sandbox.Cmd) { c.Dir = "/a\x00" },
		"Env without =":       func(c *sandbox.Cmd) { c.Env = []string{"secretvalue"} },
		"Env without a key":   func(c *sandbox.Cmd) { c.Env = []string{"=secretvalue"} },
		"stdin twice":         func(c *sandbox.Cmd) { _, _ = c.StdinPipe(); c.Stdin = strings.NewReader("") },
		"stdout twice":        func(c *sandbox.Cmd) { _, _ = c.StdoutPipe(); c.Stdout = &out },
		"stderr twice":        func(c *sandbox.Cmd) { _, _ = c.StderrPipe(); c.Stderr = &out },
		"terminal and stderr": func(c *sandbox.Cmd) { c.TTY = &sandbox.Winsize{}; c.Stderr = &out },
		"terminal and pipe":   func(c *sandbox.Cmd) { c.TTY = &sandbox.Winsize{}; _, _ = c.StderrPipe() },
	} {
		cmd := sb.Command(t.Context(), "prog")
		set(cmd)
		err := cmd.Start()
		if !errors.Is(err, sandbox.ErrInvalid) || strings.Contains(err.Error(), "secretvalue") {
			t.Errorf("%s: got %v, want one that matches ErrInvalid and shows no value", name, err)
		}
	}
	if len(d.started) > 0 {
		t.Errorf("the driver was asked to start %v", d.started)
	}
}

func TestCmdIsUsedInOrder(t *testing.T) {
	sb, _ := fake(t, func(*fakeProcess) (driver.Exit, error) { return driver.Exit{}, nil })
	cmd := sb.Command(t.Context(), "prog")
	for what, err := range map[string]error{
		"Wait": cmd.Wait(), "Signal": cmd.Signal(sandbox.SIGTERM), "Resize": cmd.Resize(sandbox.Winsize{}),
		"a Cmd of nobody": (&sandbox.Cmd{Args: []string{"x"}}).Start(),
	} {
		if err == nil {
			t.Errorf("%s before Start: no error", what)
		}
	}
	if cmd.Exit() != nil {
		t.Error("Exit before Start")
	}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	_, pipeErr := cmd.StdoutPipe()
	for what, err := range map[string]error{"Start": cmd.Start(), "Wait": cmd.Wait(), "StdoutPipe": pipeErr} {
		if err == nil {
			t.Errorf("%s after Wait: no error", what)
		}
	}
	if !errors.Is(cmd.Resize(sandbox.Winsize{}), sandbox.ErrInvalid) {
		t.Error("Resize without a terminal: want ErrInvalid")
	}
	for name, set := range map[string]func(*sandbox.Cmd){
		"Stdout":     func(c *sandbox.Cmd) { c.Stdout = io.Discard },
		"StdoutPipe": func(c *sandbox.Cmd) { _, _ = c.StdoutPipe() },
	} {
		cmd := sb.Command(t.Context(), "prog")
		set(cmd)
		_, err1 := cmd.Output()
		_, err2 := cmd.CombinedOutput()
		if err1 == nil || err2 == nil {
			t.Errorf("Output with %s: %v, %v", name, err1, err2)
		}
	}
}

func TestPipesWaitForStart(t *testing.T) {
	sb, _ := fake(t, func(p *fakeProcess) (driver.Exit, error) {
		_, err := io.Copy(p.out, p.in)
		return driver.Exit{}, err
	})
	synctest.Test(t, func(t *testing.T) {
		cmd := sb.Command(t.Context(), "cat")
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		read := make(chan string, 1)
		go func() {
			data, _ := io.ReadAll(out)
			read <- string(data)
		}()
		go func() {
			_, _ = io.WriteString(in, "hello")
			_ = in.Close()
			_ = in.Close()
		}()
		synctest.Wait() // both wait for Start
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if got := <-read; got != "hello" {
			t.Errorf("read %q", got)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if _, err := in.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("write after Close: %v", err)
		}
	})
}

func TestPipeClosedBeforeStart(t *testing.T) {
	sb, _ := fake(t, func(p *fakeProcess) (driver.Exit, error) {
		n, err := io.Copy(io.Discard, p.in)
		return driver.Exit{Code: int(n)}, err
	})
	cmd := sb.Command(t.Context(), "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
}

func TestStartFailureReachesThePipes(t *testing.T) {
	sb, d := fake(t, untilKilled)
	d.startErr = errOnPurpose
	cmd := sb.Command(t.Context(), "prog")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	stderr, _ := cmd.StderrPipe()
	failed := make(chan error, 3)
	go func() { _, err := in.Write([]byte("x")); failed <- err }()
	go func() { _, err := io.ReadAll(out); failed <- err }()
	go func() { _, err := stderr.Read(make([]byte, 1)); failed <- err }()
	if err := cmd.Start(); !errors.Is(err, errOnPurpose) {
		t.Errorf("Start: %v", err)
	}
	for range 3 {
		if err := <-failed; !errors.Is(err, errOnPurpose) {
			t.Errorf("a pipe: got %v, want the reason", err)
		}
	}
	if err := errors.Join(in.Close(), out.Close(), stderr.Close()); err != nil {
		t.Error(err)
	}
	if err := cmd.Start(); err == nil || errors.Is(err, errOnPurpose) {
		t.Errorf("Start again: %v", err)
	}
}

func TestCancelBeforeAndDuringStart(t *testing.T) {
	sb, d := fake(t, untilKilled)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errOnPurpose)
	err := sb.Command(ctx, "prog").Run()
	if !errors.Is(err, context.Canceled) || !errors.Is(err, errOnPurpose) {
		t.Errorf("got %v, want the context's error and its cause", err)
	}
	if len(d.started) > 0 {
		t.Error("it was started all the same")
	}
	d.startErr = context.Canceled
	err = sb.Command(t.Context(), "prog").Run()
	if ee, ok := errors.AsType[*sandbox.ExitError](err); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled during start: %v, %v", err, ee)
	}
}

func TestKillThatFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	sb, _ := fake(t, func(p *fakeProcess) (driver.Exit, error) {
		p.killErr = driver.ErrUnavailable
		cancel()
		<-release // it goes on, its streams open
		return driver.Exit{}, nil
	})
	defer close(release)
	var out, stderr bytes.Buffer
	cmd := sb.Command(ctx, "prog")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = blockedReader(release), &out, &stderr
	err := cmd.Run()
	if !errors.Is(err, driver.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want why it was cancelled and why it could not be", err)
	}
	if cmd.Exit() != nil {
		t.Errorf("Exit is known: %v", cmd.Exit())
	}
}

// blockedReader blocks until it is closed.
type blockedReader chan struct{}

func (b blockedReader) Read([]byte) (int, error) {
	<-b
	return 0, io.EOF
}

func TestWaitThatFails(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for _, reason := range []error{driver.ErrUnavailable, errOnPurpose} {
		sb, _ := fake(t, func(p *fakeProcess) (driver.Exit, error) {
			_, _ = io.WriteString(p.out, "so far")
			p.background = func() { <-release }
			return driver.Exit{}, reason
		})
		out, err := sb.Command(t.Context(), "prog").Output()
		if _, ran := errors.AsType[*sandbox.ExitError](err); ran || !errors.Is(err, reason) || string(out) != "so far" {
			t.Errorf("got %q, %v; want %v", out, err, reason)
		}
	}
}

func TestSandboxEndsUnderACommand(t *testing.T) {
	sb, _ := fake(t, func(p *fakeProcess) (driver.Exit, error) {
		p.background = func() { _, _ = io.WriteString(p.out, "all of it") }
		return driver.Exit{}, driver.ErrEnded
	})
	out, err := sb.Command(t.Context(), "prog").Output()
	if !errors.Is(err, sandbox.ErrEnded) || string(out) != "all of it" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestCancelFunc(t *testing.T) {
	for name, c := range map[string]struct {
		cancel func(*sandbox.Cmd) error
		exit   driver.Exit
		check  func(error) bool
	}{
		"ended well":    {func(*sandbox.Cmd) error { return nil }, driver.Exit{}, func(err error) bool { return errors.Is(err, context.Canceled) }},
		"was done":      {func(*sandbox.Cmd) error { return os.ErrProcessDone }, driver.Exit{}, func(err error) bool { return err == nil }},
		"failed":        {func(*sandbox.Cmd) error { return errOnPurpose }, driver.Exit{}, func(err error) bool { return errors.Is(err, context.Canceled) && errors.Is(err, errOnPurpose) }},
		"ended badly":   {func(*sandbox.Cmd) error { return nil }, driver.Exit{Code: 3}, func(err error) bool { return exitCode(err) == 3 && errors.Is(err, context.Canceled) }},
		"was done, bad": {func(*sandbox.Cmd) error { return os.ErrProcessDone }, driver.Exit{Code: 3}, func(err error) bool { return exitCode(err) == 3 && !errors.Is(err, context.Canceled) }},
	} {
		t.Run(name, func(t *testing.T) {
			sb, _ := fake(t, func(p *fakeProcess) (driver.Exit, error) { <-p.signals; return c.exit, nil })
			ctx, cancel := context.WithCancel(t.Context())
			cmd := sb.Command(ctx, "prog")
			cmd.Cancel = func() error {
				_ = cmd.Signal(sandbox.SIGTERM)
				return c.cancel(cmd)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := cmd.Wait(); !c.check(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func exitCode(err error) int {
	if ee, ok := errors.AsType[*sandbox.ExitError](err); ok {
		return ee.Code
	}
	return 0
}

func TestWaitDelayKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sb, _ := fake(t, untilKilled)
		ctx, cancel := context.WithCancel(t.Context())
		cmd := sb.Command(ctx, "prog")
		cmd.Cancel, cmd.WaitDelay = func() error { return nil }, time.Minute
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		cancel()
		err := cmd.Wait()
		if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || ee.Signal != sandbox.SIGKILL || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(began); d != time.Minute {
			t.Errorf("killed after %v", d)
		}
	})
}

func TestWaitDelayEndsCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		sb, _ := fake(t, func(p *fakeProcess) (driver.Exit, error) {
			p.background = func() {
				defer close(ended)
				for { // until its stream is closed
					if _, err := io.WriteString(p.out, "more"); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}
			return driver.Exit{}, nil
		})
		release := make(chan struct{})
		defer close(release)
		cmd := sb.Command(t.Context(), "prog")
		cmd.Stdin, cmd.WaitDelay = blockedReader(release), time.Minute
		out, err := cmd.Output() // reads the buffer: the race detector sees a late write
		if !errors.Is(err, sandbox.ErrWaitDelay) || !bytes.HasPrefix(out, []byte("moremore")) {
			t.Errorf("got %.20q, %v", out, err)
		}
		if cmd.Exit() == nil {
			t.Error("Exit is not known")
		}
		<-ended
	})
}

func TestBackgroundProcessKeepsStderr(t *testing.T) {
	for _, code := range []int{0, 5} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			sb, _ := fake(t, func(p *fakeProcess) (driver.Exit, error) {
				_, _ = io.WriteString(p.err, "why")
				p.background = func() {
					<-release
					if _, err := io.WriteString(p.err, "late"); err != nil {
						t.Errorf("the background process was disturbed: %v", err)
					}
				}
				return driver.Exit{Code: code}, nil
			})
			err := sb.Command(t.Context(), "prog").Run()
			if exitCode(err) != code {
				t.Errorf("got %v, want status %d", err, code)
			}
			if ee, ok := errors.AsType[*sandbox.ExitError](err); ok && string(ee.Stderr) != "why" {
				t.Errorf("tail of stderr: %q", ee.Stderr)
			}
			close(release)
			synctest.Wait()
		})
	}
}

func TestErrorsOfTheCallersStreams(t *testing.T) {
	sb, _ := fake(t, func(p *fakeProcess) (driver.Exit, error) {
		_, _ = io.Copy(p.out, p.in)
		_, _ = io.WriteString(p.out, "x")
		return driver.Exit{}, nil
	})
	for _, reason := range []error{errOnPurpose, fs.ErrClosed, syscall.EPIPE} {
		cmd := sb.Command(t.Context(), "prog")
		cmd.Stdin = failing{reason}
		if err := cmd.Run(); !errors.Is(err, reason) {
			t.Errorf("Stdin fails with %v: got %v", reason, err)
		}
		cmd = sb.Command(t.Context(), "prog")
		cmd.Stdout = failing{reason}
		if err := cmd.Run(); !errors.Is(err, reason) {
			t.Errorf("Stdout fails with %v: got %v", reason, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestStderrTail(t *testing.T) {
	chunk := strings.Repeat("0123456789abcde\n", 1<<10) // 16 KiB
	for _, writes := range [][]string{{}, {"short"}, {chunk, chunk, "x"}, {chunk, chunk, chunk, chunk, chunk, "end"}, {strings.Repeat(chunk, 5) + "end"}} {
		sb, _ := fake(t, func(p *fakeProcess) (driver.Exit, error) {
			for _, w := range writes {
				_, _ = io.WriteString(p.err, w)
			}
			return driver.Exit{Code: 1}, nil
		})
		all := strings.Join(writes, "")
		want := all[max(0, len(all)-32<<10):]
		var stderr bytes.Buffer
		seen := sb.Command(t.Context(), "prog")
		seen.Stderr = &stderr
		for _, err := range []error{sb.Command(t.Context(), "prog").Run(), seen.Run()} {
			if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || string(ee.Stderr) != want {
				t.Errorf("tail of %d bytes: %v", len(all), err)
			}
		}
		if stderr.String() != all {
			t.Errorf("Stderr got %d bytes of %d", stderr.Len(), len(all))
		}
	}
}

func TestTerminal(t *testing.T) {
	for typed, want := range map[string]string{"": "\x04", "a\n": "a\n\x04", "a\r": "a\r\x04", "a": "a\x04\x04"} {
		var got []byte
		sb, _ := fake(t, func(p *fakeProcess) (driver.Exit, error) {
			got, _ = io.ReadAll(p.in)
			_, _ = io.WriteString(p.out, "shown")
			// A terminal whose last process is gone.
			_ = p.out.(*io.PipeWriter).CloseWithError(syscall.EIO)
			return driver.Exit{}, nil
		})
		cmd := sb.Command(t.Context(), "prog")
		cmd.TTY = &sandbox.Winsize{Rows: 24, Cols: 80}
		if typed != "" {
			cmd.Stdin = strings.NewReader(typed)
		}
		out, err := cmd.Output()
		if err != nil || string(out) != "shown" || string(got) != want {
			t.Errorf("typed %q: the terminal got %q and showed %q, %v; want %q", typed, got, out, err, want)
		}
	}
}
