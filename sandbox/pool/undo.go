package pool

import (
	"context"
	"errors"

	"github.com/vivarium-go/vivarium/sandbox"
)

// undo ends what was being made, if it was made for the owner of r.
func (p *Pool) undo(ctx context.Context, r *Record) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer stop()
	ends, err := p.abandon(ctx, r.Key, r.Owner)
	if err != nil || !ends {
		return err
	}
	return p.finish(ctx, r.Key)
}

// abandon records that nobody wants a sandbox of which its creator knows nothing, and
// reports whether it ends then. When the Store does not take that, it is told later.
func (p *Pool) abandon(ctx context.Context, key, owner string) (ends bool, err error) {
	_, err = p.change(ctx, key, func(r *Record) error {
		ends = r.Owner == owner
		if !ends || r.State != StateCreating && r.State != StateRunning {
			return errSame
		}
		r.stop(sandbox.EndCancelled, Stop{Until: now(), Unsaved: true})
		return nil
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.abandoned, key)
	if err == nil || errors.Is(err, sandbox.ErrNotFound) {
		return ends, nil
	}
	p.abandoned[key] = owner
	return false, err
}

// tellAbandoned tells the Store what it could not be told before.
func (p *Pool) tellAbandoned(ctx context.Context) {
	p.mu.Lock()
	var list [][2]string
	for key, owner := range p.abandoned {
		list = append(list, [2]string{key, owner})
	}
	p.mu.Unlock()
	for _, a := range list {
		_, _ = p.abandon(ctx, a[0], a[1]) // it is tried again
	}
}

// finish has a sandbox ended that is to be.
func (p *Pool) finish(ctx context.Context, key string) error {
	for {
		w, err := p.begin(key, nil)
		if err != nil {
			return err
		}
		w.nudge()
		select {
		case <-w.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		r, err := p.opts.Store.Record(ctx, p.opts.Name, key)
		switch {
		case errors.Is(err, sandbox.ErrNotFound):
			return nil
		case err != nil:
			return err
		case r.State == StateTerminated:
			return nil
		case r.State == StateRunning && w.refused != nil:
			return &SaveError{ID: r.ID, Err: w.refused}
		case r.State == StateRunning:
			return &SaveError{ID: r.ID, Err: errors.New(r.Error)}
		case w.err != nil && !errors.Is(w.err, errHeld):
			return w.err
		}
		if err := pause(ctx, awaitEvery); err != nil {
			return err
		}
	}
}
