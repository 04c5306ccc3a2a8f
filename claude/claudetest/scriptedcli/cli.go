package scriptedcli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Line is a line of stdin or stdout as encoding/json decodes it: a plain map, so
// that reflect.DeepEqual and go-cmp can compare it.
type Line map[string]any

// Get returns the value at a path of keys, or nil where there is none.
func (l Line) Get(keys ...string) any {
	var v any = map[string]any(l)
	for _, key := range keys {
		object, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = object[key]
	}
	return v
}

// Text returns the string at a path of keys, or "".
func (l Line) Text(keys ...string) string {
	s, _ := l.Get(keys...).(string)
	return s
}

// CLI is one run of the command, as a [Play] sees it from the inside and a test
// from the outside. Its methods are safe for concurrent use. Writing blocks until
// the other side has read, as on a pipe that keeps nothing; once the run has ended,
// what is written is lost.
type CLI struct {
	// Args is the command line, Env the environment it was given in addition to the
	// sandbox's, and Dir its directory, "" for the sandbox's.
	Args, Env []string
	Dir       string

	box     *Box
	in      *bufio.Reader
	stdin   pipe
	stdout  pipe
	stderr  pipe
	reading sync.Once
	prompts chan Prompt

	writing sync.Mutex // so that lines of two goroutines do not mix

	mu       sync.Mutex
	received []Line
	handlers map[string]func(Line) (any, error)
	asked    map[string]*Question
	lastAsk  int
	lastLine int
	signals  chan driver.Signal // nil: the default is done
	done     bool
	exit     driver.Exit
	err      error

	interrupted chan struct{}
	closed      chan struct{} // stdin has come to its end
	ended       chan struct{}
}

type pipe struct {
	r *io.PipeReader
	w *io.PipeWriter
}

func newPipe() pipe {
	r, w := io.Pipe()
	return pipe{r, w}
}

func newCLI(b *Box, e *driver.Exec) *CLI {
	c := &CLI{
		Args: unlocked(e.Args), Env: slices.Clone(e.Env), Dir: e.Dir, box: b,
		stdin: newPipe(), stdout: newPipe(), stderr: newPipe(), prompts: make(chan Prompt, 64),
		handlers: map[string]func(Line) (any, error){}, asked: map[string]*Question{},
		interrupted: make(chan struct{}, 1), closed: make(chan struct{}), ended: make(chan struct{}),
	}
	c.in = bufio.NewReader(c.stdin.r)
	if !e.Stdin {
		_ = c.stdin.w.Close() // never fails
	}
	if e.Merge {
		c.stderr = c.stdout
	}
	if !e.Stdout {
		go drain(c.stdout.r)
	}
	if !e.Stderr && !e.Merge {
		go drain(c.stderr.r)
	}
	return c
}

func drain(r io.Reader) { _, _ = io.Copy(io.Discard, r) } // ends with the run

// Write writes lines to stdout, as they are, each with a newline.
func (c *CLI) Write(lines ...string) {
	for _, line := range lines {
		c.WriteBytes([]byte(line + "\n"))
	}
}

// WriteBytes writes to stdout as it is: half a line, or what is no JSON.
func (c *CLI) WriteBytes(data []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, _ = c.stdout.w.Write(data) // an error says that the run has ended
}

// WriteJSON writes a line. What does not marshal panics: it is a mistake in the play.
func (c *CLI) WriteJSON(line any) {
	data, err := json.Marshal(line)
	if err != nil {
		panic(fmt.Sprintf("scriptedcli: %v", err))
	}
	c.WriteBytes(append(data, '\n'))
}

// Stderr writes to stderr.
func (c *CLI) Stderr(text string) { _, _ = io.WriteString(c.stderr.w, text) }

// Exit ends the run with a status. Only the first end counts.
func (c *CLI) Exit(status int) { c.stop(driver.Exit{Code: status}, nil) }

// Die ends the run as a signal does.
func (c *CLI) Die(sig driver.Signal) { c.stop(driver.Exit{Code: -1, Signal: sig}, nil) }

// Lose ends the run with its sandbox; see [Box.Lose].
func (c *CLI) Lose(end driver.End) { c.box.Lose(end) }

// Ended is closed once the run has ended.
func (c *CLI) Ended() <-chan struct{} { return c.ended }

func (c *CLI) stop(exit driver.Exit, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return
	}
	c.done, c.exit, c.err = true, exit, err
	_ = c.stdout.w.Close() // pipes in memory: none of these fails
	_ = c.stderr.w.Close()
	_ = c.stdin.r.Close()
	close(c.ended)
}

// Signals returns the signals that the run is sent from now on. Without it they do
// what they do to the CLI: SIGTERM ends it with status 143, SIGINT with 0.
func (c *CLI) Signals() <-chan driver.Signal {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.signals == nil {
		c.signals = make(chan driver.Signal, 16)
	}
	return c.signals
}

// process is a run as a driver's process.
type process struct{ c *CLI }

func (p process) Stdin() io.WriteCloser { return p.c.stdin.w }
func (p process) Stdout() io.ReadCloser { return outEnd{p.c.stdout.r} }
func (p process) Stderr() io.ReadCloser { return outEnd{p.c.stderr.r} }

// outEnd is the reading end of an output, which says fs.ErrClosed once closed.
type outEnd struct{ *io.PipeReader }

func (e outEnd) Close() error { return e.CloseWithError(os.ErrClosed) }

func (p process) Wait(ctx context.Context) (driver.Exit, error) {
	select {
	case <-p.c.ended:
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		return p.c.exit, p.c.err
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	}
}

func (p process) Signal(ctx context.Context, sig driver.Signal) error {
	p.c.mu.Lock()
	signals, done := p.c.signals, p.c.done
	p.c.mu.Unlock()
	switch {
	case done:
		return os.ErrProcessDone
	case sig == 0:
	case sig == driver.SIGKILL:
		p.c.Die(sig)
	case signals != nil:
		select {
		case signals <- sig:
		case <-ctx.Done():
			return ctx.Err()
		}
	case sig == driver.SIGTERM:
		p.c.Exit(143)
	case sig == driver.SIGINT:
		p.c.Exit(0)
	}
	return nil
}

func (p process) Kill(context.Context) error {
	p.c.Die(driver.SIGKILL)
	return nil
}

func (p process) Resize(context.Context, driver.Winsize) error { return nil }

// unlocked gives a command line without the shell that package claude starts the
// CLI with, to hold the conversation's lock: sh -c SCRIPT sh ID PROGRAM ARG….
func unlocked(args []string) []string {
	if len(args) > 5 && args[0] == "sh" && args[1] == "-c" {
		args = args[5:]
	}
	return slices.Clone(args)
}
