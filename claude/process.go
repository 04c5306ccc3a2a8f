package claude

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

const (
	// cleanupTimeout bounds a question to the sandbox after its process has ended.
	cleanupTimeout = 10 * time.Second
	// closeGrace is how long a CLI that has nothing left to do may take to end.
	closeGrace = 3 * time.Second
	// termGrace is how long it may take to end after SIGTERM.
	termGrace = 2 * time.Second
	// interruptTimeout is how long a turn may take to stop before it is killed.
	interruptTimeout = 10 * time.Second
)

// process is a running CLI: one goroutine reads what it writes, in order, and
// another writes to it, so that neither side's writing can block both.
type process struct {
	sb      *sandbox.Sandbox
	opts    *Options
	oneShot bool // the process ends with its one turn
	cmd     *sandbox.Cmd
	ctx     context.Context         // of the run
	cancel  context.CancelCauseFunc // kills every process of the run
	host    *host
	in      *input
	stderr  stderrTail
	secrets []string
	release []func() // what to let go of when the CLI has ended

	mu      sync.Mutex
	id      string  // the conversation's
	queue   *queue  // where lines go
	turns   []*turn // the first goes on, the others wait
	holds   int     // reasons for which lines must flow, read or not
	replies map[string]chan reply
	lastReq int
	unasked *ResultMessage // a result that no turn asked for: why the CLI does not start

	// What WaitIdle waits for.
	tasks   []BackgroundTask
	state   string        // the CLI's; "" until it says one
	changed chan struct{} // closed and made anew when something has changed

	answered   bool        // the one turn's result has come
	idling     *time.Timer // ends the input of a run that has its result
	background *time.Timer // ends a run that has its result
	info       ServerInfo  // to be read once it has started

	started atomic.Bool // it has answered
	done    chan struct{}
	end     *EndError // how it ended; to be read after done
}

// start starts the CLI and returns when it has answered. When ctx ends, every
// process of the run is killed.
func start(ctx context.Context, sb *sandbox.Sandbox, opts *Options, oneShot bool) (*process, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	opts, err := opts.resolveContinue(ctx, sb)
	if err != nil {
		return nil, err
	}
	id, newID := opts.Resume, ""
	if id == "" || opts.Fork {
		if newID = opts.SessionID; newID == "" {
			newID = newUUID()
		}
		id = newID
	}
	unlock, err := lockConversation(sb.ID(), id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	p := &process{
		sb: sb, opts: opts, oneShot: oneShot, ctx: ctx, cancel: cancel, in: newInput(), id: id, queue: newQueue(false),
		replies: map[string]chan reply{}, done: make(chan struct{}), changed: make(chan struct{}),
		secrets: opts.secrets(), release: []func(){unlock},
	}
	p.host = newHost(p)
	if err := p.launch(ctx, newID); err != nil {
		p.letGo()
		cancel(err)
		return nil, p.startError(err)
	}
	if err := p.initialize(ctx); err != nil {
		cancel(err)
		<-p.done
		return nil, p.startError(err)
	}
	p.started.Store(true)
	return p, nil
}

func (p *process) starting() bool { return !p.started.Load() }

// launch starts the process and the goroutines around it.
func (p *process) launch(ctx context.Context, newID string) error {
	env, err := p.environment(ctx)
	if err != nil {
		return err
	}
	program, err := p.opts.program(ctx, p.sb)
	if err != nil {
		return err
	}
	args := locked(p.id, program, p.opts.args(newID))
	p.cmd = p.sb.Command(ctx, args[0], args[1:]...)
	p.cmd.Env, p.cmd.Dir, p.cmd.Stderr = env, p.opts.Dir, &p.stderr
	p.stderr.also = p.opts.Stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go p.in.run(stdin)
	// A killed CLI must not be held up by a reader who waits for its end.
	unhold := context.AfterFunc(ctx, func() { p.hold() })
	p.release = append(p.release, func() { unhold() })
	go p.run(stdout)
	return nil
}

// environment is the CLI's, beside the sandbox's own. It begins to serve the
// endpoint if there is one.
func (p *process) environment(ctx context.Context) ([]string, error) {
	env := p.opts.env()
	if p.opts.PermissionMode == PermissionBypass {
		info, err := p.sb.Info(ctx)
		if err != nil {
			return nil, err
		}
		if info.Isolated {
			env = append(env, "IS_SANDBOX=1")
		}
	}
	if p.opts.Endpoint.Handler != nil {
		served, err := p.opts.Endpoint.serve(ctx, p.sb)
		if err != nil {
			return nil, err
		}
		p.release = append(p.release, served.close)
		p.secrets = append(p.secrets, served.token)
		env = append(env, served.env()...)
	}
	return append(env, p.opts.Env...), nil
}

// run reads the CLI's output to its end, and only then waits for it.
func (p *process) run(stdout io.Reader) {
	readErr := p.read(stdout)
	if readErr != nil {
		p.cancel(readErr)
	}
	waitErr := p.cmd.Wait()
	p.in.close()
	<-p.in.done
	p.endCallbacks()
	p.letGo()
	p.finish(errors.Join(waitErr, readErr))
	p.cancel(ErrClosed)
}

func (p *process) letGo() {
	for _, release := range p.release {
		release()
	}
	p.release = nil
}

// finish tells everybody who waits that the CLI has ended.
func (p *process) finish(err error) {
	if p.starting() {
		err = lockError(err, p.stderr.String())
	}
	end := &EndError{Err: err, Stderr: redact(p.stderr.String(), p.secrets)}
	var exit *sandbox.ExitError
	if errors.As(err, &exit) {
		exit.Stderr = []byte(redact(string(exit.Stderr), p.secrets))
		exit.Args = exit.Args[min(len(exit.Args), lockedArgs):]
	}
	if err != nil {
		end.SandboxEnd = p.sandboxEnd()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = end
	for _, timer := range []*time.Timer{p.background, p.idling} {
		if timer != nil {
			timer.Stop()
		}
	}
	p.endTurns(func(*turn, bool) bool { return true })
	p.queue.end()
	close(p.done)
	p.wake()
}

// wake tells WaitIdle that something has changed. The caller holds mu.
func (p *process) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// sandboxEnd is how the sandbox ended; "" if it has not, or nobody knows.
func (p *process) sandboxEnd() sandbox.End {
	ctx, stop := context.WithTimeout(context.Background(), cleanupTimeout)
	defer stop()
	info, err := p.sb.Info(ctx)
	if err != nil || info.State != sandbox.StateEnded {
		return ""
	}
	return info.End
}

// kill ends every process of the run and returns when they have.
func (p *process) kill(cause error) {
	p.cancel(cause)
	<-p.done
}

// wind lets the CLI end by itself, for a while, then asks it to, and at last
// kills it and what came from it.
func (p *process) wind(grace time.Duration) {
	p.in.close()
	if p.endsWithin(grace) {
		return
	}
	_ = p.cmd.Signal(sandbox.SIGTERM) // what matters is whether it ends
	if !p.endsWithin(termGrace) {
		p.kill(ErrClosed)
	}
}

func (p *process) endsWithin(grace time.Duration) bool {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// hold makes lines flow whether they are read or not.
func (p *process) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds++
	p.queue.setFree(true)
}

func (p *process) unhold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds--
	p.queue.setFree(p.holds > 0)
}

// hasAnswered reports whether the one turn's result has come.
func (p *process) hasAnswered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answered
}

// sessionID is the conversation's id, as far as it is known.
func (p *process) sessionID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id
}
