package sandboxhttp

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/sandbox/pool"
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
		return h.streamAgain(w, r, prior.box, prior.run)
	}
	var given *answer
	defer func() { claim.settle(given) }()
	id, before, err := h.runOfKey(r, b, body)
	if err != nil {
		return err
	}
	if !before {
		if id, err = h.startRun(r.Context(), rec, b, id, body); err != nil {
			return err
		}
	}
	given = &answer{box: b, run: id}
	claim.settle(given) // before the stream, which may last
	return h.streamAgain(w, r, b, id)
}

// runOfKey is the id of the run that an Idempotency-Key stands for, so that a server that
// does not know the key knows the run; "" without a key. before says that it was begun.
func (h *Handler) runOfKey(r *http.Request, b *box, body []byte) (id string, before bool, err error) {
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		return "", false, nil
	}
	sum := sha256.Sum256([]byte(b.account + "\x00" + b.id + "\x00" + key))
	id = "run-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
	rec, err := h.store.Run(r.Context(), b.account, b.id, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return id, false, nil
	case err != nil:
		return "", false, err
	case rec.Request != string(body):
		return "", false, keyMismatch()
	}
	return id, true, nil
}

func (h *Handler) startRun(ctx context.Context, rec *Sandbox, b *box, id string, body []byte) (string, error) {
	q, err := parseRun(body)
	if err != nil {
		return "", err
	}
	if _, err := h.awaitRunning(ctx, rec, b); err != nil {
		return "", err
	}
	started, err := h.beginRun(b, id, q)
	if errors.Is(err, runlog.ErrBusy) {
		return "", newProblem(http.StatusConflict, codeIdempotencyInFlight,
			"the first request with this Idempotency-Key is still being worked on")
	}
	if err != nil {
		return "", err
	}
	return started.id, nil
}

// streamAgain streams a run of this sandbox from its first event on.
func (h *Handler) streamAgain(w http.ResponseWriter, r *http.Request, b *box, id string) error {
	if live := b.run(id); live != nil {
		return h.streamRun(w, r, live, 0)
	}
	rec, err := h.store.Run(r.Context(), b.account, b.id, id)
	if err != nil {
		return err
	}
	return h.streamRecord(w, r, b, rec, 0)
}

// streamRecord streams a run that this server does not look after.
func (h *Handler) streamRecord(w http.ResponseWriter, r *http.Request, b *box, rec *Run, after uint64) error {
	if rec.State != StateRunning {
		return h.streamRun(w, r, h.past(rec, after), after)
	}
	br, err := b.bridge(r.Context(), rec.ID)
	if err != nil {
		return err
	}
	defer br.leave()
	w.Header().Set(headerRun, rec.ID)
	return h.stream(w, r, br.log, after)
}

// awaitRunning waits until a sandbox is no longer being made, by whichever server, and
// gives its record if it runs.
func (h *Handler) awaitRunning(ctx context.Context, rec *Sandbox, b *box) (*Sandbox, error) {
	if err := b.wait(ctx); err != nil {
		return nil, err
	}
	for {
		rec, err := h.store.Sandbox(ctx, rec.Account, rec.ID)
		if err != nil {
			return nil, err
		}
		if rec, err = h.refresh(ctx, rec); err != nil {
			return nil, err
		}
		switch {
		case rec.State == StateRunning:
			return rec, h.usable(ctx, rec)
		case rec.State != StateCreating || b.left != nil:
			return nil, sandboxEnded()
		case !sleep(ctx, lookAgain):
			return nil, context.Cause(ctx)
		}
	}
}

// usable reports why a sandbox that runs cannot be used: it is being saved before its end,
// or this server ends.
func (h *Handler) usable(ctx context.Context, rec *Sandbox) error {
	h.mu.Lock()
	closing := h.closing
	h.mu.Unlock()
	if closing {
		return shuttingDown()
	}
	s, err := h.pool.Get(ctx, rec.Account, rec.ID)
	if err != nil {
		return providerProblem(err)
	}
	now, err := s.Record(ctx)
	if err != nil {
		return providerProblem(err)
	}
	if now.State == pool.StateStopping {
		return sandboxEnded()
	}
	return nil
}

