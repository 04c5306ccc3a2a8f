package pool

import (
	"cmp"
	"context"
	"errors"

	"github.com/vivarium-go/vivarium/sandbox"
)

// warn announces an end.
func (w *work) warn(ctx context.Context) error {
	reason, end := w.rec.planned()
	at := now()
	announced := end
	if earliest := at.Add(w.p.grace(w.rec, reason)); announced.Before(earliest) {
		announced = earliest
	}
	w.p.notify(ctx, Event{Kind: EventWarning, Record: w.copy(), Reason: reason, At: announced})
	return w.update(ctx, func(r *Record) error {
		r.warned(reason, Warning{End: end, At: at})
		return nil
	})
}

// stop begins an end, unless the sandbox was just used.
func (w *work) stop(ctx context.Context) error {
	return w.update(ctx, func(r *Record) error {
		if do, _ := w.p.due(r, now()); do != dutyStop {
			return errSame
		}
		reason, _ := r.planned()
		r.stop(reason, Stop{Until: now().Add(w.p.opts.SaveWithin), Unsaved: r.Owner == ""})
		return nil
	})
}

// save saves the workspace of a sandbox that is to end.
func (w *work) save(ctx context.Context) error {
	ended, err := w.saveBox(ctx)
	if err == nil {
		return w.update(ctx, func(r *Record) error {
			r.Stop.Saved, r.SavedAt, r.UnsavedAt = true, now(), zero
			return nil
		})
	}
	if ctx.Err() != nil {
		return err
	}
	if ended || !w.rec.Stop.Keep && !now().Before(w.rec.Stop.Until) {
		return w.update(ctx, func(r *Record) error {
			r.Stop.Unsaved, r.Error = true, err.Error()
			return nil
		})
	}
	if w.rec.Stop.Keep {
		w.refused = err
		return w.update(ctx, func(r *Record) error {
			r.State, r.End, r.Stop, r.Error = StateRunning, "", nil, err.Error()
			return nil
		})
	}
	return errors.Join(err, w.tellUnsaved(ctx, true, err))
}

// saveBox saves the workspace. Whether it cannot be saved because the sandbox has ended
// is asked of the provider: a hook's error may match sandbox.ErrNotFound for reasons of
// its own.
func (w *work) saveBox(ctx context.Context) (ended bool, err error) {
	h, err := w.p.hold(ctx, w.rec.Box.ID)
	if err != nil {
		return gone(err), err
	}
	defer w.p.drop(h)
	if w.p.opts.Save == nil {
		return false, nil
	}
	err = retry(ctx, func(error) bool { return !ended }, func(ctx context.Context) error {
		err := w.saveOnce(ctx, h.sb)
		if err != nil && ctx.Err() == nil {
			ended = w.p.hasEnded(ctx, w.rec.Box.ID)
		}
		return err
	})
	return ended, err
}

func (w *work) saveOnce(ctx context.Context, sb *sandbox.Sandbox) error {
	ctx, stop := context.WithTimeout(ctx, w.p.opts.SaveTime)
	defer stop()
	return w.p.opts.Save(ctx, w.copy(), sb)
}

// hasEnded reports whether the provider says so.
func (p *Pool) hasEnded(ctx context.Context, id string) bool {
	sb, err := p.opts.Provider.Attach(ctx, id)
	if err == nil {
		_ = sb.Close() // only that it runs was asked
	}
	return gone(err)
}

// end ends the sandbox.
func (w *work) end(ctx context.Context) error {
	if err := w.p.endBox(ctx, w.rec.Box); err != nil {
		return err
	}
	e := Event{Kind: EventEnded, Record: w.copy(), Reason: w.rec.End, At: cmp.Or(w.rec.EndedAt, now()), Saved: w.rec.Stop.Saved}
	if w.rec.Error != "" {
		e.Err = errors.New(w.rec.Error)
	}
	untold := w.fresh // Create returns an error, and its owner knows of none
	if !untold {
		w.p.notify(ctx, e)
	}
	err := w.update(ctx, func(r *Record) error {
		r.State, r.EndedAt, r.Lease, r.Busy = StateTerminated, e.At, Lease{}, nil
		return nil
	})
	if err != nil || !untold {
		return err
	}
	return w.p.opts.Store.Delete(ctx, w.rec)
}

// endBox ends a sandbox of the provider, by its name where nobody knows whether it was made.
func (p *Pool) endBox(ctx context.Context, b Box) error {
	ctx, stop := context.WithTimeout(ctx, cleanUpTime)
	defer stop()
	if b.ID == "" {
		sb, err := p.lookUp(ctx, b.Name)
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		b.ID = sb.ID()
		_ = sb.Close() // it is ended by its id
	}
	err := retry(ctx, transient, func(ctx context.Context) error {
		return p.opts.Provider.Terminate(ctx, b.ID)
	})
	if err != nil && !errors.Is(err, sandbox.ErrNotFound) {
		return err
	}
	p.forget(b.ID)
	return nil
}
