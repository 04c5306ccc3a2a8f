package pool

import (
	"context"
	"errors"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// A rollover is recorded as it goes: the successor's name, that the workspace is saved,
// the successor's id, and, in one change, that it is the sandbox now and the one before is
// to be ended. So whoever goes on after a crash knows of both, and ends the right one.

var zero time.Time

// warnCut announces that a rollover will not wait any longer.
func (w *work) warnCut(ctx context.Context) error {
	bound := w.rec.cutAt(w.p.opts.Ahead)
	w.p.notify(ctx, Event{Kind: EventCut, Record: w.copy(), Reason: sandbox.EndLifetime, At: bound})
	return w.update(ctx, func(r *Record) error {
		r.warned(endRollover, Warning{End: bound, At: now()})
		return nil
	})
}

// rollOver begins a rollover, unless the sandbox was just used. Use waits from now on.
func (w *work) rollOver(ctx context.Context) error {
	return w.update(ctx, func(r *Record) error {
		at := now()
		if do, _ := w.p.due(r, at); do != dutyRollOver {
			return errSame
		}
		r.Rollover = &Rollover{To: r.nextBox(at.Add(w.p.boxTime(r, at))), Cut: r.busyUntil().After(at)}
		return nil
	})
}

// saveOld saves the workspace for the successor. While it cannot be, there is none, and
// the sandbox goes on.
func (w *work) saveOld(ctx context.Context) error {
	ended, err := w.saveBox(ctx)
	switch {
	case err == nil:
		return w.update(ctx, func(r *Record) error {
			r.Rollover.Saved = true
			if w.p.opts.Save != nil {
				r.SavedAt, r.UnsavedAt = now(), zero
			}
			return nil
		})
	case ctx.Err() != nil:
		return err
	case ended:
		return w.recordEnd(ctx)
	}
	dropped := w.update(ctx, func(r *Record) error {
		r.Rollover = nil
		return nil
	})
	return errors.Join(err, dropped, w.tellUnsaved(ctx, dropped == nil, err))
}

// tellUnsaved tells once that the workspace cannot be saved.
func (w *work) tellUnsaved(ctx context.Context, tell bool, err error) error {
	if !tell || !w.rec.UnsavedAt.IsZero() {
		return nil
	}
	until := w.rec.Box.ExpiresAt
	if w.rec.Stop != nil {
		until = w.rec.Stop.Until
	}
	w.p.notify(ctx, Event{Kind: EventUnsaved, Record: w.copy(), Reason: w.rec.End, At: until, Err: err})
	return w.update(ctx, func(r *Record) error {
		r.UnsavedAt = now()
		return nil
	})
}

// recordEnd records that the sandbox ended by itself.
func (w *work) recordEnd(ctx context.Context) error {
	reason, at, err := w.p.reasonOf(ctx, w.rec.Box)
	if err != nil {
		return err
	}
	return w.update(ctx, func(r *Record) error {
		r.lost(reason, at)
		return nil
	})
}

// makeSuccessor makes the sandbox that takes over, unless somebody did before.
func (w *work) makeSuccessor(ctx context.Context) error {
	sb, err := w.p.lookUp(ctx, w.rec.Rollover.To.Name)
	if gone(err) {
		sb, err = w.create(ctx, w.rec.Rollover.To)
	}
	if err != nil {
		return w.failSuccessor(ctx, err)
	}
	return w.made(ctx, sb, func(r *Record, id string) { r.Rollover.To.ID = id })
}

// failSuccessor goes on with the sandbox that was to be replaced. A later rollover
// begins from the start.
func (w *work) failSuccessor(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return errors.Join(err, w.dropSuccessor(ctx))
}

// dropSuccessor ends the one that was to take over.
func (w *work) dropSuccessor(ctx context.Context) error {
	if err := w.p.endBox(ctx, w.rec.Rollover.To); err != nil {
		return err
	}
	return w.update(ctx, func(r *Record) error {
		r.Rollover = nil
		return nil
	})
}

// switchOver fills the successor, which is the sandbox then.
func (w *work) switchOver(ctx context.Context) error {
	if err := w.fillBox(ctx, w.rec.Rollover.To); err != nil {
		return w.failSuccessor(ctx, err)
	}
	return w.update(ctx, func(r *Record) error {
		old := r.Box
		r.Old, r.Box, r.Rollover, r.Error = &old, r.Rollover.To, nil, ""
		delete(r.Warnings, endRollover)
		return nil
	})
}

// endOld ends the sandbox that was replaced.
func (w *work) endOld(ctx context.Context) error {
	w.p.notify(ctx, Event{Kind: EventRolledOver, Record: w.copy(), At: now()})
	if err := w.p.endBox(ctx, *w.rec.Old); err != nil {
		return err
	}
	return w.update(ctx, func(r *Record) error {
		r.Old = nil
		return nil
	})
}
