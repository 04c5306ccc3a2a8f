package claude

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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
	cli     program
	job     *jobRun                 // nil where the CLI is a command of this process
	ctx     context.Context         // of the run
	cancel  context.CancelCauseFunc // kills every process of the run
	host    *host
	in      *input
	stderr  stderrTail
	secrets []string
	release []func() // what to let go of when the CLI has ended

	endpoint *endpoint       // nil if none is served
	settled  map[string]bool // requests of the CLI that were answered before this process

	mu      sync.Mutex
	id      string  // the conversation's
	queue   *queue  // where lines go
	turns   []*turn // the first goes on, the others wait
	holds   int     // reasons for which lines must flow, read or not
	replies map[string]chan reply
	lastReq int
	unasked *ResultMessage // a result that no turn asked for: why the CLI does not start

	// Of uses of tools that are put off.
	putOffUse string // the one that is, in the turn that goes on
	begunTurn bool   // a turn has begun: what is asked about from then on was not put off before
	greeted   bool   // the CLI has answered something
	goesOn    bool   // it has gone on by itself with a use that was put off, and has no result yet

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

// program is the CLI as it runs.
type program struct {
	stdin  io.WriteCloser
	stdout io.Reader
	signal func(sandbox.Signal) error
	// wait waits for its end, when stdout has ended.
	wait func() error
}

// start starts the CLI and returns when it has answered. When ctx ends, every
// process of the run is killed.
func start(ctx context.Context, sb *sandbox.Sandbox, opts *Options, oneShot bool) (*process, error) {
	p, newID, err := prepare(ctx, sb, opts, oneShot)
	if err != nil {
		return nil, err
	}
	return p, p.begun(p.launch(newID))
}

// prepare makes a process that is not started. newID is the id of a conversation
// that is to be made.
func prepare(ctx context.Context, sb *sandbox.Sandbox, opts *Options, oneShot bool) (p *process, newID string, err error) {
	if err := opts.validate(); err != nil {
		return nil, "", err
	}
	opts, err = opts.resolveContinue(ctx, sb)
	if err != nil {
		return nil, "", err
	}
	id := opts.Resume
	if id == "" || opts.Fork {
		if newID = opts.SessionID; newID == "" {
			newID = newUUID()
		}
		id = newID
	}
	p, err = newProcess(ctx, sb, opts, oneShot, id)
	return p, newID, err
}

// newProcess makes the process of a conversation, which nobody else may have.
func newProcess(ctx context.Context, sb *sandbox.Sandbox, opts *Options, oneShot bool, id string) (*process, error) {
	unlock, err := lockConversation(sb.ID(), id)
	if err != nil {
		return nil, err
	}
	p := &process{
		sb: sb, opts: opts, oneShot: oneShot, in: newInput(), id: id, queue: newQueue(false),
		replies: map[string]chan reply{}, done: make(chan struct{}), changed: make(chan struct{}),
		secrets: opts.secrets(), release: []func(){unlock},
	}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	p.host = newHost(p)
	return p, nil
}

// begun returns when a CLI that was started has answered. err is why it was not.
func (p *process) begun(err error) error {
	if err != nil {
		p.letGo()
		p.cancel(err)
		return p.startError(err)
	}
	if err := p.initialize(p.ctx); err != nil {
		p.cancel(err)
		<-p.done
		if errors.Is(p.end.Err, ErrDetached) { // which is what is to be known
			err = p.end
		}
		return p.startError(err)
	}
	p.started.Store(true)
	return nil
}

func (p *process) starting() bool { return !p.started.Load() }

// launch starts the process and the goroutines around it.
func (p *process) launch(newID string) error {
	args, env, err := p.command(newID)
	if err != nil {
		return err
	}
	cmd := p.sb.Command(p.ctx, args[0], args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stderr = env, p.opts.Dir, &p.stderr
	p.stderr.also = p.opts.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.run(program{stdin: stdin, stdout: journaled{stdout, p.opts.Journal}, signal: cmd.Signal, wait: cmd.Wait})
	return nil
}

// journaled passes on to a journal, if there is one, what is read.
type journaled struct {
	io.Reader
	journal io.Writer
}

// errJournal says that Options.Journal has failed.
var errJournal = errors.New("claude: Options.Journal")

func (j journaled) Read(p []byte) (int, error) {
	n, err := j.Reader.Read(p)
	if n == 0 || j.journal == nil {
		return n, err
	}
	if _, failed := j.journal.Write(p[:n]); failed != nil {
		return 0, fmt.Errorf("%w: %w", errJournal, failed)
	}
	return n, err
}

// command is the CLI's command and environment.
func (p *process) command(newID string) (args, env []string, err error) {
	if env, err = p.environment(p.ctx); err != nil {
		return nil, nil, err
	}
	program, err := p.opts.program(p.ctx, p.sb)
	if err != nil {
		return nil, nil, err
	}
	return locked(p.id, program, p.opts.args(newID)), env, nil
}

// run starts the goroutines around a CLI that runs.
func (p *process) run(cli program) {
	p.cli = cli
	go p.in.run(cli.stdin)
	// A killed CLI must not be held up by a reader who waits for its end.
	ended := make(chan struct{})
	unhold := context.AfterFunc(p.ctx, func() {
		defer close(ended)
		p.hold()
		if p.job != nil {
			p.job.endWith(p.ctx)
		}
	})
	p.release = append(p.release, func() {
		if !unhold() {
			<-ended // all is killed then
		}
	})
	go p.follow()
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
		served, err := p.opts.Endpoint.serve(ctx, p.sb, address{})
		if err != nil {
			return nil, err
		}
		p.serves(served)
		env = append(env, served.env()...)
	}
	return append(env, p.opts.Env...), nil
}

// serves keeps an endpoint until the CLI has ended.
func (p *process) serves(e *endpoint) {
	p.endpoint = e
	p.release = append(p.release, e.close)
	p.secrets = append(p.secrets, e.Token)
}

// follow reads the CLI's output to its end, and only then waits for it.
func (p *process) follow() {
	readErr := p.read(p.cli.stdout)
	if readErr != nil {
		p.cancel(readErr)
	}
	waitErr := p.cli.wait()
	if p.job != nil && readErr != nil && !p.job.killed() {
		waitErr = nil // it says the same
	}
	p.in.close()
	<-p.in.done
	p.endCallbacks()
	p.letGo()
	p.finish(errors.Join(waitErr, readErr))
	p.cancel(ErrClosed)
}

func (p *process) letGo() {
	for _, release := range slices.Backward(p.release) {
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
	if err != nil && !errors.Is(err, ErrDetached) {
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
	_ = p.cli.signal(sandbox.SIGTERM) // what matters is whether it ends
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
