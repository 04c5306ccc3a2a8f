package claude

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/vivarium-go/vivarium/sandbox"
)

// jobRun is a CLI that is a sandbox.Job, and how far this process has to do with it.
type jobRun struct {
	p   *process
	job *sandbox.Job

	parent  context.Context // the caller's: when it ends the run goes on without us
	letting atomic.Bool     // this process lets go of it
	killing atomic.Bool     // this process kills it
	ctx     context.Context // of what is asked of the job from here; ends when we let go
	stop    context.CancelCauseFunc

	// What an earlier process had come to.
	initID      string // its first request; "" if there was none
	initialized <-chan reply
}

// jobNote is what is kept with the job for one who takes it over. It is in the sandbox:
// nothing of it can be trusted.
type jobNote struct {
	Conversation string   `json:"conversation"`
	PromptID     string   `json:"prompt_id"`
	Prompt       string   `json:"prompt"` // the line; "" for a run that goes on without one
	Endpoint     *address `json:"endpoint,omitempty"`
}

// Start is Query for a run that outlives this process: the CLI is a job of the sandbox
// with that name (see sandbox.Job), and what it writes and is told is kept there. When
// ctx ends, or Stream.Detach is called, or this process dies, the run goes on; what it
// asks of this process waits until Adopt takes it over, requests to an Endpoint as long as
// the CLI tries them again (Options.MaxRetries).
// Errors that say so match ErrDetached; after another error of ctx's end the CLI may
// have been started or not, which Adopt tells. Stream.Close ends the run.
//
// One process at a time follows a run: two would both answer what the CLI asks. Who runs
// several servers keeps a lease for each, as package runlog does. The job stays until
// Job.Remove. A name that is taken matches fs.ErrExist: Adopt it instead.
//
// A run that ends with a use that was put off (Options.Defer) has ended, and is answered
// by another, with another name.
func (c *Client) Start(ctx context.Context, name, prompt string, more ...ContentBlock) (*Stream, error) {
	note := jobNote{PromptID: newUUID()}
	var line []byte
	var err error
	if !c.opts.isAnswer(prompt, more) {
		line, err = c.opts.promptLine(note.PromptID, prompt, more)
	}
	if err != nil {
		return nil, err
	}
	opts := c.opts
	opts.MaxRetries = cmp.Or(opts.MaxRetries, DefaultStartMaxRetries)
	p, newID, err := prepare(ctx, c.sb, &opts, true)
	if err != nil {
		return nil, err
	}
	note.Conversation, note.Prompt = p.id, string(line)
	p.job = newJobRun(ctx, p)
	var t *turn
	if line == nil {
		if t, err = p.goOn(note.PromptID); err != nil {
			return nil, err
		}
	}
	if err := p.begun(p.job.launch(name, newID, &note)); err != nil {
		return nil, err
	}
	if t != nil {
		return p.takenUp(t)
	}
	return p.job.stream(note.PromptID, line)
}

