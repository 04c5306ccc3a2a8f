package pool

import (
	"context"
	"errors"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// handle is a handle on a sandbox of the provider that several use.
type handle struct {
	sb     *sandbox.Sandbox
	users  int
	ended  bool // closed by its last user
	closed bool
}

// hold gives a handle, attaching if need be. The caller drops it.
func (p *Pool) hold(ctx context.Context, id string) (*handle, error) {
	p.mu.Lock()
	if h := p.handles[id]; h != nil {
		h.users++
		p.mu.Unlock()
		return h, nil
	}
	p.mu.Unlock()
	if p.ctx.Err() != nil {
		return nil, ErrClosed
	}
	sb, err := p.attach(ctx, id)
	if err != nil {
		return nil, err
	}
	h, spare := p.adopt(sb)
	if spare != nil {
		_ = spare.Close() // another goroutine was first
	}
	return h, nil
}

func (p *Pool) attach(ctx context.Context, id string) (sb *sandbox.Sandbox, err error) {
	err = retry(ctx, transient, func(ctx context.Context) error {
		sb, err = p.opts.Provider.Attach(ctx, id)
		return err
	})
	return sb, err
}

// adopt takes a handle over for all who use the sandbox, or gives it back if they have
// one. The caller drops what it gets.
func (p *Pool) adopt(sb *sandbox.Sandbox) (h *handle, unused *sandbox.Sandbox) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.handles[sb.ID()]; h != nil {
		h.users++
		return h, sb
	}
	h = &handle{sb: sb, users: 1}
	p.handles[sb.ID()] = h
	return h, nil
}

// drop ends the use of a handle.
func (p *Pool) drop(h *handle) {
	p.mu.Lock()
	h.users--
	closing := h.ended && h.users == 0 && !h.closed
	h.closed = h.closed || closing
	p.mu.Unlock()
	if closing {
		_ = h.sb.Close() // the sandbox has ended
	}
}

// forget lets go of a sandbox that has ended, once nobody uses the handle any more.
func (p *Pool) forget(id string) {
	p.mu.Lock()
	h := p.handles[id]
	if h == nil {
		p.mu.Unlock()
		return
	}
	delete(p.handles, id)
	h.ended = true
	h.users++
	p.mu.Unlock()
	p.drop(h)
}

// forgetHandles lets go of the sandboxes that others ended.
func (p *Pool) forgetHandles(live []*Record, running map[string]bool) {
	known := map[string]bool{}
	for _, r := range live {
		known[r.Box.ID] = true
	}
	p.mu.Lock()
	var ended []string
	for id := range p.handles {
		if !known[id] && !running[id] {
			ended = append(ended, id)
		}
	}
	p.mu.Unlock()
	for _, id := range ended {
		p.forget(id)
	}
}

// closeHandles lets go of all, also of those in use.
func (p *Pool) closeHandles() error {
	p.mu.Lock()
	var open []*handle
	for _, h := range p.handles {
		if !h.closed {
			h.closed = true
			open = append(open, h)
		}
	}
	clear(p.handles)
	p.mu.Unlock()
	var errs []error
	for _, h := range open {
		errs = append(errs, h.sb.Close())
	}
	return errors.Join(errs...)
}

// gone reports whether an error says that there is no such sandbox any more.
func gone(err error) bool {
	return errors.Is(err, sandbox.ErrEnded) || errors.Is(err, sandbox.ErrNotFound)
}

// lost records that a sandbox which could not be attached to has ended by itself, if
// err says so, and gives the error for who wanted it.
func (p *Pool) lost(ctx context.Context, r *Record, err error) error {
	if !gone(err) {
		return err
	}
	return errors.Join(sandbox.ErrEnded, err, p.recordLoss(ctx, r))
}

// recordLoss has a sandbox of which the provider says that it has ended recorded so. One
// whose successor has what was saved goes on there.
func (p *Pool) recordLoss(ctx context.Context, r *Record) error {
	reason, at, err := p.reasonOf(ctx, r.Box)
	if err != nil {
		return err
	}
	_, err = p.change(ctx, r.Key, func(now *Record) error {
		if now.State != StateRunning || now.Box.ID != r.Box.ID || now.Rollover != nil && now.Rollover.Saved {
			return errSame
		}
		now.lost(reason, at)
		return nil
	})
	if err == nil {
		p.forget(r.Box.ID)
		p.wakeUp()
	}
	return err
}

// reasonOf asks how a sandbox ended, and when: zero where that is not known.
func (p *Pool) reasonOf(ctx context.Context, b Box) (sandbox.End, time.Time, error) {
	opts := &sandbox.ListOptions{Tags: map[string]string{TagPool: p.opts.Name, TagBox: b.Name}, Ended: true}
	for info, err := range p.opts.Provider.List(ctx, opts) {
		if err != nil {
			return "", zero, err
		}
		if info.ID == b.ID && info.End != "" {
			return info.End, info.EndedAt.UTC(), nil
		}
	}
	return sandbox.EndProviderLost, zero, nil
}