// lookAgain is how often a sandbox is looked at that another server makes.
const lookAgain = 250 * time.Millisecond

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
	runs := make([]presentRun, 0, len(list))
	for _, rec := range list {
		rec, err := h.takeOver(r.Context(), b, rec)
		switch {
		case err == nil:
			runs = append(runs, b.present(rec))
		case !errors.Is(err, ErrNotFound): // forgotten meanwhile
			return err
		}
	}
	return h.send(w, http.StatusOK, map[string][]presentRun{"runs": runs})
}

// presentRun is a run as clients read it.
type presentRun struct {
	Run
	// Questions are those of Claude that wait for an answer.
	Questions []Question `json:"questions,omitempty"`
}

// present is a run as it is now, if this server looks after it.
func (b *box) present(rec *Run) presentRun {
	if live := b.run(rec.ID); live != nil {
		return presentRun{live.record(), live.asked.list()}
	}
	return presentRun{Run: *rec}
}

// findRun gives a run of an account; live is nil when this server does not look after it.
func (h *Handler) findRun(r *http.Request, p *Principal) (rec *Run, live *run, err error) {
	_, b, err := h.find(r.Context(), p.Account, r.PathValue("id"))
	if err != nil {
		return nil, nil, err
	}
	if rec, err = h.store.Run(r.Context(), p.Account, b.id, r.PathValue("run")); err != nil {
		return nil, nil, err
	}
	if rec, err = h.takeOver(r.Context(), b, rec); err != nil {
		return nil, nil, err
	}
	return rec, b.run(rec.ID), nil
}

func (h *Handler) getRun(w http.ResponseWriter, r *http.Request, p *Principal) error {
	rec, _, err := h.findRun(r, p)
	if err != nil {
		return err
	}
	return h.send(w, http.StatusOK, h.box(rec.Account, rec.SandboxID).present(rec))
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
	if live == nil && rec.State == StateRunning {
		return h.streamRecord(w, r, h.box(rec.Account, rec.SandboxID), rec, after)
	}
	if live == nil {
		live = h.past(rec, after)
	}
	last, ended := live.log.Last()
	switch {
	case ended && after >= last:
		w.WriteHeader(http.StatusNoContent)
		return nil
	case after > last && !live.taken: // else it will come that far again
		return newProblem(http.StatusUnprocessableEntity, codeValidationFailed, "the run has not come that far").
			field("after", fmt.Sprintf("use 0 to %d", last))
	}
	return h.streamRun(w, r, live, after)
}

// past stands for a run that has ended, of which this process has the record. The end of
// one that was lost comes after whatever a follower has seen.
func (h *Handler) past(rec *Run, after uint64) *run {
	last := rec.Events
	if rec.Error == errGone.Error() {
		last = max(last, after+1)
	}
	log := eventlog.Past(last, "end", rec.endEvent(), h.older(rec.ID))
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
	rec, live, err := h.findRun(r, p)
	if err != nil {
		return err
	}
	claim, prior, err := h.keys.claim(r, p.Account, body)
	if err != nil {
		return err
	}
	var given *answer
	defer func() { claim.settle(given) }()
	switch {
	case prior != nil:
	case live != nil:
		live.stop(nil)
	case rec.State == StateRunning:
		return lookedAfterElsewhere()
	}
	given = &answer{status: http.StatusAccepted}
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
		if err := h.deleteRun(ctx, rec); err != nil {
			h.log.Error("cannot forget a run", "run", rec.ID, "error", err)
		}
		if r := b.forgetRun(rec.ID); r != nil {
			h.events.remove(r.log)
		}
	}
}

// deleteRun removes a run's record and then its log: what is left of the log alone is
// found by nobody.
func (h *Handler) deleteRun(ctx context.Context, rec *Run) error {
	err := h.store.DeleteRun(ctx, rec.Account, rec.SandboxID, rec.ID)
	if err == nil && h.config.Logs != nil {
		err = h.config.Logs.Delete(ctx, rec.ID)
	}
	return err
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
