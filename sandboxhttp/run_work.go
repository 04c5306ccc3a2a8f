package sandboxhttp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// errLeft says that this server looks after a run no longer, which goes on.
var errLeft = errors.New("another server looks after the run")

// How long it is waited before something is tried again: at first, and at most.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
)

// startPatience is how long a run that could not be started is tried to be.
const startPatience = 30 * time.Second

// work brings the run to its end, whoever follows it, or as far as this server can.
func (r *run) work() {
	var result *claude.ResultMessage
	err := errors.New("the run did not come to its end")
	defer func() {
		if errors.Is(err, errLeft) || !r.finish(result, err) {
			r.leave()
		}
		if r.h.runs.Err() == nil || r.last != nil { // else it counts as in use until the next server has it
			r.letGoOfSandbox()
		}
	}()
	if r.limit > 0 {
		timer := time.AfterFunc(time.Until(r.rec.StartedAt.Add(r.limit)), func() { r.kill(errRunTime) })
		defer timer.Stop()
	}
	if !r.h.durable {
		defer context.AfterFunc(r.h.ctx, func() { r.kill(errShutdown) })()
	}
	go r.watchStop()
	result, err = r.drive()
}

// drive follows the run to its end, through whatever comes between.
func (r *run) drive() (*claude.ResultMessage, error) {
	began := time.Now()
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		result, err := r.attempt()
		switch {
		case err == nil:
			return result, nil
		case r.ctx.Err() != nil:
			return nil, errLeft
		case !again(err), r.lines.n == 0 && !errors.Is(err, claude.ErrDetached) && time.Since(began) > startPatience:
			return result, err
		}
		if r.wasKilled() == nil {
			r.h.log.Warn("lost sight of a run, and looks for it again", "run", r.id, "error", err)
		}
		sleep(r.ctx, wait)
	}
}

// again reports whether what an attempt at following a run came to may be better the
// next time.
func again(err error) bool {
	return errors.Is(err, claude.ErrDetached) || errors.Is(err, sandbox.ErrUnavailable) || errors.Is(err, errRecords) ||
		errors.Is(err, errUnreached)
}

var (
	// errRecords: records or logs could not be read or written.
	errRecords   = errors.New("the server's records cannot be reached")
	errUnreached = errors.New("the sandbox cannot be reached")
	// errGone: nothing is left of the run in its sandbox, or of that.
	errGone = errors.New("nothing is left of the run in its sandbox: how far it came is not known")
)

// attempt follows the run once, from where it stands.
func (r *run) attempt() (*claude.ResultMessage, error) {
	if err := r.renew(); err != nil {
		return nil, err
	}
	sb, err := r.sandbox()
	if err != nil {
		return nil, err
	}
	opts := *r.opts
	journal := runlog.NewJournal(r.ctx, r.lines)
	opts.Journal = journal
	st, err := r.open(sb, claude.NewClient(sb, &opts))
	if err != nil {
		return nil, errors.Join(err, r.flush(journal, err))
	}
	defer func() { _ = st.Detach() }() // what it comes to, Result says
	if !r.begun(st) {
		_ = st.Close() // killed meanwhile; what is left is read
	}
	tooLong := r.read(st)
	if tooLong != nil {
		_ = st.Close() // a log with a hole must not look whole
		return nil, tooLong
	}
	result, err := st.Result()
	return result, errors.Join(err, r.flush(journal, err))
}

// flush puts the last line into the log, if it has no end and there will be none.
func (r *run) flush(journal *runlog.Journal, end error) error {
	if errors.Is(end, claude.ErrDetached) {
		// A writer that failed is used up: the next attempt gets another.
		_ = r.lines.Close() // it may have failed for that
		return nil
	}
	if err := journal.Flush(); err != nil {
		return errors.Join(claude.ErrDetached, err)
	}
	return nil
}

// renew gets the lease again where it was dropped.
func (r *run) renew() error {
	if r.h.config.Logs == nil || r.lines.w != nil {
		return nil
	}
	err := r.lease(r.ctx)
	switch {
	case errors.Is(err, runlog.ErrBusy):
		return fmt.Errorf("%w: %w", errLeft, err)
	case err != nil:
		return fmt.Errorf("%w: %w", errRecords, err)
	}
	return nil
}

// sandbox gives the run's sandbox, which is in use until the run ends or is let go of.
// Where it has ended the error says how.
func (r *run) sandbox() (*sandbox.Sandbox, error) {
	rec, err := r.h.store.Sandbox(r.ctx, r.box.account, r.box.id)
	if errors.Is(err, ErrNotFound) {
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecords, err)
	}
	sb, release, err := r.box.use(r.ctx)
	if err == nil {
		r.last = nil
		return r.hold(sb, release)
	}
	if gone(err) {
		return r.ending(rec, err)
	}
	return nil, fmt.Errorf("%w: %w", errUnreached, err)
}

