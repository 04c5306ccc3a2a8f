package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// ErrWaitDelay is returned by Wait when the command ended well but its streams
// stayed open, as a background process can keep them, beyond WaitDelay.
var ErrWaitDelay = exec.ErrWaitDelay

// killTimeout bounds the clean-up that follows a context's end.
const killTimeout = 30 * time.Second

// endOfTransmission is ^D: what ends the input on a terminal.
const endOfTransmission = 4

// Winsize is a terminal's size in characters.
type Winsize = driver.Winsize

// Cmd is a command to run in a sandbox. It is used once, as os/exec's Cmd is,
// and set up and waited for by one goroutine; Signal and Resize are safe to
// call from others once it has started.
type Cmd struct {
	// Args is the program and its arguments. A program without a slash is
	// looked up in the PATH of the sandbox.
	Args []string
	// Env is added to the sandbox's own environment, as KEY=VALUE; later
	// entries win. Nothing of this process's environment is ever passed.
	Env []string
	// Dir is the directory to start in. Empty means Sandbox.Dir.
	Dir string
	// Stdin is what the command reads; nil is an empty input. Reading it ends
	// when the command has ended, but a Read that blocks holds up Wait unless
	// WaitDelay is set.
	Stdin io.Reader
	// Stdout and Stderr get what the command writes; nil throws it away. When
	// both are the same writer, it is written to by one goroutine at a time
	// and in the order the command wrote.
	Stdout, Stderr io.Writer
	// TTY, if set, runs the command on a terminal of this size: stderr comes
	// with stdout, lines end in CR LF, and Stdin is what is typed, its end as ^D.
	TTY *Winsize
	// Cancel is called when the context ends before the command does. Nil
	// kills the command and every process that came from it. When it
	// returns an error matching os.ErrProcessDone, Wait does not report the
	// context's error.
	Cancel func() error
	// WaitDelay bounds how long Wait goes on after the context ended (then the
	// command and its tree are killed) or after the command ended while its
	// streams stay open (then they are closed). 0 waits without a bound.
	WaitDelay time.Duration

	sb  *Sandbox
	ctx context.Context

	proc       driver.Process
	copying    int          // streams that this process copies
	copied     chan error   // one result for each of them
	ended      chan outcome // how the command ended, once
	pipes      []io.Closer  // what Wait closes when the command has ended
	wantIn     bool         // StdinPipe was called
	wantOut    bool         // StdoutPipe was called
	wantErr    bool         // StderrPipe was called
	pending    []*pipe      // handed out before Start
	captureErr bool         // keep the tail of stderr although nobody asked for it
	tail       *tail
	waited     bool
	exit       *Exit
}

// outcome is how a command ended, and what its context had to do with it.
type outcome struct {
	exit   Exit
	cancel error // the context's cause, with the error of a Cancel that failed
	err    error // why exit is not known
}

// Exit is how a command ended.
type Exit = driver.Exit

// Signal is a Linux signal number, and an os.Signal.
type Signal = driver.Signal

// Signals that programs commonly handle. The full list is signal(7)'s.
const (
	SIGHUP  = driver.SIGHUP
	SIGINT  = driver.SIGINT
	SIGQUIT = driver.SIGQUIT
	SIGKILL = driver.SIGKILL
	SIGUSR1 = driver.SIGUSR1
	SIGUSR2 = driver.SIGUSR2
	SIGTERM = driver.SIGTERM
)

// ExitError is a command that ran and did not end with status 0.
type ExitError struct {
	Exit
	// Args is the command's program and arguments. They are not part of the text.
	Args []string
	// Stderr is the last 32 KiB at most of what the command wrote to stderr,
	// where this package saw it: with Cmd.Stderr set, or in Run and Output.
	Stderr []byte
	// Cause is why the command was cancelled, as context.Cause gives it; nil
	// when it was not. errors.Is(err, context.Canceled) sees it.
	Cause error
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("exit status %d", e.Code)
	if e.Signal != 0 {
		text = "signal: " + e.Signal.String()
	}
	if e.OOM {
		text += " (the sandbox reached its memory limit)"
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	if len(e.Args) > 0 {
		text = e.Args[0] + ": " + text
	}
	return text
}

// Unwrap gives Cause.
func (e *ExitError) Unwrap() error { return e.Cause }

// Command returns a Cmd that runs name with args in the sandbox. When ctx ends
// first, the command is killed with every process that came from it.
func (s *Sandbox) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Args: append([]string{name}, args...), sb: s, ctx: ctx}
}

// String is the command for a human. It is not safe to give to a shell.
func (c *Cmd) String() string { return strings.Join(c.Args, " ") }

