package pool

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// use is a sandbox that is in use in this process.
type use struct {
	turn  chan struct{} // held while the record is changed
	users int           // guarded by turn, as is told
	told  time.Time     // until when the record says that it is in use
}

// Use gives the sandbox to work with, and keeps it from being idle and from being rolled
// over until release is called: a turn that runs holds one, and so does a question that
// waits for its answer. It may be held any number of times at once. While the sandbox is
// being made, or a successor is taking over, Use waits.
//
// The *sandbox.Sandbox is the pool's: it is not closed by the caller, and not used after
// release. Its methods match sandbox.ErrEnded when it ended meanwhile, at the end of its
// lifetime or because a rollover could wait no longer; then Use gives the next one. A
// sandbox that is stopping or terminated makes Use match sandbox.ErrEnded.
//
// release may be called more than once.
func (s *Sandbox) Use(ctx context.Context) (sb *sandbox.Sandbox, release func(), err error) {
	for {
		h, err := s.p.use(ctx, s)
		if err == nil {
			var once sync.Once
			return h.sb, func() { once.Do(func() { s.p.release(s.key, h) }) }, nil
		}
		if !errors.Is(err, errWait) {
			return nil, nil, s.wrap(err)
		}
		if err := s.p.until(ctx, s.key, (*Record).usable); err != nil {
			return nil, nil, s.wrap(err)
		}
	}
}

// Sandbox gives the sandbox for a look that does not count as use: it may end, and be
// closed, at any time. It is not closed by the caller. Otherwise it is Use.
func (s *Sandbox) Sandbox(ctx context.Context) (*sandbox.Sandbox, error) {
	var r *Record
	err := s.p.until(ctx, s.key, func(now *Record) error {
		r = now
		return s.usable(now)
	})
	if err != nil {
		return nil, s.wrap(err)
	}
	h, err := s.p.hold(ctx, r.Box.ID)
	if err != nil {
		return nil, s.wrap(s.p.lost(ctx, r, err))
	}
	s.p.drop(h)
	return h.sb, nil
}

// usable is Record.usable for the owner.
func (s *Sandbox) usable(r *Record) error {
	if r.Owner != s.owner {
		return sandbox.ErrNotFound
	}
	return r.usable()
}

// useOf gives what is known of a sandbox here, with its turn taken.
func (p *Pool) useOf(ctx context.Context, key string) (*use, error) {
	for {
		p.mu.Lock()
		if p.closing {
			p.mu.Unlock()
			return nil, ErrClosed
		}
		u := p.uses[key]
		if u == nil {
			u = &use{turn: make(chan struct{}, 1)}
			p.uses[key] = u
		}
		p.mu.Unlock()
		select {
		case u.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		p.mu.Lock()
		known := p.uses[key] == u
		p.mu.Unlock()
		if known {
			return u, nil
		}
		<-u.turn // it was forgotten meanwhile
	}
}

func (p *Pool) use(ctx context.Context, s *Sandbox) (*handle, error) {
	u, err := p.useOf(ctx, s.key)
	if err != nil {
		return nil, err
	}
	defer func() { <-u.turn }()
	r, err := p.markUsed(ctx, s, u)
	if err != nil {
		return nil, err
	}
	h, err := p.hold(ctx, r.Box.ID)
	if err != nil {
		p.unmark(ctx, s.key, u)
		return nil, p.lost(ctx, r, err)
	}
	u.users++
	return h, nil
}

// markUsed has the record say that the sandbox is in use, if it does not. The caller
// has the turn.
func (p *Pool) markUsed(ctx context.Context, s *Sandbox, u *use) (*Record, error) {
	var until time.Time
	r, err := p.change(ctx, s.key, func(r *Record) error {
		if err := s.usable(r); err != nil {
			return err
		}
		at := now()
		if u.users > 0 && u.told.After(at) {
			return errSame
		}
		until = at.Add(p.opts.Lease)
		r.use(p.holder, at, until)
		return nil
	})
	if err == nil && !until.IsZero() {
		u.told = until
	}
	return r, err
}

// unmark has the record say that the sandbox is no longer in use here. When the Store
// does not take that, the use runs out.
func (p *Pool) unmark(ctx context.Context, key string, u *use) {
	if u.users > 0 {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer stop()
	_, err := p.change(ctx, key, func(r *Record) error {
		r.use(p.holder, now(), time.Time{})
		return nil
	})
	if err != nil && !errors.Is(err, sandbox.ErrNotFound) {
		p.warn("cannot record that a sandbox is no longer in use", key, err)
	}
	u.told = time.Time{}
}

func (p *Pool) release(key string, h *handle) {
	defer p.drop(h)
	p.mu.Lock()
	u := p.uses[key]
	p.mu.Unlock()
	u.turn <- struct{}{}
	defer func() { <-u.turn }()
	u.users--
	if p.ctx.Err() == nil {
		p.unmark(p.ctx, key, u)
	}
}

// renewUses has the records say as long as it is so that sandboxes are in use here.
func (p *Pool) renewUses() {
	tick := time.NewTicker(p.opts.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
		p.mu.Lock()
		keys := make([]string, 0, len(p.uses))
		for key := range p.uses {
			keys = append(keys, key)
		}
		p.mu.Unlock()
		for _, key := range keys {
			p.renewUse(key)
		}
	}
}

func (p *Pool) renewUse(key string) {
	p.mu.Lock()
	u := p.uses[key]
	p.mu.Unlock()
	if u == nil {
		return
	}
	u.turn <- struct{}{}
	defer func() { <-u.turn }()
	if u.users == 0 {
		return
	}
	until := now().Add(p.opts.Lease)
	_, err := p.change(p.ctx, key, func(r *Record) error {
		if !r.live() {
			return errSame
		}
		r.use(p.holder, now(), until)
		return nil
	})
	if err != nil {
		p.warn("cannot record that a sandbox is in use", key, err)
		return
	}
	u.told = until
}

// forgetUses forgets the sandboxes that are no longer there.
func (p *Pool) forgetUses(live []*Record) {
	keep := map[string]bool{}
	for _, r := range live {
		keep[r.Key] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, u := range p.uses {
		if keep[key] {
			continue
		}
		select {
		case u.turn <- struct{}{}:
			if u.users == 0 {
				delete(p.uses, key)
			}
			<-u.turn
		default: // somebody is at it
		}
	}
}
