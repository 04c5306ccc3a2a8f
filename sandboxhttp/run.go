package sandboxhttp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandboxhttp/internal/eventlog"
)

// run is Claude at work on one prompt. It belongs to no connection.
type run struct {
	h    *Handler
	box  *box
	id   string
	log  *eventlog.Log
	done chan struct{} // closed when it has ended and that is recorded

	ctx    context.Context
	cancel context.CancelCauseFunc

	stopping sync.Once
	stopped  chan struct{} // closed when somebody wants it to stop

	mu     sync.Mutex
	rec    Run
	stream *claude.Stream // nil until the CLI has taken the prompt
}

// reason is why this package cancelled something. It matches the error that a
// context without a cause would have.
type reason struct {
	text string
	is   error
}

func (e *reason) Error() string { return e.text }

func (e *reason) Is(target error) bool { return target == e.is }

var (
	errStopped = &reason{"it was interrupted, did not stop by itself, and was killed", context.Canceled}
	errRunTime = &reason{"it took longer than a run may", context.DeadlineExceeded}
)

// beginRun makes a run in a sandbox that takes one.
func (h *Handler) beginRun(b *box, q *runRequest) (*run, error) {
	r := &run{
		h: h, box: b, id: "run-" + strings.ToLower(rand.Text()),
		log: eventlog.New(h.limits.RunBytes), done: make(chan struct{}), stopped: make(chan struct{}),
	}
	r.rec = Run{
		ID: r.id, SandboxID: b.id, Account: b.account, SessionID: q.session, Prompt: q.prompt,
		State: StateRunning, StartedAt: time.Now().UTC().Round(0),
	}
	r.ctx, r.cancel = context.WithCancelCause(h.ctx)
	if err := b.addRun(r); err != nil {
		r.cancel(nil)
		return nil, err
	}
	err := h.store.SaveRun(h.ctx, &r.rec)
	if err == nil {
		opts := q.options(h.config.Claude)
		if most := h.limits.LineBytes; opts.MaxLine <= 0 || opts.MaxLine > most {
			opts.MaxLine = most
		}
		err = h.start("run", func() { r.work(opts) })
	}
	if err != nil {
		b.forgetRun(r.id)
		r.cancel(nil)
		return nil, errors.Join(err, h.store.DeleteRun(context.WithoutCancel(h.ctx), b.account, b.id, r.id))
	}
	return r, nil
}

// addRun takes a run on, unless the sandbox has as many as it may have, is being
// deleted, or has one in the same conversation.
func (b *box) addRun(r *run) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deletion != nil {
		return sandboxEnded()
	}
	if b.work != nil && b.work.restores {
		return newProblem(http.StatusConflict, codeVolumeBusy, "a version is being restored into the sandbox; ask again when that has ended")
	}
	going := 0
	for _, other := range b.runs {
		if other.hasEnded() {
			continue
		}
		going++
		if session := r.rec.SessionID; session != "" && other.session() == session {
			return newProblem(http.StatusConflict, codeRunInProgress,
				"run "+other.id+" of this conversation goes on; wait for its end, or interrupt it")
		}
	}
	if going >= b.h.limits.Runs {
		return newProblem(http.StatusTooManyRequests, codeExhausted,
			fmt.Sprintf("a sandbox may have %d runs at once; wait for one to end, or interrupt it", b.h.limits.Runs))
	}
	b.runs[r.id] = r
	return nil
}

func (b *box) forgetRun(id string) *run {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.runs[id]
	delete(b.runs, id)
	return r
}

// run gives a run of this process, nil where there is none.
func (b *box) run(id string) *run {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.runs[id]
}

// busy reports whether something goes on in the sandbox.
func (b *box) busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.runs {
		if !r.hasEnded() {
			return true
		}
	}
	return b.deletion != nil || b.work != nil
}

// stopRuns stops all that go on and waits for their end, or until they should
// have ended: what the sandbox holds up ends with the sandbox.
func (b *box) stopRuns() {
	b.mu.Lock()
	var going []*run
	for _, r := range b.runs {
		if !r.hasEnded() {
			going = append(going, r)
		}
	}
	b.mu.Unlock()
	for _, r := range going {
		r.stop()
	}
	limit := time.NewTimer(2*b.h.limits.InterruptGrace + time.Second)
	defer limit.Stop()
	for _, r := range going {
		select {
		case <-r.done:
		case <-limit.C:
			b.h.log.Warn("a run has not ended although it was killed; its sandbox is deleted", "run", r.id)
			return
		}
	}
}

func (r *run) hasEnded() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (r *run) session() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rec.SessionID
}

// record is the run as it is now.
func (r *run) record() Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.rec
	if rec.State == StateRunning {
		rec.Events, _ = r.log.Last()
	}
	return rec
}

// work runs the prompt to its end, whoever follows it.
func (r *run) work(opts *claude.Options) {
	var result *claude.ResultMessage
	err := errors.New("the run did not come to its end")
	defer func() { r.finish(result, err) }()
	if limit := r.h.limits.RunTime; limit > 0 {
		timer := time.AfterFunc(limit, func() { r.cancel(errRunTime) })
		defer timer.Stop()
	}
	go r.watchStop()
	result, err = r.query(opts)
}

