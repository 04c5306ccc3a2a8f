package modalbox

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// process implements driver.Process.
type process struct {
	box    *box
	cp     *modal.ContainerProcess
	mark   int64
	tty    bool
	pid    int  // the command's, which the first line has told
	marked bool // it carries the mark

	byRunner bool // and not by a shell

	stdin          *input
	stdout, stderr *output
	first          *output // stdout, also where nobody wants it

	ctx  context.Context // ends with the process
	stop context.CancelFunc
	done chan struct{} // closed once exit and err are set
	once sync.Once
	exit driver.Exit
	err  error

	mu   sync.Mutex
	sent map[driver.Signal]bool // signals that this side has sent
	lost error                  // why it was killed although nobody asked for it
}

func newProcess(b *box, l *launch, cp *modal.ContainerProcess) *process {
	e := l.exec
	p := &process{box: b, cp: cp, mark: l.mark, tty: e.TTY != nil, byRunner: l.runner, done: make(chan struct{}), sent: map[driver.Signal]bool{}}
	p.ctx, p.stop = context.WithCancel(b.ctx)
	p.first = newOutput(p, cp.Stdout)
	if e.Stdout || p.tty {
		p.stdout = p.first
	}
	if e.Stderr && !e.Merge && !p.tty {
		p.stderr = newOutput(p, cp.Stderr)
	}
	if e.Stdin || p.tty {
		p.stdin = newInput(p, cp.Stdin)
	}
	go p.follow()
	return p
}

// Stdin implements driver.Process.
func (p *process) Stdin() io.WriteCloser {
	if p.stdin == nil {
		return nil
	}
	return p.stdin
}

// Stdout implements driver.Process.
func (p *process) Stdout() io.ReadCloser {
	if p.stdout == nil {
		return nil
	}
	return p.stdout
}

// Stderr implements driver.Process.
func (p *process) Stderr() io.ReadCloser {
	if p.stderr == nil {
		return nil
	}
	return p.stderr
}

func (p *process) closeStreams() {
	_ = p.first.Close()
	if p.stderr != nil {
		_ = p.stderr.Close()
	}
	if p.stdin != nil {
		_ = p.stdin.Close()
	}
}

// watchAfter is how long a process runs before it is looked after whether its
// sandbox ends: most have ended by then.
const watchAfter = time.Second

// follow waits for the process's end.
func (p *process) follow() {
	timer := time.AfterFunc(watchAfter, p.watchSandbox)
	defer timer.Stop()
	var code int
	err := insist(p.ctx, func() (err error) { code, err = p.cp.Wait(p.ctx, nil); return err })
	if p.isDone() {
		return // the sandbox has ended first
	}
	if err != nil {
		err = p.box.explain(context.Background(), "wait for a command", err)
		p.finish(driver.Exit{}, err)
		return
	}
	exit, err := p.judge(code)
	if lost := p.lostInput(); lost != nil {
		exit, err = driver.Exit{}, lost
	}
	p.finish(exit, err)
}

func (p *process) lostInput() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// endGrace is how long the result of a command may take to come when its
// sandbox has ended.
const endGrace = 2 * time.Second

// watchSandbox ends the waiting when the sandbox has ended.
func (p *process) watchSandbox() {
	defer p.box.watch()()
	select {
	case <-p.done:
		return
	case <-p.box.over:
	}
	timer := time.NewTimer(endGrace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.finish(driver.Exit{}, driver.ErrEnded)
	}
}

// killedWithin is how soon after a command was killed it is known that its
// sandbox has ended.
const killedWithin = 250 * time.Millisecond

// judge says what an exit code means. Modal gives a command that a signal ended
// the code 128 and the signal, as shells do: it is taken for one if this side
// has sent that signal.
func (p *process) judge(code int) (driver.Exit, error) {
	sig := driver.Signal(code - 128)
	switch {
	case code < 126 || code > 128+64:
		return driver.Exit{Code: code}, nil
	case code < 128:
		if err := p.failed(code); err != nil {
			return driver.Exit{}, err
		}
	case p.hasSent(sig):
		return driver.Exit{Code: -1, Signal: sig}, nil
	case (sig == driver.SIGKILL || sig == driver.SIGTERM) && p.sandboxEnds():
		return driver.Exit{}, driver.ErrEnded
	}
	return driver.Exit{Code: code}, nil
}

// sandboxEnds reports whether the sandbox has ended, or is just ending.
func (p *process) sandboxEnds() bool {
	if p.box.terminating.Load() || p.box.ended() != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(p.ctx, killedWithin)
	defer cancel()
	_, err := p.box.Wait(ctx)
	return err == nil
}

func (p *process) finish(exit driver.Exit, err error) {
	p.once.Do(func() {
		p.exit, p.err = exit, err
		close(p.done)
		p.stop()
		p.first.processEnded(err != nil)
		if p.stderr != nil {
			p.stderr.processEnded(err != nil)
		}
	})
}

func (p *process) isDone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) note(sig driver.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent[sig] = true
}

func (p *process) hasSent(sig driver.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent[sig]
}

// Wait implements driver.Process.
func (p *process) Wait(ctx context.Context) (driver.Exit, error) {
	if p.isDone() {
		return p.exit, p.err
	}
	select {
	case <-p.done:
		return p.exit, p.err
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	case <-p.box.ctx.Done():
	}
	// The handle was closed: what is known by now is all there will be.
	if p.isDone() {
		return p.exit, p.err
	}
	return driver.Exit{}, os.ErrClosed
}
