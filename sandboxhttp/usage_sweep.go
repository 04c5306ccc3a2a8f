package sandboxhttp

import (
	"context"
	"errors"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// How often places are looked for whose sandbox or run is gone, and how old they are then at
// least: what they are for is recorded after they are taken.
const (
	sweepEvery = 5 * time.Minute
	placeAge   = 10 * time.Minute
)

// sweep frees the places that servers which were killed have left.
func (h *Handler) sweep() {
	if h.ledger == nil {
		return
	}
	if _, err := h.releaseGone(h.runs, usage.Query{AllAccounts: true}); err != nil && h.runs.Err() == nil {
		h.log.Error("cannot free all places of what is gone", "error", err)
	}
}

// releaseGone frees those of a query's places that are used no more, and counts them.
func (h *Handler) releaseGone(ctx context.Context, q usage.Query) (int, error) {
	if err := h.findLost(ctx); err != nil { // which would seem to be gone
		return 0, err
	}
	q.To = time.Now().Add(-placeAge)
	return usage.ReleaseGone(ctx, h.ledger, q, h.gone)
}

// gone reports whether a place is used no more. What it cannot be certain of is not gone.
func (h *Handler) gone(ctx context.Context, p usage.Place) (bool, error) {
	switch p.Kind {
	case usage.KindSandbox:
		return h.sandboxGone(ctx, p.Account, p.ID)
	case usage.KindRun:
		return h.runGone(ctx, p)
	case usage.KindSave, usage.KindRestore:
		// Each is given up after its time, by whichever server.
		return time.Since(p.Time) > h.limits.SyncTime+placeAge, nil
	}
	return false, nil
}

// sandboxGone reports whether a sandbox is over, which its provider must say too.
func (h *Handler) sandboxGone(ctx context.Context, account, id string) (bool, error) {
	if h.making(id) {
		return false, nil
	}
	rec, err := h.store.Sandbox(ctx, account, id)
	switch {
	case err == nil && rec.State != StateEnded:
		return false, nil
	case err != nil && !errors.Is(err, ErrNotFound):
		return false, err
	}
	s, lost := h.pool.Get(ctx, account, id)
	if lost == nil {
		var now *pool.Record
		if now, lost = s.Record(ctx); lost == nil && now.State != pool.StateTerminated {
			return false, nil
		}
	}
	switch {
	case lost != nil && !errors.Is(lost, sandbox.ErrNotFound):
		return false, lost
	case rec != nil && rec.ProviderID != "": // as freeSandbox, which may not have come to that
		return true, h.ledger.Add(ctx, made(rec))
	}
	return true, nil
}

// runGone reports whether a run is over. Without records that outlive servers, one that
// this server does not know may be another's, as long as its sandbox lives.
func (h *Handler) runGone(ctx context.Context, p usage.Place) (bool, error) {
	h.mu.Lock()
	b := h.boxes[p.SandboxID]
	h.mu.Unlock()
	if b != nil {
		if r := b.run(p.ID); r != nil {
			return r.hasEnded(), nil
		}
	}
	rec, err := h.store.Run(ctx, p.Account, p.SandboxID, p.ID)
	switch {
	case err == nil:
		return rec.State == StateEnded, nil
	case !errors.Is(err, ErrNotFound):
		return false, err
	case h.durable:
		return true, nil
	}
	if err := h.reconcile(ctx, p.Account); err != nil {
		return false, err
	}
	return h.sandboxGone(ctx, p.Account, p.SandboxID)
}
