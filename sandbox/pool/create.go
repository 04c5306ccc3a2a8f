package pool

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Create makes a sandbox for an owner, or gives it a spare, and returns when it can be
// used: filled, where there is Options.Fill. A nil config is the zero one. What the
// provider refuses for the moment is tried again some times.
//
// When it fails nothing is left behind, or is about to be: as long as the Store or the
// provider do not answer, the pool goes on trying to end what there may be. Only after
// ErrClosed, and after a crash, is a sandbox that was being made taken over: it is as
// if Create had succeeded. That it was made is seen by its Config.ID.
func (p *Pool) Create(ctx context.Context, owner string, config *Config) (*Sandbox, error) {
	s, err := p.create(ctx, owner, config)
	if err != nil {
		return nil, fmt.Errorf("pool: create: %w", err)
	}
	return s, nil
}

func (p *Pool) create(ctx context.Context, owner string, config *Config) (*Sandbox, error) {
	if config == nil {
		config = &Config{}
	}
	if p.closed() {
		return nil, ErrClosed
	}
	r, err := p.newRecord(owner, config)
	if err != nil {
		return nil, err
	}
	if p.opts.Admit != nil {
		if err := p.opts.Admit(ctx, r); err != nil {
			return nil, err
		}
	}
	s, err := p.claim(ctx, r, config.Sandbox)
	if s != nil || err != nil {
		return s, err
	}
	return p.await(ctx, r, config.Sandbox)
}

// newRecord is the intent.
func (p *Pool) newRecord(owner string, config *Config) (*Record, error) {
	switch {
	case owner == "" || len(owner) > maxNameBytes:
		return nil, fmt.Errorf("%w: the owner %q: use 1 to %d bytes", sandbox.ErrInvalid, owner, maxNameBytes)
	case len(config.ID) > maxNameBytes:
		return nil, fmt.Errorf("%w: ID: use up to %d bytes", sandbox.ErrInvalid, maxNameBytes)
	}
	if err := checkConfig(config.Sandbox); err != nil {
		return nil, err
	}
	r, secret := p.blank(config.Sandbox)
	if p.opts.Cap > 0 && p.opts.Configure == nil && secret {
		return nil, fmt.Errorf("%w: Sandbox has secrets, which a successor could not be given: set Options.Configure", sandbox.ErrInvalid)
	}
	r.Owner, r.Labels = owner, config.Labels
	if config.ID != "" {
		r.ID = config.ID
	}
	if r.Config.Timeout == 0 {
		r.Config.Timeout = p.opts.Lifetime
	}
	if r.Config.IdleTimeout == 0 {
		r.Config.IdleTimeout = p.opts.Idle
	}
	r.ExpiresAt = r.CreatedAt.Add(r.Config.Timeout)
	r.Box = r.nextBox(r.CreatedAt.Add(p.boxTime(r, r.CreatedAt)))
	return r, nil
}

// blank is a record of what is to be made, by this process. secret says that there is more
// to it than the record has.
func (p *Pool) blank(config *sandbox.Config) (r *Record, secret bool) {
	at, key := now(), "sb-"+strings.ToLower(rand.Text())
	bare, secret := config.WithoutSecrets()
	return &Record{
		Pool: p.opts.Name, Key: key, ID: key, State: StateCreating, Config: bare,
		CreatedAt: at, ActiveAt: at, Lease: p.lease(),
	}, secret
}

// await saves the intent, and waits for what is made of it. The work is there before the
// record is, so that nobody here takes it for one that was left behind.
func (p *Pool) await(ctx context.Context, r *Record, config *sandbox.Config) (*Sandbox, error) {
	mine := false
	w, err := p.begin(r.Key, func(w *work) {
		mine, w.fresh, w.rec, w.config = true, true, r, config
		w.intend = func() error { return p.opts.Store.Save(ctx, r) }
	})
	if err != nil {
		return nil, err
	}
	if !mine {
		return nil, ErrConflict // a spare that is being ended
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		<-w.begun // there is nothing to undo before; saving has ended with ctx
		return nil, errors.Join(context.Cause(ctx), p.undo(ctx, r))
	}
	return p.outcome(ctx, w)
}

// outcome is what became of an intent.
func (p *Pool) outcome(ctx context.Context, w *work) (*Sandbox, error) {
	err := errors.Join(w.unintended, w.err)
	switch {
	case w.refused != nil && err == nil:
		return nil, w.refused
	case errors.Is(w.unintended, ErrConflict) || errors.Is(w.unintended, fs.ErrExist):
		return nil, w.unintended
	case err != nil && p.ctx.Err() != nil:
		return nil, ErrClosed
	case err != nil:
		return nil, errors.Join(w.refused, err, p.undo(ctx, w.rec))
	case w.rec.State != StateRunning:
		return nil, fmt.Errorf("%w: it was terminated while it was being made", sandbox.ErrEnded)
	}
	return p.sandbox(w.rec), nil
}