// hold makes sb what the run uses, in place of what it used before. Where the run was in
// another, that has ended.
func (r *run) hold(sb *sandbox.Sandbox, release func()) (*sandbox.Sandbox, error) {
	before := r.using
	r.letGoOfSandbox()
	r.using, r.release = sb, release
	r.inUse.Store(true)
	if before != nil && before.ID() != sb.ID() {
		return nil, &claude.EndError{Err: sandbox.ErrEnded, SandboxEnd: sandbox.EndLifetime}
	}
	return sb, nil
}

func (r *run) letGoOfSandbox() {
	r.inUse.Store(false)
	if r.release != nil {
		r.release()
	}
	r.release = nil
}

// ending gives the run's sandbox where that is being saved, and nobody may use it any more:
// what Claude wrote in it is read to the end. Where it has ended the error says how.
func (r *run) ending(rec *Sandbox, ended error) (*sandbox.Sandbox, error) {
	if now, err := r.h.refresh(r.ctx, rec); err == nil {
		rec = now
	}
	s, err := r.h.pool.Get(r.ctx, r.box.account, r.box.id)
	if rec.State == StateEnded || gone(err) {
		return nil, &claude.EndError{Err: ended, SandboxEnd: rec.End}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreached, err)
	}
	now, err := s.Record(r.ctx)
	if err == nil && now.State == pool.StateStopping {
		var sb *sandbox.Sandbox
		if sb, err = r.h.config.Provider.Attach(r.ctx, now.Box.ID); err == nil {
			r.last = &claude.EndError{Err: ended, SandboxEnd: now.End}
			return r.hold(sb, func() { _ = sb.Close() }) // it has ended, or will
		}
	}
	if err == nil || gone(err) { // just now: the next attempt sees how
		err = ended
	}
	return nil, fmt.Errorf("%w: %w", errUnreached, err)
}

// open starts the run or takes it over.
func (r *run) open(sb *sandbox.Sandbox, c *claude.Client) (*claude.Stream, error) {
	if why := r.wasKilled(); why != nil {
		return r.openKilled(sb, c, why)
	}
	if r.last != nil { // nothing is begun in it any more
		st, err := c.Adopt(r.start, r.id)
		if errors.Is(err, fs.ErrNotExist) {
			err = r.last
		}
		return st, err
	}
	if r.fresh {
		r.fresh = false
		if st, err := c.Start(r.start, r.id, r.rec.Prompt); !errors.Is(err, fs.ErrExist) {
			return st, r.gone(sb, err)
		}
	}
	st, err := c.Adopt(r.start, r.id)
	if errors.Is(err, fs.ErrNotExist) && r.lines.n == 0 && (!r.taken || r.rec.Request != "") {
		return c.Start(r.start, r.id, r.rec.Prompt)
	}
	return st, r.gone(sb, err)
}

// gone says so where the run is not in its sandbox.
func (r *run) gone(sb *sandbox.Sandbox, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, missing := sb.Job(r.ctx, r.id); errors.Is(missing, fs.ErrNotExist) && r.taken {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return err
}

// openKilled gives what is left of a run that was killed.
func (r *run) openKilled(sb *sandbox.Sandbox, c *claude.Client, why *reason) (*claude.Stream, error) {
	job, err := sb.Job(r.ctx, r.id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, why
	}
	if err == nil {
		if err = job.Kill(r.ctx); errors.Is(err, os.ErrProcessDone) {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(claude.ErrDetached, err)
	}
	return c.Adopt(r.ctx, r.id)
}

// begun makes the stream known to those who want to stop it. It reports whether it may
// go on.
func (r *run) begun(st *claude.Stream) bool {
	r.mu.Lock()
	r.stream = st
	killed := r.why != nil
	r.mu.Unlock()
	r.noteSession(st)
	return !killed
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

// read reads to the end of the stream. A line that is too long ends the run. The error
// of a stream that ended is its Result's to tell.
func (r *run) read(st *claude.Stream) error {
	known := st.SessionID() != ""
	for _, err := range st.Lines() {
		if tooLong, ok := errors.AsType[*claude.LineTooLongError](err); ok {
			return tooLong
		}
		if err == nil && !known {
			r.noteSession(st)
			known = st.SessionID() != ""
		}
	}
	return nil
}

// leave lets go of the run, which goes on.
func (r *run) leave() {
	if err := r.lines.Close(); err != nil {
		r.h.log.Warn("cannot give back the lease of a run", "run", r.id, "error", err)
	}
	close(r.done)
	r.log.Leave()
	r.let()
	r.box.forgetRun(r.id)
}