// Adopt takes over a run that Start began, in this process or another that is gone. The
// stream gives all of it from its first line on, whoever read it before. What the CLI
// was told is not told again: the prompt is sent if it was not yet, and a question that
// nobody has answered is asked once more, so a callback of Options may be called again
// for what it answered just before its process died. The Options are to be those of
// Start. Where an Endpoint's Handler issues tokens it must be a TokenAdopter too.
//
// A run that has ended can be adopted, to read it again. A name that no job has matches
// fs.ErrNotExist; a job that Start has not made sandbox.ErrInvalid.
func (c *Client) Adopt(ctx context.Context, name string) (*Stream, error) {
	job, err := c.sb.Job(ctx, name)
	if err != nil {
		return nil, err
	}
	note, err := readNote(ctx, job)
	if err != nil {
		return nil, err
	}
	if err := c.opts.validate(); err != nil {
		return nil, err
	}
	p, err := newProcess(ctx, c.sb, &c.opts, true, note.Conversation)
	if err != nil {
		return nil, err
	}
	p.job = newJobRun(ctx, p)
	t, err := p.job.adopt(job, note)
	if err := p.begun(err); err != nil {
		return nil, err
	}
	switch {
	case t == nil:
		return p.job.stream(note.PromptID, []byte(note.Prompt))
	case t.promptless:
		return p.takenUp(t)
	}
	return newStream(p, t), nil
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func readNote(ctx context.Context, job *sandbox.Job) (*jobNote, error) {
	data, err := job.Note(ctx)
	if err != nil {
		return nil, err
	}
	note, err := parseNote(data)
	if err != nil {
		return nil, fmt.Errorf("claude: %v is no run of Client.Start: %w", job, err)
	}
	return note, nil
}

func parseNote(data []byte) (*jobNote, error) {
	note := new(jobNote)
	err := json.Unmarshal(data, note)
	switch {
	case err != nil:
	case !uuidForm.MatchString(note.Conversation), !uuidForm.MatchString(note.PromptID):
		err = errors.New("it names no conversation")
	case note.Prompt == "":
	case !json.Valid([]byte(note.Prompt)) || strings.Count(note.Prompt, "\n") != 1 || !strings.HasSuffix(note.Prompt, "\n"):
		err = errors.New("it has no prompt")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: its note: %w", sandbox.ErrInvalid, err)
	}
	return note, nil
}

func newJobRun(ctx context.Context, p *process) *jobRun {
	r := &jobRun{p: p, parent: ctx}
	r.ctx, r.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	p.release = append(p.release, func() { r.stop(ErrClosed) })
	return r
}

// launch starts the job.
func (r *jobRun) launch(name, newID string, note *jobNote) error {
	args, env, err := r.p.command(newID)
	if err != nil {
		return err
	}
	if e := r.p.endpoint; e != nil {
		note.Endpoint = &e.address
	}
	data, err := json.Marshal(note)
	if err != nil {
		return err
	}
	job, err := r.p.sb.StartJob(r.p.ctx, &sandbox.JobConfig{Name: name, Args: args, Env: env, Dir: r.p.opts.Dir, Stdin: true, Note: data})
	if err != nil {
		return err
	}
	return r.drive(job)
}

// adopt goes on with a job. The turn is nil where the CLI was not told the prompt.
func (r *jobRun) adopt(job *sandbox.Job, note *jobNote) (t *turn, err error) {
	st, err := job.Status(r.p.ctx)
	if err != nil {
		return nil, err
	}
	if r.p.opts.Endpoint.Handler != nil && note.Endpoint != nil && st.Exit == nil && !st.Lost {
		served, err := r.p.opts.Endpoint.serve(r.p.ctx, r.p.sb, *note.Endpoint)
		if err != nil {
			return nil, err
		}
		r.p.serves(served)
	}
	input, err := job.Input(r.p.ctx)
	if err != nil {
		return nil, err
	}
	switch told := r.recall(input, note.PromptID); {
	case note.Prompt == "":
		t, err = r.p.goOn(note.PromptID)
	case told: // the turn's lines are there
		t, err = r.p.ask(note.PromptID, nil)
	}
	if err != nil {
		return nil, err
	}
	return t, r.drive(job)
}

// recall reads what the CLI was told.
func (r *jobRun) recall(input []byte, promptID string) (told bool) {
	p := r.p
	p.settled = map[string]bool{}
	for line := range bytes.Lines(input) {
		var l struct {
			Type      string `json:"type"`
			UUID      string `json:"uuid"`
			RequestID string `json:"request_id"`
			Request   struct {
				Subtype string `json:"subtype"`
			} `json:"request"`
			Response struct {
				RequestID string `json:"request_id"`
				Response  struct {
					Hook struct {
						Permission string `json:"permissionDecision"`
					} `json:"hookSpecificOutput"`
				} `json:"response"`
			} `json:"response"`
		}
		lenient(line, &l)
		switch l.Type {
		case typeUser:
			told = told || l.UUID == promptID
		case typeControlResponse:
			p.settled[l.Response.RequestID] = true
			if l.Response.Response.Hook.Permission == "defer" {
				p.putOffUse = l.Response.RequestID // which names it as well as its own id would
			}
		case typeControlRequest:
			if n, err := strconv.Atoi(strings.TrimPrefix(l.RequestID, requestPrefix)); err == nil {
				p.lastReq = max(p.lastReq, n)
			}
			if l.Request.Subtype == "initialize" && r.initID == "" {
				r.initID, r.initialized = l.RequestID, p.expectAs(l.RequestID)
			}
		}
	}
	return told
}

// drive follows the job and answers it.
func (r *jobRun) drive(job *sandbox.Job) error {
	r.job = job
	out, err := job.Output(r.ctx, 0)
	if err != nil {
		return err
	}
	r.p.release = append(r.p.release, func() { _ = out.Close() }) // it was only read
	r.p.run(program{
		stdin: jobStdin{r}, stdout: &jobStdout{r, journaled{out, r.p.opts.Journal}}, wait: r.wait,
		signal: func(sig sandbox.Signal) error {
			ctx, stop := context.WithTimeout(r.ctx, cleanupTimeout)
			defer stop()
			return job.Signal(ctx, sig)
		},
	})
	return nil
}

// stream is the run's, once the CLI has answered.
func (r *jobRun) stream(promptID string, line []byte) (*Stream, error) {
	t, err := r.p.ask(promptID, line)
	if err != nil {
		r.p.kill(ErrClosed)
		return nil, err
	}
	return newStream(r.p, t), nil
}

// let lets go of the run, which goes on.
func (r *jobRun) let(why error) {
	r.stop(fmt.Errorf("%w: %w", ErrDetached, why)) // first, so that its cause is there
	r.letting.Store(true)
}

// endWith does what the end of the process's context asks for: the run is killed unless
// it was the caller's context that ended.
func (r *jobRun) endWith(ctx context.Context) {
	if r.parent.Err() != nil {
		r.let(context.Cause(r.parent))
	}
	if r.letting.Load() {
		return
	}
	r.killing.Store(true)
	bounded, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer stop()
	if err := r.job.Kill(bounded); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.let(fmt.Errorf("it cannot be killed, for %w: %w", context.Cause(ctx), err))
	}
}

