//go:build unix

package localbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// process implements driver.Process.
type process struct {
	box    *box
	num    uint64 // ours, in requests and exits
	seq    uint64 // the helper's, of its mark
	stdin  io.WriteCloser
	stdout io.ReadCloser
	stderr io.ReadCloser
	tty    *terminal
	exited <-chan driver.Exit

	once sync.Once
	over chan struct{} // closed once exit is set
	exit driver.Exit
}

// Start implements driver.Sandbox.
func (b *box) Start(ctx context.Context, e *driver.Exec) (driver.Process, error) {
	if b.closed.Load() {
		return nil, os.ErrClosed
	}
	req := &wire.Request{Op: wire.OpStart, Args: e.Args, Env: e.Env, Dir: e.Dir, Stdin: e.Stdin,
		Stdout: e.Stdout, Stderr: e.Stderr && !e.Merge, Merge: e.Merge}
	p := &process{box: b, over: make(chan struct{})}
	var theirs []int
	if e.TTY != nil {
		req.TTY, req.Rows, req.Columns = true, e.TTY.Rows, e.TTY.Cols
	} else {
		var err error
		if theirs, err = p.pipes(req); err != nil {
			return nil, err
		}
	}
	req.Proc, p.exited = b.client.Expect()
	p.num = req.Proc
	r, fds, err := b.call(ctx, req, b.killLate, theirs...)
	wire.CloseFDs(theirs)
	if err == nil && req.TTY {
		err = p.openTerminal(fds)
	}
	if err != nil {
		b.client.Unexpect(p.num)
		p.closeStreams()
		return nil, err
	}
	p.seq = r.Proc
	return p, nil
}

// killLate ends a command whose Start nobody waited for.
func (b *box) killLate(r *wire.Reply, _ []int) {
	if r.Err == nil {
		_ = b.client.Notify(&wire.Request{Op: wire.OpKill, Num: int64(r.Proc)})
	}
}

// pipes makes the streams that were asked for and returns the command's ends.
func (p *process) pipes(req *wire.Request) (theirs []int, err error) {
	defer func() {
		if err != nil {
			wire.CloseFDs(theirs)
			p.closeStreams()
			theirs = nil
		}
	}()
	if req.Stdin {
		r, w, err := pipe()
		if err != nil {
			return theirs, err
		}
		theirs = append(theirs, r)
		p.stdin = stream(w, "stdin")
	}
	if req.Stdout {
		r, w, err := pipe()
		if err != nil {
			return theirs, err
		}
		theirs = append(theirs, w)
		p.stdout = widen(r, "stdout")
	}
	if req.Stderr {
		r, w, err := pipe()
		if err != nil {
			return theirs, err
		}
		theirs = append(theirs, w)
		p.stderr = stream(r, "stderr")
	}
	return theirs, nil
}

func (p *process) closeStreams() {
	for _, c := range []io.Closer{p.stdin, p.stdout, p.stderr} {
		if c != nil {
			c.Close()
		}
	}
}

// pipe makes a pipe whose ends block, as a command expects of its own.
func pipe() (r, w int, err error) {
	var fds [2]int
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := syscall.Pipe(fds[:]); err != nil {
		return -1, -1, os.NewSyscallError("pipe", err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	// A command may open its streams by name (/dev/stdout), as another user than
	// this one; nobody else can get at a pipe.
	_ = unix.Fchmod(fds[0], 0o666)
	return fds[0], fds[1], nil
}

// stream makes this side's end one that Close unblocks.
func stream(fd int, name string) *os.File {
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

// Stdin implements driver.Process.
func (p *process) Stdin() io.WriteCloser { return p.stdin }

// Stdout implements driver.Process.
func (p *process) Stdout() io.ReadCloser { return p.stdout }

// Stderr implements driver.Process.
func (p *process) Stderr() io.ReadCloser { return p.stderr }

func (p *process) finish(e driver.Exit) {
	p.once.Do(func() {
		p.exit = e
		close(p.over)
	})
}

// Wait implements driver.Process.
func (p *process) Wait(ctx context.Context) (driver.Exit, error) {
	if p.known() {
		return p.exit, nil
	}
	select {
	case e := <-p.exited:
		p.finish(e)
	case <-p.over:
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	case <-p.box.client.Down():
		if !p.known() {
			return driver.Exit{}, p.box.lost(ctx, wire.ErrDown)
		}
	}
	return p.exit, nil
}

// known reports whether the command's end is known by now.
func (p *process) known() bool {
	select {
	case e := <-p.exited:
		p.finish(e)
		return true
	case <-p.over:
		return true
	default:
		return false
	}
}

// Signal implements driver.Process. After the command has ended it returns
// os.ErrProcessDone.
func (p *process) Signal(ctx context.Context, sig driver.Signal) error {
	_, _, err := p.box.call(ctx, &wire.Request{Op: wire.OpSignal, Proc: p.num, Num: int64(sig)}, nil)
	return err
}

// Kill implements driver.Process.
func (p *process) Kill(ctx context.Context) error {
	_, _, err := p.box.call(ctx, &wire.Request{Op: wire.OpKill, Num: int64(p.seq)}, nil)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	// A system without marks: the process group is what can be found.
	if err = p.Signal(ctx, driver.SIGKILL); errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Resize implements driver.Process.
func (p *process) Resize(_ context.Context, size driver.Winsize) error {
	if p.tty == nil {
		return fmt.Errorf("the command has no terminal: %w", driver.ErrInvalid)
	}
	return p.tty.resize(size)
}
