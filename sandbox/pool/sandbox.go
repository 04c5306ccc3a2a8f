package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Sandbox is an owner's sandbox. It holds nothing, so it is not closed, and is as
// good after another sandbox of the provider took over. Its methods are safe for
// concurrent use.
type Sandbox struct {
	p              *Pool
	key, owner, id string
}

func (p *Pool) sandbox(r *Record) *Sandbox {
	return &Sandbox{p: p, key: r.Key, owner: r.Owner, id: r.ID}
}

// ID is what Pool.Get takes.
func (s *Sandbox) ID() string { return s.id }

// Owner is whose it is.
func (s *Sandbox) Owner() string { return s.owner }

// String is "sandbox" and the ID.
func (s *Sandbox) String() string { return "sandbox " + s.id }

// Record gives what is known of it now. Once the record was deleted it matches
// sandbox.ErrNotFound.
func (s *Sandbox) Record(ctx context.Context) (*Record, error) {
	r, err := s.p.opts.Store.Record(ctx, s.p.opts.Name, s.key)
	if err == nil && r.Owner != s.owner {
		err = sandbox.ErrNotFound
	}
	if err != nil {
		return nil, s.wrap(err)
	}
	return r, nil
}

// Check asks the provider how the sandbox is, and gives what is known of it then. info is
// nil unless it is running. One that has ended by itself, which a sweep sees later at the
// latest, is recorded so before Check returns. Check does not count as use.
func (s *Sandbox) Check(ctx context.Context) (r *Record, info *sandbox.Info, err error) {
	if r, err = s.Record(ctx); err != nil || r.State != StateRunning {
		return r, nil, err
	}
	if info, err = s.p.info(ctx, r.Box.ID); err == nil {
		return r, info, nil
	}
	if gone(err) {
		err = s.p.recordLoss(ctx, r)
	}
	if err != nil {
		return nil, nil, s.wrap(err)
	}
	if r, err = s.Record(ctx); err != nil || r.State != StateStopping || !r.Stop.Unsaved {
		return r, nil, err
	}
	if err := s.p.finish(ctx, s.key); err != nil {
		return nil, nil, s.wrap(err)
	}
	r, err = s.Record(ctx)
	return r, nil, err
}

// info asks the provider. That a sandbox has ended is an error.
func (p *Pool) info(ctx context.Context, id string) (*sandbox.Info, error) {
	h, err := p.hold(ctx, id)
	if err != nil {
		return nil, err
	}
	defer p.drop(h)
	info, err := h.sb.Info(ctx)
	if err == nil && info.State == sandbox.StateEnded {
		err = sandbox.ErrEnded
	}
	return info, err
}

// Terminate is Pool.Terminate.
func (s *Sandbox) Terminate(ctx context.Context, opts *TerminateOptions) error {
	return s.p.Terminate(ctx, s.owner, s.id, opts)
}

func (s *Sandbox) wrap(err error) error { return fmt.Errorf("pool: sandbox %q: %w", s.id, err) }

// TerminateOptions are for Pool.Terminate. The zero value, and nil, save the workspace first.
type TerminateOptions struct {
	// Unsaved gives the workspace up, also where another Terminate is saving it.
	Unsaved bool
	// Reason is why. "" is sandbox.EndCancelled.
	Reason sandbox.End
}

// SaveError is a workspace that could not be saved. The sandbox goes on. Reach it with
// errors.As.
type SaveError struct {
	ID  string
	Err error // Options.Save's
}

func (e *SaveError) Error() string {
	return "the workspace of sandbox " + e.ID + " could not be saved, and the sandbox is kept: " + e.Err.Error()
}

// Unwrap gives Err.
func (e *SaveError) Unwrap() error { return e.Err }

// Terminate saves the workspace, ends an owner's sandbox, and returns when that is done.
// One that is terminated already is no error. When the workspace cannot be saved it is a
// *SaveError, and the sandbox is running as before. After another error, and when ctx ends
// first, the pool goes on trying.
func (p *Pool) Terminate(ctx context.Context, owner, id string, opts *TerminateOptions) error {
	if opts == nil {
		opts = &TerminateOptions{}
	}
	if err := p.terminate(ctx, owner, id, opts); err != nil {
		return fmt.Errorf("pool: terminate sandbox %q: %w", id, err)
	}
	return nil
}

func (p *Pool) terminate(ctx context.Context, owner, id string, opts *TerminateOptions) error {
	r, err := p.find(ctx, owner, id)
	if err != nil {
		return err
	}
	r, err = p.change(ctx, r.Key, func(r *Record) error {
		switch r.State {
		case StateTerminated:
			return errSame
		case StateStopping:
			if !opts.Unsaved || r.Stop.Unsaved {
				return errSame
			}
			r.Stop.Unsaved = true
			return nil
		}
		made := r.State == StateRunning
		r.stop(cmp.Or(opts.Reason, sandbox.EndCancelled),
			Stop{Until: now().Add(p.opts.SaveWithin), Keep: made, Unsaved: opts.Unsaved || !made})
		return nil
	})
	switch {
	case errors.Is(err, sandbox.ErrNotFound):
		return nil // it was forgotten meanwhile
	case err != nil:
		return err
	case r.State == StateTerminated:
		return nil
	}
	return p.finish(ctx, r.Key)
}

// until returns nil once ready is, asking for the record as it is then.
func (p *Pool) until(ctx context.Context, key string, ready func(*Record) error) error {
	tick := time.NewTicker(awaitEvery)
	defer tick.Stop()
	for {
		p.mu.Lock()
		var done chan struct{}
		if w := p.works[key]; w != nil {
			done = w.done
		}
		p.mu.Unlock()
		r, err := p.opts.Store.Record(ctx, p.opts.Name, key)
		if err != nil {
			return err
		}
		if err := ready(r); err != errWait {
			return err
		}
		select {
		case <-done: // never, where nobody here is at work
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.ctx.Done():
			return ErrClosed
		}
	}
}

// errWait is returned for a record that will be ready.
var errWait = errors.New("it will be ready")

// usable says whether a sandbox can be used.
func (r *Record) usable() error {
	switch {
	case r.State == StateStopping || r.State == StateTerminated:
		return fmt.Errorf("%w (%s)", sandbox.ErrEnded, r.End)
	case r.State == StateCreating || r.Rollover != nil:
		return errWait
	}
	return nil
}
