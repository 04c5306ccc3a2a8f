package sandboxhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/vivarium-go/vivarium/sandboxhttp/internal/eventlog"
)

// headerRun names the run that a stream is of.
const headerRun = "Vivarium-Run"

func (h *Handler) postRun(w http.ResponseWriter, r *http.Request, p *Principal) error {
	body, err := h.readBody(w, r)
	if err != nil {
		return err
	}
	rec, b, err := h.find(r.Context(), p.Account, r.PathValue("id"))
	if err != nil {
		return err
	}
	claim, prior, err := h.keys.claim(r, p.Account, body)
	if err != nil {
		return err
	}
	if prior != nil {
		again := prior.box.run(prior.run)
		if again == nil { // forgotten since
			return notFound()
		}
		return h.streamRun(w, r, again, 0)
	}
	var given *answer
	defer func() { claim.settle(given) }()
	started, err := h.startRun(r.Context(), rec, b, body)
	if err != nil {
		return err
	}
	given = &answer{box: b, run: started.id}
	claim.settle(given) // before the stream, which may last
	return h.streamRun(w, r, started, 0)
}

func (h *Handler) startRun(ctx context.Context, rec *Sandbox, b *box, body []byte) (*run, error) {
	q, err := parseRun(body)
	if err != nil {
		return nil, err
	}
	if _, err := h.awaitRunning(ctx, rec, b); err != nil {
		return nil, err
	}
	return h.beginRun(b, q)
}

// awaitRunning waits until a sandbox is no longer being made, and gives its record
// if it runs.
func (h *Handler) awaitRunning(ctx context.Context, rec *Sandbox, b *box) (*Sandbox, error) {
	if err := b.wait(ctx); err != nil {
		return nil, err
	}
	rec, err := h.store.Sandbox(ctx, rec.Account, rec.ID)
	if err != nil {
		return nil, err
	}
	if rec, err = h.refresh(ctx, rec, b); err != nil {
		return nil, err
	}
	if rec.State != StateRunning {
		return nil, sandboxEnded()
	}
	return rec, nil
}

// streamRun follows a run from the event after a number.
func (h *Handler) streamRun(w http.ResponseWriter, r *http.Request, followed *run, after uint64) error {
	w.Header().Set(headerRun, followed.id)
	return h.stream(w, r, followed.log, after)
}

// stream follows a log. How a stream ends after it has begun is no longer
// something to answer.
func (h *Handler) stream(w http.ResponseWriter, r *http.Request, log *eventlog.Log, after uint64) error {
	err := h.timing.Serve(w, r, log, after)
	if errors.Is(err, http.ErrNotSupported) {
		w.Header().Del(headerRun)
		return fmt.Errorf("a middleware's ResponseWriter lacks Flush or Unwrap: %w", err)
	}
	return nil
}

func (h *Handler) listRuns(w http.ResponseWriter, r *http.Request, p *Principal) error {
	_, b, err := h.find(r.Context(), p.Account, r.PathValue("id"))
	if err != nil {
		return err
	}
	list, err := h.store.Runs(r.Context(), p.Account, b.id)
	if err != nil {
		return err
	}
	runs := make([]Run, 0, len(list))
	for _, rec := range list {
		rec, err := h.settleRun(r.Context(), b, rec)
		switch {
		case err == nil:
			runs = append(runs, b.present(rec))
		case !errors.Is(err, ErrNotFound): // forgotten meanwhile
			return err
		}
	}
	return h.send(w, http.StatusOK, map[string][]Run{"runs": runs})
}

// present is a run's record as it is now, if it goes on here.
func (b *box) present(rec *Run) Run {
	if live := b.run(rec.ID); live != nil {
		return live.record()
	}
	return *rec
}

// findRun gives a run of an account; live is nil when it is not of this process.
func (h *Handler) findRun(r *http.Request, p *Principal) (rec *Run, live *run, err error) {
	_, b, err := h.find(r.Context(), p.Account, r.PathValue("id"))
	if err != nil {
		return nil, nil, err
	}
	if rec, err = h.store.Run(r.Context(), p.Account, b.id, r.PathValue("run")); err != nil {
		return nil, nil, err
	}
	if rec, err = h.settleRun(r.Context(), b, rec); err != nil {
		return nil, nil, err
	}
	return rec, b.run(rec.ID), nil
}

