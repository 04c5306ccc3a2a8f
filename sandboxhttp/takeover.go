package sandboxhttp

import (
	"context"
	"errors"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
)

// A server that was killed leaves records in a Store that outlives it: of runs that
// nobody works on any more, and of sandboxes that nobody goes on making. Whoever looks
// at one first records what has become of it.

// errRunLost is why a run ended whose server did first.
const errRunLost = "the server that ran it ended first: how far it came is not known"

// settleRun gives a run's record, as ended if nobody works on it.
func (h *Handler) settleRun(ctx context.Context, b *box, rec *Run) (*Run, error) {
	if rec.State != StateRunning || b.run(rec.ID) != nil {
		return rec, nil
	}
	h.records.Lock()
	defer h.records.Unlock()
	rec, err := h.store.Run(ctx, b.account, b.id, rec.ID) // it may just have ended here
	if err != nil || rec.State != StateRunning || b.run(rec.ID) != nil {
		return rec, err
	}
	rec.State, rec.End, rec.Error = StateEnded, string(claude.EndUnknown), errRunLost
	rec.EndedAt = time.Now().UTC().Round(0)
	return rec, h.store.SaveRun(ctx, rec)
}

// lost reports whether settleRun ended the run. The number of its events is not
// known then.
func (r *Run) lost() bool { return r.State == StateEnded && r.Events == 0 && r.Error == errRunLost }

// making reports whether this handler is making a sandbox.
func (h *Handler) making(id string) bool {
	h.mu.Lock()
	b := h.boxes[id]
	h.mu.Unlock()
	if b == nil {
		return false
	}
	select {
	case <-b.ready:
		return false
	default:
		return true
	}
}

// settleMaking records what has become of a sandbox that its record says is being
// made, if that is not so. info is what the provider says of it, nil for nothing. One
// that runs is taken over, unless it has a volume: then it may have a part of the files
// only, and stays as it is until it ends or is deleted.
func (h *Handler) settleMaking(ctx context.Context, account, id string, info *sandbox.Info) error {
	if h.making(id) {
		return nil
	}
	if info == nil {
		info = &sandbox.Info{State: sandbox.StateEnded, End: sandbox.EndUnknown}
	}
	err := h.change(ctx, account, id, func(rec *Sandbox) bool {
		runs := info.State == sandbox.StateRunning
		// One that was made here counts as made when its record says so.
		if rec.State != StateCreating || runs && rec.VolumeName != "" {
			return false
		}
		rec.ProviderID = info.ID
		rec.observe(info)
		return true
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
