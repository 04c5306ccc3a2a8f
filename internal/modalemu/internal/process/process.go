// Package process runs the commands of a sandbox for clients that come and go:
// what a command writes is kept and can be read from any offset, what it reads
// is written by offset, and how it ended stays known.
package process

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// killTimeout bounds the killing of a command whose time is over.
const killTimeout = 30 * time.Second

// Options are what a process may have beside its command. The zero value and
// nil ask for nothing.
type Options struct {
	// Timeout kills the process when it has run so long; 0 never does.
	Timeout time.Duration
	// Written is told about every piece of output once it can be read: of
	// stderr or of stdout, from which offset on, how many bytes. It is called
	// by one goroutine per stream, which it holds up.
	Written func(stderr bool, off int64, n int)
	// Ended is called once, when the process has ended.
	Ended func()
}

// Exit is how a process ended. A process that was killed, or whose sandbox ended
// first, has Code -1 and Signal SIGKILL.
type Exit struct {
	Code     int           // -1 when a signal ended it
	Signal   driver.Signal // the signal that ended it, or 0
	OOM      bool          // the sandbox ran into its memory limit meanwhile
	TimedOut bool          // Options.Timeout ended it
	Lost     bool          // its sandbox ended first
}

// Process is a command that was started, or a function that stands in for one.
// Its methods are safe for concurrent use.
type Process struct {
	Stdout, Stderr Output
	Stdin          Stdin

	started time.Time
	done    chan struct{} // closed once exit is set
	exit    Exit
	cancel  context.CancelFunc // lets go of the command
	work    sync.WaitGroup
	kill    func(context.Context) error

	mu       sync.Mutex
	timer    *time.Timer
	timedOut bool
	ended    func()
}

// Start starts a command of a sandbox. ctx covers the start only, dir is where
// output that is too long for memory is kept. Streams that e does not ask for
// are empty. The caller closes the process.
func Start(ctx context.Context, box driver.Sandbox, e *driver.Exec, dir string, opts *Options) (*Process, error) {
	cmd, err := box.Start(ctx, e)
	if err != nil {
		return nil, err
	}
	p := newProcess(dir, opts)
	run, cancel := context.WithCancel(context.Background())
	p.cancel, p.kill = cancel, cmd.Kill
	p.Stdin.dst = cmd.Stdin()
	if p.Stdin.dst == nil {
		p.Stdin.broken = true
	}
	p.spool(run, &p.Stdout, cmd.Stdout())
	p.spool(run, &p.Stderr, cmd.Stderr())
	p.work.Go(func() {
		exit, err := cmd.Wait(run)
		p.Stdin.shut()
		p.finish(exitOf(exit, err))
	})
	p.limit(opts)
	return p, nil
}

// exitOf takes a command that nothing is known about any more for killed: its
// sandbox is gone, and the command with it.
func exitOf(e driver.Exit, err error) Exit {
	if err != nil {
		return Exit{Code: -1, Signal: driver.SIGKILL, Lost: true}
	}
	return Exit{Code: e.Code, Signal: e.Signal, OOM: e.OOM}
}

// Func stands in for a command: it reads stdin, which ends with io.EOF when the
// writer has ended it, and returns how it ended. It returns soon once ctx is done.
type Func func(ctx context.Context, stdin *Reader, stdout, stderr io.Writer) Exit

// Run starts f as if it were a command.
func Run(f Func, dir string, opts *Options) *Process {
	p := newProcess(dir, opts)
	run, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.kill = func(context.Context) error {
		cancel()
		return nil
	}
	p.work.Go(func() {
		exit := f(run, &Reader{ctx: run, stdin: &p.Stdin}, &p.Stdout, &p.Stderr)
		if run.Err() != nil {
			exit = Exit{Code: -1, Signal: driver.SIGKILL}
		}
		p.Stdin.shut()
		p.Stdout.end(nil)
		p.Stderr.end(nil)
		p.finish(exit)
	})
	p.limit(opts)
	return p
}

func newProcess(dir string, opts *Options) *Process {
	p := &Process{started: time.Now(), done: make(chan struct{})}
	p.Stdout.dir, p.Stderr.dir = dir, dir
	if opts == nil {
		return p
	}
	p.ended = opts.Ended
	if opts.Written != nil {
		p.Stdout.written = func(off int64, n int) { opts.Written(false, off, n) }
		p.Stderr.written = func(off int64, n int) { opts.Written(true, off, n) }
	}
	return p
}

// spool keeps what comes from r. When that fails r is closed, so that the
// command does not go on writing to nobody.
func (p *Process) spool(ctx context.Context, o *Output, r io.ReadCloser) {
	if r == nil {
		o.end(nil)
		return
	}
	stop := context.AfterFunc(ctx, func() { r.Close() })
	p.work.Go(func() {
		defer stop()
		err := o.fill(r)
		r.Close()
		o.end(err)
	})
}

// limit arms the timeout.
func (p *Process) limit(opts *Options) {
	if opts == nil || opts.Timeout <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(opts.Timeout, p.expire)
}

func (p *Process) expire() {
	p.mu.Lock()
	select {
	case <-p.done:
		p.mu.Unlock()
		return
	default:
	}
	p.timedOut = true
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	if err := p.kill(ctx); err != nil && !errors.Is(err, driver.ErrEnded) {
		// The sandbox does not answer, so nobody can say how the command ends.
		p.cancel()
	}
}

func (p *Process) finish(e Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	e.TimedOut = p.timedOut && e.Signal != 0
	p.exit = e
	close(p.done)
	if p.ended != nil {
		p.ended()
	}
}

// Started is when the process was started.
func (p *Process) Started() time.Time { return p.started }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns how the process ended, once it has, or ctx's error.
func (p *Process) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-p.done:
		return p.exit, nil
	default:
	}
	select {
	case <-p.done:
		return p.exit, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// Kill ends the process and what came from it. It is no error when it has ended.
func (p *Process) Kill(ctx context.Context) error { return p.kill(ctx) }

// Close forgets the process: it lets go of a command that still runs, without
// ending it, and gives up what was kept of its output. Reads that wait end with
// os.ErrClosed.
func (p *Process) Close() error {
	p.cancel()
	p.work.Wait()
	return errors.Join(p.Stdout.free(), p.Stderr.free())
}