// Start starts the command without waiting for it. After it succeeded, Wait
// must be called. A program that is not there matches exec.ErrNotFound, a
// directory that is not there fs.ErrNotExist.
func (c *Cmd) Start() error {
	if c.proc != nil {
		return c.fail(errors.New("already started"))
	}
	err := c.start()
	if err != nil {
		for _, p := range c.pending {
			p.set(nil, err)
		}
		return c.fail(err)
	}
	return nil
}

func (c *Cmd) start() error {
	if c.sb == nil {
		return errors.New("use Sandbox.Command to make a Cmd")
	}
	if err := c.check(); err != nil {
		return err
	}
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	merge := c.TTY != nil || c.Stderr != nil && sameWriter(c.Stdout, c.Stderr)
	proc, err := c.sb.driver.Start(c.ctx, &driver.Exec{
		Args: c.Args, Env: c.Env, Dir: c.Dir, TTY: c.TTY,
		Stdin:  c.Stdin != nil || c.wantIn || c.TTY != nil,
		Stdout: c.Stdout != nil || c.wantOut || c.TTY != nil,
		Stderr: !merge && (c.Stderr != nil || c.wantErr || c.captureErr),
		Merge:  merge,
	})
	if err != nil {
		return err
	}
	c.proc = proc
	c.copied = make(chan error, 3)
	c.connect(merge)
	c.ended = make(chan outcome, 1)
	go func() { c.ended <- c.await() }()
	return nil
}

func (c *Cmd) check() error {
	switch {
	case len(c.Args) == 0 || c.Args[0] == "":
		return fmt.Errorf("%w: no program to run", ErrInvalid)
	case c.TTY != nil && c.wantErr:
		return fmt.Errorf("%w: a terminal has no stderr of its own; read StdoutPipe", ErrInvalid)
	case c.TTY != nil && c.Stderr != nil && !sameWriter(c.Stdout, c.Stderr):
		return fmt.Errorf("%w: a terminal has no stderr of its own; leave Stderr nil", ErrInvalid)
	}
	for _, s := range append(c.Args[:len(c.Args):len(c.Args)], c.Env...) {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("%w: an argument or environment entry holds a NUL byte", ErrInvalid)
		}
	}
	for _, kv := range c.Env {
		if i := strings.IndexByte(kv, '='); i <= 0 {
			return fmt.Errorf("%w: Env: entries are KEY=VALUE", ErrInvalid)
		}
	}
	return nil
}

// connect ties the process's streams to readers, writers and pipes.
func (c *Cmd) connect(merge bool) {
	for _, p := range c.pending {
		p.set(c.proc, nil)
	}
	if c.Stdin != nil {
		c.copyIn(c.proc.Stdin())
	} else if c.TTY != nil && !c.wantIn {
		c.pipes = append(c.pipes, c.proc.Stdin())
	}
	switch {
	case c.wantOut:
		c.pipes = append(c.pipes, c.proc.Stdout())
	case c.proc.Stdout() != nil:
		w := c.Stdout
		if w == nil {
			w = io.Discard // a terminal nobody reads must still be drained
		}
		if merge && c.Stderr != nil {
			c.tail = &tail{}
			w = io.MultiWriter(w, c.tail)
		}
		c.copyOut(w, c.proc.Stdout())
	}
	switch {
	case c.wantErr:
		c.pipes = append(c.pipes, c.proc.Stderr())
	case c.proc.Stderr() != nil:
		c.tail = &tail{}
		var w io.Writer = c.tail
		if c.Stderr != nil {
			w = io.MultiWriter(c.Stderr, c.tail)
		}
		c.copyOut(w, c.proc.Stderr())
	}
}

func (c *Cmd) copyIn(w io.WriteCloser) {
	stdin := c.Stdin
	c.pipes = append(c.pipes, w)
	c.spawn(func() error {
		_, err := io.Copy(w, stdin)
		if err == nil && c.TTY != nil {
			_, err = w.Write([]byte{endOfTransmission})
		}
		if isClosedPipe(err) { // the command need not read it all
			err = nil
		}
		return errors.Join(err, ignoreClosed(w.Close()))
	})
}

func (c *Cmd) copyOut(w io.Writer, r io.ReadCloser) {
	c.pipes = append(c.pipes, r)
	c.spawn(func() error {
		_, err := copyBuffered(w, r)
		// Closing tells the command that nobody listens any more.
		return errors.Join(ignoreClosed(err), ignoreClosed(r.Close()))
	})
}

func (c *Cmd) spawn(copyStream func() error) {
	c.copying++
	go func() { c.copied <- copyStream() }()
}