func (r *run) query(opts *claude.Options) (*claude.ResultMessage, error) {
	rec, err := r.h.store.Sandbox(r.ctx, r.box.account, r.box.id)
	if err != nil {
		return nil, err
	}
	sb, err := r.box.sandbox(r.ctx, rec)
	if err != nil {
		return nil, err
	}
	st, err := claude.Query(r.ctx, sb, r.rec.Prompt, opts)
	if err != nil {
		return nil, err
	}
	r.begun(st)
	if err := r.copyLines(st); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	result, err := st.Result()
	return result, errors.Join(err, st.Close())
}

// begun makes the stream known to those who want to stop it.
func (r *run) begun(st *claude.Stream) {
	r.mu.Lock()
	r.stream = st
	r.mu.Unlock()
	r.noteSession(st)
}

// noteSession records the conversation's id as soon as it is known.
func (r *run) noteSession(st *claude.Stream) {
	id := st.SessionID()
	r.mu.Lock()
	news := id != "" && id != r.rec.SessionID
	if news {
		r.rec.SessionID = id
	}
	rec := r.rec
	r.mu.Unlock()
	if !news {
		return
	}
	if err := r.h.store.SaveRun(r.ctx, &rec); err != nil {
		r.h.log.Error("cannot record a run's conversation", "run", r.id, "error", err)
	}
}

// copyLines puts every line into the log as it comes. A line that is too long
// ends the run: a log with a hole must not look whole. The error of a stream
// that ended is its Result's to tell.
func (r *run) copyLines(st *claude.Stream) error {
	known := st.SessionID() != ""
	for line, err := range st.Lines() {
		var tooLong *claude.LineTooLongError
		if errors.As(err, &tooLong) {
			return err
		}
		if err != nil {
			return nil // Result tells it
		}
		if n := len(line); n > 0 && line[n-1] == '\n' {
			line = line[:n-1]
		}
		r.log.Append("", line)
		if !known {
			r.noteSession(st)
			known = st.SessionID() != ""
		}
	}
	return nil
}

// stop makes Claude stop, and kills it if it does not. It returns at once.
func (r *run) stop() { r.stopping.Do(func() { close(r.stopped) }) }

// watchStop does what stop asks for.
func (r *run) watchStop() {
	select {
	case <-r.done:
		return
	case <-r.stopped:
	}
	r.mu.Lock()
	st := r.stream
	r.mu.Unlock()
	if st == nil { // the CLI has not taken the prompt: there is nothing to be kept
		r.cancel(errStopped)
		return
	}
	ctx, stop := context.WithTimeout(r.ctx, r.h.limits.InterruptGrace)
	defer stop()
	if err := st.Interrupt(ctx); err == nil {
		select {
		case <-r.done:
			return
		case <-ctx.Done():
		}
	}
	r.cancel(errStopped)
}

// finish records how the run ended, and tells those who follow it.
func (r *run) finish(result *claude.ResultMessage, err error) {
	end, text := r.ending(err)
	r.mu.Lock()
	r.rec.State, r.rec.End, r.rec.Error = StateEnded, string(end), text
	r.rec.EndedAt = time.Now().UTC().Round(0)
	if result != nil {
		r.rec.CostUSD, r.rec.Turns = result.CostUSD, result.Turns
		if id := result.SessionID(); id != "" {
			r.rec.SessionID = id
		}
	}
	last, _ := r.log.Last()
	r.rec.Events = last + 1
	rec := r.rec
	r.mu.Unlock()
	ctx, stop := context.WithTimeout(context.WithoutCancel(r.ctx), cleanUpTime)
	defer stop()
	if err := r.h.store.SaveRun(ctx, &rec); err != nil {
		r.h.log.Error("cannot record how a run ended", "run", r.id, "error", err)
	}
	// Who has seen the end finds it recorded, and the conversation free.
	close(r.done)
	r.log.End("end", rec.endEvent())
	r.cancel(nil)
	r.h.events.add(r.log)
	r.h.retainRuns(ctx, r.box)
}

// ending puts an error into the words for ends.
func (r *run) ending(err error) (claude.End, string) {
	if err == nil {
		return claude.EndCompleted, ""
	}
	end := claude.EndOf(err)
	var tooLong *claude.LineTooLongError
	var why *reason
	switch {
	case errors.As(err, &tooLong):
		return end, fmt.Sprintf("the CLI wrote a line of more than %d bytes", tooLong.Limit)
	case end != claude.EndCancelled && end != claude.EndRunTimeout && end != claude.EndUnknown:
	case errors.As(context.Cause(r.ctx), &why) && why == errRunTime:
		return claude.EndRunTimeout, why.Error()
	case why != nil:
		return claude.EndCancelled, why.Error()
	case end == claude.EndCancelled && r.wasStopped():
		return end, "it was interrupted"
	}
	return end, clipError(err.Error())
}

func (r *run) wasStopped() bool {
	select {
	case <-r.stopped:
		return true
	default:
		return false
	}
}

// clipError keeps the words for an error short enough to be shown.
func clipError(text string) string {
	const most = 4 << 10
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// endEvent is the data of a run's last event.
func (r *Run) endEvent() []byte {
	data, err := json.Marshal(struct {
		End       string  `json:"end"`
		Error     string  `json:"error"`
		SessionID string  `json:"session_id"`
		CostUSD   float64 `json:"cost_usd"`
		NumTurns  int     `json:"num_turns"`
	}{r.End, r.Error, r.SessionID, r.CostUSD, r.Turns})
	if err != nil { // CostUSD was decoded from JSON, so it is a number that JSON has
		panic(err)
	}
	return data
}
