package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

var errStarted = errors.New("already started")

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
	// Dir is the directory to start in. Empty means Sandbox.Dir, and a
	// relative one is below it.
	Dir string
	// Stdin is what the command reads; nil is an empty input. It is read until
	// its end, or until writing to the command fails; until then Wait does not
	// return, unless WaitDelay is set: then a Read that blocks is left behind.
	Stdin io.Reader
	// Stdout and Stderr get what the command writes; nil throws it away. When
	// both are the same writer, it is written to by one goroutine at a time
	// and in the order the command wrote.
	Stdout, Stderr io.Writer
	// TTY, if set, runs the command on a terminal of this size: stderr comes
	// with stdout, lines end in CR LF, and Stdin is what is typed, its end as
	// ^D. To keep the terminal open without typing, use StdinPipe.
	TTY *Winsize
	// Cancel is called when the context ends before the command does. Nil
	// kills the command and every process that came from it. When it
	// returns an error matching os.ErrProcessDone, Wait does not report the
	// context's error.
	Cancel func() error
	// WaitDelay bounds how long the command goes on after the context ended
	// (then it is killed with its tree), and how long its streams stay open
	// after it ended (then they are closed). 0 waits without a bound.
	WaitDelay time.Duration

	sb  *Sandbox
	ctx context.Context

	in, out, err *pipe // handed out by StdinPipe, StdoutPipe and StderrPipe
	keepStderr   bool  // keep the tail of stderr although nobody asked for it

	started    bool
	waited     bool
	proc       driver.Process
	ended      chan outcome  // how the command ended, once
	streams    []io.Closer   // what Wait closes
	copying    int           // outputs that are copied to Stdout and Stderr
	copied     chan error    // one result for each of them
	copiedIn   chan error    // the result of copying Stdin; nil when there is none
	tail       *tail         // the end of stderr
	tailed     chan struct{} // closed when a stderr that nobody asked for has ended
	tailStream io.Closer     // that stderr
	exit       *Exit
}

// Command returns a Cmd that runs name with args in the sandbox. When ctx ends
// first, the command is killed with every process that came from it.
func (s *Sandbox) Command(ctx context.Context, name string, args ...string) *Cmd {
	if ctx == nil {
		panic("sandbox: nil Context")
	}
	return &Cmd{Args: append([]string{name}, args...), sb: s, ctx: ctx}
}

// String is the command for a human. It is not safe to give to a shell.
func (c *Cmd) String() string { return strings.Join(c.Args, " ") }

// Start starts the command without waiting for it. After it succeeded, Wait
// must be called; after it failed, the Cmd cannot be used again. A program that
// is not there matches exec.ErrNotFound, a directory that is not there
// fs.ErrNotExist.
func (c *Cmd) Start() error {
	if c.started {
		return c.fail(errStarted)
	}
	c.started = true
	if err := c.start(); err != nil {
		err = c.fail(err)
		for _, p := range []*pipe{c.in, c.out, c.err} {
			if p != nil {
				p.tie(nil, nil, err)
			}
		}
		return err
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
		return contextError(c.ctx)
	}
	merge := c.TTY != nil || c.Stderr != nil && sameWriter(c.Stdout, c.Stderr)
	proc, err := c.sb.driver.Start(c.ctx, &driver.Exec{
		Args: c.Args, Env: c.Env, Dir: c.dir(), TTY: c.TTY,
		Stdin:  c.Stdin != nil || c.in != nil || c.TTY != nil,
		Stdout: c.Stdout != nil || c.out != nil || c.TTY != nil,
		Stderr: !merge && (c.Stderr != nil || c.err != nil || c.keepStderr),
		Merge:  merge,
	})
	if err != nil {
		return err
	}
	c.proc = proc
	c.copied = make(chan error, 2)
	c.connect(merge)
	c.ended = make(chan outcome, 1)
	go func() { c.ended <- c.await() }()
	return nil
}

// dir is Dir as the driver wants it; a relative one is below Sandbox.Dir. It is
// not cleaned: a ".." after a link is for the sandbox to resolve.
func (c *Cmd) dir() string {
	if c.Dir == "" || path.IsAbs(c.Dir) {
		return c.Dir
	}
	return strings.TrimSuffix(c.sb.dir, "/") + "/" + c.Dir
}

func (c *Cmd) check() error {
	var bad problems
	bad.when(len(c.Args) == 0 || c.Args[0] == "", "no program to run")
	bad.when(c.Stdin != nil && c.in != nil, "Stdin and StdinPipe exclude each other")
	bad.when(c.Stdout != nil && c.out != nil, "Stdout and StdoutPipe exclude each other")
	bad.when(c.Stderr != nil && c.err != nil, "Stderr and StderrPipe exclude each other")
	bad.when(c.TTY != nil && (c.err != nil || c.Stderr != nil && !sameWriter(c.Stdout, c.Stderr)),
		"a terminal has no stderr of its own; use Stdout")
	for _, s := range append(c.Args[:len(c.Args):len(c.Args)], c.Env...) {
		bad.when(strings.ContainsRune(s, 0), "an argument or environment entry holds a NUL byte")
	}
	bad.when(strings.ContainsRune(c.Dir, 0), "Dir holds a NUL byte")
	for i, kv := range c.Env {
		bad.when(strings.IndexByte(kv, '=') <= 0, "Env[%d]: entries are KEY=VALUE", i)
	}
	return bad.err()
}

// Run starts the command and waits for it. With Stderr nil its tail is kept
// for the ExitError; a background process that keeps stderr open does not keep
// Run waiting.
func (c *Cmd) Run() error {
	c.keepStderr = true
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns what it wrote to stdout.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil || c.out != nil {
		return nil, c.fail(errors.New("Stdout is already set"))
	}
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns what it wrote to stdout and stderr.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil || c.out != nil || c.err != nil {
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