// killed reports whether its exit says more than the end of its output.
func (r *jobRun) killed() bool { return r.killing.Load() && !r.letting.Load() }

// wait waits for the job's end after that of its output.
func (r *jobRun) wait() error {
	if r.letting.Load() {
		return context.Cause(r.ctx)
	}
	exit, err := r.job.Wait(r.ctx)
	if err != nil {
		if r.letting.Load() {
			err = context.Cause(r.ctx)
		}
		return err
	}
	if *exit == (sandbox.Exit{}) && r.p.hasAnswered() && r.p.opts.Stderr == nil {
		return nil
	}
	r.readStderr()
	if *exit == (sandbox.Exit{}) {
		return nil
	}
	return &sandbox.ExitError{Exit: *exit, Cause: context.Cause(r.p.ctx), Stderr: []byte(r.p.stderr.String())}
}

func (r *jobRun) readStderr() {
	ctx, stop := context.WithTimeout(r.ctx, cleanupTimeout)
	defer stop()
	errs, err := r.job.Stderr(ctx, 0)
	if err != nil {
		return // it is for people, and the exit says the rest
	}
	r.p.stderr.also = r.p.opts.Stderr
	_, _ = io.Copy(&r.p.stderr, errs)
	_ = errs.Close()
}

// jobStdin tells the CLI something.
type jobStdin struct{ r *jobRun }

func (w jobStdin) Write(line []byte) (int, error) {
	if err := w.r.job.WriteStdin(w.r.ctx, line); err != nil {
		return 0, err
	}
	return len(line), nil
}

// Close ends the CLI's input, unless the run is to go on without us.
func (w jobStdin) Close() error {
	if w.r.letting.Load() {
		return nil
	}
	return w.r.job.CloseStdin(w.r.ctx)
}

// jobStdout is what the CLI writes. Where it cannot be read any more, though the run may
// go on, we let go of it.
type jobStdout struct {
	r  *jobRun
	in journaled
}

func (o *jobStdout) Read(p []byte) (int, error) {
	n, err := o.in.Read(p)
	switch {
	case err == nil:
		return n, nil
	case err != io.EOF && !errors.Is(err, sandbox.ErrJobLost) && !errors.Is(err, sandbox.ErrEnded) && !o.r.letting.Load():
		o.r.let(err)
		fallthrough
	case o.r.letting.Load():
		err = context.Cause(o.r.ctx)
	}
	return n, err
}

// Detach lets go of a run of Client.Start or Adopt, which goes on, and ends the stream
// with an error that matches ErrDetached. It returns when nothing here has to do with
// the run any more. A run that has ended, and one of Query or Session, it closes.
func (s *Stream) Detach() error {
	r := s.p.job
	if r == nil {
		return s.Close()
	}
	s.closing.Do(func() {
		s.unwatch()
		r.let(ErrClosed)
		s.p.cancel(context.Cause(r.ctx))
		<-s.p.done
		s.t.queue.drop()
	})
	return nil
}
