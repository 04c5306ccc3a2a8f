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
	"sync/atomic"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandboxhttp/internal/eventlog"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// run is Claude at work on one prompt, as far as this server looks after it. It
// belongs to no connection, and Claude to no server.
type run struct {
	h    *Handler
	box  *box
	id   string
	log  *eventlog.Log
	opts *claude.Options
	done chan struct{} // closed when it has ended and that is recorded, or it was let go of

	ctx    context.Context // ends when this server lets go of it
	let    context.CancelFunc
	start  context.Context // of asking for a stream; also ends when it is killed
	killed context.CancelCauseFunc

	stopping sync.Once
	stopped  chan struct{} // closed when somebody wants it to stop
	wanted   *reason       // why; set before

	fresh bool          // nobody has begun with it
	taken bool          // another server had begun with it
	lines *lines        // what it writes to
	limit time.Duration // how long it may take; 0 is as long as it likes

	mu     sync.Mutex
	rec    Run
	why    *reason        // it is killed
	stream *claude.Stream // nil until the CLI has taken the prompt
	asked  questions

	using   *sandbox.Sandbox // nil until it was first got; its own goroutine's only
	release func()           // ends that
	last    *claude.EndError // how the sandbox ends, while it is being saved
	inUse   atomic.Bool
}

// reason is why this package cancelled something. It matches the error that a
// context without a cause would have.
type reason struct {
	text string
	is   error
	end  claude.End // of a run that ends for it
}

func (e *reason) Error() string { return e.text }

func (e *reason) Is(target error) bool { return target == e.is }

var (
	errStopped = &reason{text: "it was interrupted, did not stop by itself, and was killed", is: context.Canceled, end: claude.EndCancelled}
	errRunTime = &reason{text: "it took longer than a run may", is: context.DeadlineExceeded, end: claude.EndRunTimeout}
)

// beginRun makes a run in a sandbox that takes one.
func (h *Handler) beginRun(b *box, id string, q *runRequest) (*run, error) {
	if id == "" {
		id = "run-" + strings.ToLower(rand.Text())
	}
	r := h.newRun(b, &Run{
		ID: id, SandboxID: b.id, Account: b.account, SessionID: q.session, Prompt: q.prompt, Request: q.body,
		State: StateRunning, StartedAt: time.Now().UTC().Round(0),
	}, q, runlog.Info{})
	r.fresh = true
	if err := b.addRun(r); err != nil {
		r.let()
		return nil, err
	}
	// The lease comes before the record: who finds that has no right to the run then.
	err := r.lease(h.ctx)
	switch {
	case err == nil:
		err = r.begin()
	case !errors.Is(err, runlog.ErrBusy): // else it is another server's
		r.unmake()
	}
	if err != nil {
		b.forgetRun(r.id)
		r.let()
		return nil, err
	}
	return r, nil
}

// begin begins with a run that nobody else has a right to.
func (r *run) begin() error {
	err := r.take()
	if err == nil {
		err = r.h.store.SaveRun(r.h.ctx, &r.rec)
	}
	if err == nil {
		err = r.h.start("run", r.work)
	}
	if err != nil {
		r.unmake()
	}
	return err
}

// newRun makes what looks after a run whose log has come as far as from says. q may be
// nil, where what was asked for is not known any more.
func (h *Handler) newRun(b *box, rec *Run, q *runRequest, from runlog.Info) *run {
	r := &run{
		h: h, box: b, id: rec.ID, rec: *rec, done: make(chan struct{}), stopped: make(chan struct{}),
		log: eventlog.NewAt(h.limits.RunBytes, uint64(from.Lines), h.older(rec.ID)), limit: h.limits.RunTime,
	}
	r.lines = &lines{log: r.log, n: from.Lines, size: from.Bytes}
	r.ctx, r.let = context.WithCancel(h.runs)
	r.start, r.killed = context.WithCancelCause(r.ctx)
	if q == nil {
		q = &runRequest{partial: true}
	}
	r.opts = q.options(h.config.Claude)
	if most := h.limits.LineBytes; r.opts.MaxLine <= 0 || r.opts.MaxLine > most {
		r.opts.MaxLine = most
	}
	r.asks(r.opts)
	return r
}

// lease makes this server the one that writes the run's log. It matches runlog.ErrBusy
// where another one does, or did meanwhile.
func (r *run) lease(ctx context.Context) error {
	if r.h.config.Logs == nil {
		return nil
	}
	w, err := r.h.config.Logs.Write(ctx, r.id)
	if err != nil {
		return err
	}
	// What was being appended when a writer failed may be there or not.
	info := w.Info()
	if info.Lines < r.lines.n || info.Lines > r.lines.shown() {
		return errors.Join(runlog.ErrBusy, w.Close())
	}
	r.lines.w, r.lines.n, r.lines.size = w, info.Lines, info.Bytes
	return nil
}

// unmake removes what there is of a run that was not begun. What is left all the same is
// for the log: why the run was not begun is another question. The lease goes after the
// record, which may be there although saving it failed: nobody takes the run over meanwhile.
func (r *run) unmake() {
	ctx, stop := context.WithTimeout(context.WithoutCancel(r.h.ctx), cleanUpTime)
	defer stop()
	r.h.release(r.box.account, usage.KindRun, r.id)
	err := r.h.store.DeleteRun(ctx, r.box.account, r.box.id, r.id)
	err = errors.Join(err, r.lines.Close())
	if r.h.config.Logs != nil {
		err = errors.Join(err, r.h.config.Logs.Delete(ctx, r.id))
	}
	if err != nil {
		r.h.log.Error("cannot remove what there is of a run that was not begun", "run", r.id, "error", err)
	}
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

// run gives a run that this process looks after, or has, nil where there is none.
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

// stopRuns stops those that go on and waits for their end, or until they should
// have ended: what the sandbox holds up ends with the sandbox. why may be nil, and so may
// which, which says whether to stop a run.
func (b *box) stopRuns(why *reason, which func(*run) bool) {
	b.mu.Lock()
	var going []*run
	for _, r := range b.runs {
		if !r.hasEnded() && (which == nil || which(r)) {
			going = append(going, r)
		}
	}
	b.mu.Unlock()
	for _, r := range going {
		r.stop(why)
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