// Wait waits for the command to end and for its streams to be copied, and
// closes the pipes. It must be called once after Start, and not before reads
// from StdoutPipe and StderrPipe are done.
//
// A command that failed is an *ExitError. When the context ended first, the
// error matches the context's, and is an *ExitError too if the command was
// killed by that. When the sandbox ended first the error matches ErrEnded.
func (c *Cmd) Wait() error {
	if c.proc == nil {
		return c.fail(errors.New("not started"))
	}
	if c.waited {
		return c.fail(errors.New("Wait was already called"))
	}
	c.waited = true
	end := <-c.ended
	copyErr := c.awaitCopies()
	for _, p := range c.pipes {
		_ = p.Close()
	}
	if end.err != nil {
		return c.fail(errors.Join(end.err, end.cancel))
	}
	c.exit = &end.exit
	if end.exit.Code != 0 || end.exit.Signal != 0 {
		e := &ExitError{Exit: end.exit, Args: c.Args, Cause: end.cancel}
		if c.tail != nil {
			e.Stderr = c.tail.Bytes()
		}
		return e
	}
	if end.cancel != nil {
		return c.fail(end.cancel)
	}
	return copyErr
}

// await waits for the process, and cancels it when the context ends first.
func (c *Cmd) await() outcome {
	ctx, stop := context.WithCancel(context.WithoutCancel(c.ctx))
	defer stop()
	done := make(chan outcome, 1)
	go func() {
		exit, err := c.proc.Wait(ctx)
		done <- outcome{exit: exit, err: err}
	}()
	select {
	case end := <-done:
		return end
	case <-c.ctx.Done():
	}
	cause, err := c.cancelled()
	if err != nil {
		return outcome{cancel: cause, err: err}
	}
	if c.WaitDelay > 0 {
		timer := time.NewTimer(c.WaitDelay)
		defer timer.Stop()
		select {
		case end := <-done:
			end.cancel = cause
			return end
		case <-timer.C:
			if err := c.kill(); err != nil {
				return outcome{cancel: cause, err: err}
			}
		}
	}
	end := <-done
	end.cancel = cause
	return end
}

// cancelled cancels the command and returns what Wait is to report for it. err
// says that it could not be killed, so that there is no point in waiting.
func (c *Cmd) cancelled() (cause, err error) {
	cause = context.Cause(c.ctx)
	if c.Cancel == nil {
		return cause, c.kill()
	}
	switch err := c.Cancel(); {
	case errors.Is(err, os.ErrProcessDone):
		return nil, nil
	case err != nil:
		return errors.Join(cause, fmt.Errorf("cancel: %w", err)), nil
	}
	return cause, nil
}

func (c *Cmd) kill() error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(c.ctx), killTimeout)
	defer stop()
	if err := c.proc.Kill(ctx); err != nil && !errors.Is(err, ErrEnded) {
		return fmt.Errorf("kill: %w", err)
	}
	return nil
}

// awaitCopies waits until the streams are copied, WaitDelay at most if set.
func (c *Cmd) awaitCopies() error {
	var expired <-chan time.Time
	if c.WaitDelay > 0 {
		timer := time.NewTimer(c.WaitDelay)
		defer timer.Stop()
		expired = timer.C
	}
	var first error
	for range c.copying {
		select {
		case err := <-c.copied:
			first = cmpErr(first, err)
		case <-expired:
			return cmpErr(first, ErrWaitDelay)
		}
	}
	return first
}

// Run starts the command and waits for it. With Stderr nil its tail is kept
// for the ExitError, as Output does; a background process that keeps stderr
// open then keeps Run waiting, unless WaitDelay is set.
func (c *Cmd) Run() error {
	c.captureErr = true
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns what it wrote to stdout.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, c.fail(errors.New("Stdout is already set"))
	}
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns what it wrote to stdout and stderr.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, c.fail(errors.New("Stdout or Stderr is already set"))
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Signal sends sig to the command's process group. A command that has ended
// matches os.ErrProcessDone.
func (c *Cmd) Signal(sig Signal) error {
	if c.proc == nil {
		return c.fail(errors.New("not started"))
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(c.ctx), killTimeout)
	defer stop()
	return wrap("signal", c.sb.ID(), c.proc.Signal(ctx, sig))
}

// Resize changes the size of the command's terminal.
func (c *Cmd) Resize(size Winsize) error {
	if c.proc == nil {
		return c.fail(errors.New("not started"))
	}
	if c.TTY == nil {
		return c.fail(fmt.Errorf("%w: the command has no terminal", ErrInvalid))
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(c.ctx), killTimeout)
	defer stop()
	return wrap("resize", c.sb.ID(), c.proc.Resize(ctx, size))
}

// Exit is how the command ended; nil before Wait has returned, and when that
// could not be learnt.
func (c *Cmd) Exit() *Exit { return c.exit }

// fail adds the operation and the sandbox's id.
func (c *Cmd) fail(err error) error {
	op, id := "exec", ""
	if len(c.Args) > 0 {
		op += " " + c.Args[0]
	}
	if c.sb != nil {
		id = c.sb.ID()
	}
	return wrap(op, id, err)
}
