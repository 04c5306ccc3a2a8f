package sandboxhttp

import (
	"context"
	"errors"
	"time"

	"github.com/vivarium-go/vivarium/claude/runlog"
)

// A server that was killed leaves records in a Store that outlives it: of runs that
// go on in their sandboxes, and of sandboxes that nobody goes on making. The next one,
// or another that is there, takes the runs over; who looks at a sandbox first records
// what has become of it.

// takeOverEvery is how often runs are looked for that nobody looks after.
const takeOverEvery = 5 * time.Second

// watchRuns takes over what other servers leave, until this one lets go of its own.
func (h *Handler) watchRuns() {
	var swept time.Time
	for more := true; more; more = sleep(h.runs, takeOverEvery) {
		h.takeOverAll()
		if time.Since(swept) >= sweepEvery {
			h.sweep()
			swept = time.Now()
		}
	}
}

func (h *Handler) takeOverAll() {
	list, err := h.store.RunningRuns(h.runs)
	for _, rec := range list {
		_, failed := h.takeOver(h.runs, h.box(rec.Account, rec.SandboxID), rec)
		err = errors.Join(err, failed)
	}
	if err != nil && h.runs.Err() == nil {
		h.log.Error("cannot look after runs of servers that are gone", "error", err)
	}
}

// takeOver makes this server look after a run that its record says is running, if none
// does. It gives the record as it is then.
func (h *Handler) takeOver(ctx context.Context, b *box, rec *Run) (*Run, error) {
	if rec.State != StateRunning || b.run(rec.ID) != nil || h.runs.Err() != nil {
		return rec, nil
	}
	b.taking.Lock()
	defer b.taking.Unlock()
	if b.run(rec.ID) != nil {
		return rec, nil
	}
	w, from, err := h.leaseOf(ctx, rec.ID)
	if errors.Is(err, runlog.ErrBusy) {
		return rec, nil
	}
	if err != nil {
		return nil, err
	}
	now, err := h.store.Run(ctx, b.account, b.id, rec.ID) // it may just have ended
	if err == nil && now.State == StateRunning {
		err = h.goOn(b, now, w, from)
	} else if w != nil {
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		return nil, err
	}
	return now, nil
}

// leaseOf gives the right to look after a run, and how far its log has come.
func (h *Handler) leaseOf(ctx context.Context, run string) (runlog.Writer, runlog.Info, error) {
	if h.config.Logs == nil {
		return nil, runlog.Info{}, nil
	}
	w, err := h.config.Logs.Write(ctx, run)
	if err != nil {
		return nil, runlog.Info{}, err
	}
	return w, w.Info(), nil
}

// goOn begins to look after a run that another server has begun.
func (h *Handler) goOn(b *box, rec *Run, w runlog.Writer, from runlog.Info) error {
	var q *runRequest
	if rec.Request != "" {
		q, _ = parseRun([]byte(rec.Request)) // it was taken before
	}
	r := h.newRun(b, rec, q, from)
	r.taken, r.lines.w = true, w
	b.mu.Lock()
	b.runs[r.id] = r
	b.mu.Unlock()
	err := r.takeAgain()
	if err == nil {
		err = h.start("run", r.work)
	}
	if err != nil {
		b.forgetRun(r.id)
		r.let()
		err = errors.Join(err, r.lines.Close())
	}
	return err
}

// making reports whether this handler is making a sandbox.
func (h *Handler) making(id string) bool {
	h.mu.Lock()
	b := h.boxes[id]
	h.mu.Unlock()
	return b != nil && b.making()
}
