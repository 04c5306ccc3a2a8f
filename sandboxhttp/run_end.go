package sandboxhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// stop makes Claude stop, and kills it if it does not. It returns at once. A nil why is
// that somebody wants it.
func (r *run) stop(why *reason) {
	r.stopping.Do(func() {
		r.wanted = cmp.Or(why, errStopped)
		close(r.stopped)
	})
}

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
		r.kill(r.wanted)
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
	r.kill(r.wanted)
}

// kill ends every process of the run.
func (r *run) kill(why *reason) {
	r.mu.Lock()
	if r.why == nil {
		r.why = why
	}
	st := r.stream
	r.mu.Unlock()
	if st == nil {
		r.killed(why) // the next attempt sees to it
		return
	}
	_ = st.Close() // it returns nil
}

func (r *run) wasKilled() *reason {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// finish records how the run ended, and tells those who follow it. Where that cannot be
// recorded it is tried until this server lets go of the run: then it reports false.
func (r *run) finish(result *claude.ResultMessage, err error) bool {
	end, text := r.endOf(err)
	rec := r.record()
	rec.State, rec.End, rec.Error, rec.EndedAt = StateEnded, string(end), text, time.Now().UTC().Round(0)
	if result != nil {
		rec.CostUSD, rec.Turns = result.CostUSD, result.Turns
		if id := result.SessionID(); id != "" {
			rec.SessionID = id
		}
	}
	rec.Events++
	if !r.recordEnd(&rec, r.amounts(&rec, result)) {
		return false
	}
	r.mu.Lock()
	r.rec = rec // it goes on for everybody until its end is recorded
	r.mu.Unlock()
	ctx, stop := context.WithTimeout(context.WithoutCancel(r.ctx), cleanUpTime)
	defer stop()
	r.removeJob(ctx)
	if errors.Is(err, errGone) {
		r.box.forgetRun(r.id) // its end comes after whatever a follower has seen: see past
	}
	// Who has seen the end finds it recorded, and the conversation free.
	close(r.done)
	r.log.End("end", rec.endEvent())
	r.let()
	if !errors.Is(err, errGone) {
		r.h.events.add(r.log)
	}
	r.h.retainRuns(ctx, r.box)
	return true
}

// recordEnd records the end where it is looked for.
func (r *run) recordEnd(rec *Run, used usage.Amounts) bool {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := r.recordEndOnce(rec, used)
		if err == nil {
			return true
		}
		r.h.log.Error("cannot record how a run ended", "run", r.id, "error", err)
		if !r.h.durable && (r.h.ledger == nil || r.h.ctx.Err() != nil) {
			return true
		}
		if !sleep(r.ctx, wait) {
			return false
		}
	}
}

func (r *run) recordEndOnce(rec *Run, used usage.Amounts) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(r.ctx), cleanUpTime)
	defer stop()
	if err := r.renew(); err != nil {
		return err
	}
	err := r.lines.Finish(ctx, runlog.End{Reason: claude.End(rec.End), Detail: rec.Error, Time: rec.EndedAt})
	if err == nil {
		err = r.count(ctx, rec, used) // before the record: who finds the run going on counts it then
	}
	if err == nil {
		err = r.h.store.SaveRun(ctx, rec)
	}
	if errors.Is(err, ErrNotFound) { // the sandbox was forgotten first
		err = nil
	}
	if closed := r.lines.Close(); err == nil && closed != nil {
		r.h.log.Warn("cannot give back the lease of a run", "run", r.id, "error", closed)
	}
	return err
}

// removeJob gives back what the run takes in its sandbox. That may have ended.
func (r *run) removeJob(ctx context.Context) {
	if r.using == nil {
		return
	}
	job, err := r.using.Job(ctx, r.id)
	if err == nil {
		err = job.Remove(ctx)
	}
	if errors.Is(err, sandbox.ErrJobRunning) { // it was given up
		err = errors.Join(job.Kill(ctx), job.Remove(ctx))
	}
	if err != nil && !errors.Is(err, sandbox.ErrEnded) && !errors.Is(err, fs.ErrNotExist) {
		r.h.log.Warn("cannot remove what a run leaves in its sandbox", "run", r.id, "error", err)
	}
}

// endOf puts an error into the words for ends.
func (r *run) endOf(err error) (claude.End, string) {
	if err == nil {
		return claude.EndCompleted, ""
	}
	end, why := claude.EndOf(err), r.wasKilled()
	var tooLong *claude.LineTooLongError
	var failed *claude.ResultError
	switch {
	case errors.As(err, &tooLong):
		return end, fmt.Sprintf("the CLI wrote a line of more than %d bytes", tooLong.Limit)
	case errors.Is(err, errGone):
		return claude.EndUnknown, errGone.Error()
	case end == claude.EndCancelled || why != nil && end == claude.EndAgentError && !errors.As(err, &failed):
		return r.cancelled()
	case why != nil && (end == claude.EndUnknown || end == claude.EndRunTimeout):
		return r.cancelled()
	}
	return end, clipError(err.Error())
}

// cancelled says who cancelled the run.
func (r *run) cancelled() (claude.End, string) {
	why := r.wasKilled()
	switch {
	case why != nil:
		return why.end, why.Error()
	case r.wasStopped() && r.wanted != errStopped:
		return r.wanted.end, r.wanted.Error()
	case r.wasStopped():
		return claude.EndCancelled, "it was interrupted"
	}
	return claude.EndCancelled, "the turn was interrupted from inside its sandbox"
}

func (r *run) wasStopped() bool {
	select {
	case <-r.stopped:
		return true
	default:
		return false
	}
}