func (h *Handler) getRun(w http.ResponseWriter, r *http.Request, p *Principal) error {
	rec, live, err := h.findRun(r, p)
	if err != nil {
		return err
	}
	now := *rec
	if live != nil {
		now = live.record()
	}
	return h.send(w, http.StatusOK, now)
}

func (h *Handler) followRun(w http.ResponseWriter, r *http.Request, p *Principal) error {
	rec, live, err := h.findRun(r, p)
	if err != nil {
		return err
	}
	after, err := resumeFrom(r)
	if err != nil {
		return err
	}
	if live == nil {
		live = h.past(rec, after)
	}
	last, ended := live.log.Last()
	switch {
	case ended && after >= last:
		w.WriteHeader(http.StatusNoContent)
		return nil
	case after > last:
		return newProblem(http.StatusUnprocessableEntity, codeValidationFailed, "the run has not come that far").
			field("after", fmt.Sprintf("use 0 to %d", last))
	}
	return h.streamRun(w, r, live, after)
}

// past stands for a run that this process has the record of only. The end of one
// that was lost comes after whatever a follower has seen.
func (h *Handler) past(rec *Run, after uint64) *run {
	last := rec.Events
	if rec.lost() {
		last = after + 1
	}
	log := eventlog.Past(last, "end", rec.endEvent())
	return &run{h: h, id: rec.ID, log: log, done: closedChan, rec: *rec}
}

// resumeFrom is the number of the last event that the client has. The header
// wins: a browser that reconnects sends it, with the address it had first.
func resumeFrom(r *http.Request) (uint64, error) {
	name, text := "Last-Event-ID", r.Header.Get("Last-Event-ID")
	if text == "" {
		name, text = "after", r.URL.Query().Get("after")
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, newProblem(http.StatusUnprocessableEntity, codeValidationFailed, "some parameters cannot be taken as they are").
			field(name, "use the id of the last event that arrived")
	}
	return n, nil
}

func (h *Handler) interruptRun(w http.ResponseWriter, r *http.Request, p *Principal) error {
	body, err := h.readBody(w, r)
	if err != nil {
		return err
	}
	if err := decodeBody(body, nil); err != nil {
		return err
	}
	_, live, err := h.findRun(r, p)
	if err != nil {
		return err
	}
	claim, prior, err := h.keys.claim(r, p.Account, body)
	if err != nil {
		return err
	}
	if prior == nil && live != nil {
		live.stop()
	}
	claim.settle(&answer{status: http.StatusAccepted})
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// retainRuns forgets the oldest runs that have ended, beyond the limit.
func (h *Handler) retainRuns(ctx context.Context, b *box) {
	list, err := h.store.Runs(ctx, b.account, b.id)
	if err != nil {
		if !errors.Is(err, ErrNotFound) { // the sandbox was forgotten first
			h.log.Error("cannot list runs", "sandbox", b.id, "error", err)
		}
		return
	}
	surplus := len(list) - h.limits.KeptRuns
	for _, rec := range list {
		if surplus <= 0 {
			return
		}
		if rec.State != StateEnded {
			continue
		}
		surplus--
		if err := h.store.DeleteRun(ctx, b.account, b.id, rec.ID); err != nil {
			h.log.Error("cannot forget a run", "run", rec.ID, "error", err)
		}
		if r := b.forgetRun(rec.ID); r != nil {
			h.events.remove(r.log)
		}
	}
}

// forgetRuns gives the memory of a sandbox's runs back.
func (h *Handler) forgetRuns(b *box) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.runs {
		h.events.remove(r.log)
	}
	clear(b.runs)
}

// eventBudget bounds what the events of runs that have ended take together.
type eventBudget struct {
	limit int64

	mu   sync.Mutex
	logs []*eventlog.Log // oldest first
	size int64
}

func (e *eventBudget) add(l *eventlog.Log) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logs = append(e.logs, l)
	e.size += l.Size()
	trimmed := 0
	for e.size > e.limit && trimmed < len(e.logs) {
		before := e.logs[trimmed].Size()
		e.logs[trimmed].Trim()
		e.size -= before
		trimmed++
	}
	e.logs = slices.Delete(e.logs, 0, trimmed)
}

func (e *eventBudget) remove(l *eventlog.Log) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.Index(e.logs, l); i >= 0 {
		e.size -= l.Size()
		e.logs = slices.Delete(e.logs, i, i+1)
	}
}
