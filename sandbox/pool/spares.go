package pool

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// claim gives a spare to the owner of r, nil where none fits. That is one change of the
// spare's record: nothing is asked of the provider, unless there is something to fill in.
func (p *Pool) claim(ctx context.Context, r *Record, config *sandbox.Config) (*Sandbox, error) {
	if _, secret := config.WithoutSecrets(); secret || len(p.spares) == 0 {
		return nil, nil
	}
	k, err := kind(config)
	if err != nil {
		return nil, err
	}
	list, err := p.opts.Store.Records(ctx, Query{Pool: p.opts.Name, Spare: k, Live: true})
	if err != nil {
		return nil, err
	}
	defer p.wakeUp() // for another spare
	// In any order, so that those who claim at once do not all claim the same one.
	for _, i := range rand.Perm(len(list)) {
		if !p.fits(list[i], r) {
			continue
		}
		s, err := p.claimOne(ctx, list[i], r)
		if !errors.Is(err, ErrConflict) {
			return s, err
		}
	}
	return nil, nil
}

func (p *Pool) claimOne(ctx context.Context, spare, r *Record) (*Sandbox, error) {
	claimed := *r
	claimed.Key, claimed.Revision, claimed.Box, claimed.Boxes = spare.Key, spare.Revision, spare.Box, spare.Boxes
	if r.ID == r.Key {
		claimed.ID = spare.ID
	}
	if p.opts.Fill != nil {
		return p.await(ctx, &claimed, nil)
	}
	claimed.State, claimed.Lease = StateRunning, Lease{}
	err := p.opts.Store.Save(ctx, &claimed)
	switch {
	case err == nil:
		return p.sandbox(&claimed), nil
	case errors.Is(err, ErrConflict) || errors.Is(err, fs.ErrExist):
		return nil, err
	}
	return nil, errors.Join(err, p.undo(ctx, &claimed)) // it may have been made
}

// fits reports whether a spare lives long enough to be claimed.
func (p *Pool) fits(spare, r *Record) bool {
	return spare.State == StateRunning && !spare.Lease.heldByOther("", r.CreatedAt) &&
		(p.opts.Cap > 0 && spare.Box.ExpiresAt.After(r.CreatedAt.Add(p.opts.Ahead)) ||
			!spare.Box.ExpiresAt.Before(r.ExpiresAt.Add(p.opts.Grace)))
}

// restock makes the spares that are missing.
func (p *Pool) restock(live []*Record) error {
	have := map[string]int{}
	soon := now().Add(min(spareLead, p.opts.SpareAge/4)) // its successor is to be ready before it ends
	for _, r := range live {
		if r.Spare != "" && r.State != StateStopping && r.ExpiresAt.After(soon) {
			have[r.Spare]++
		}
	}
	for i, s := range p.opts.Spares {
		for p.failure(p.spares[i]).again.Before(now()) && have[p.spares[i]] < s.N {
			have[p.spares[i]]++
			if err := p.makeSpare(p.spares[i], s.Config); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeSpare begins to make one; how it went is seen at the next pass.
func (p *Pool) makeSpare(k string, config *sandbox.Config) error {
	select {
	case p.slots <- struct{}{}:
	default:
		return nil
	}
	r, _ := p.blank(config)
	r.Spare, r.ExpiresAt = k, r.CreatedAt.Add(p.opts.SpareAge)
	r.Box = r.nextBox(r.CreatedAt.Add(p.boxTime(r, r.CreatedAt)))
	w, err := p.begin(r.Key, func(w *work) {
		w.fresh, w.rec = true, r
		w.intend = func() error { return p.opts.Store.Save(w.ctx, r) }
	})
	if err != nil {
		<-p.slots
		return err
	}
	<-w.begun // so that the next pass counts it
	p.wg.Go(func() {
		<-w.done
		<-p.slots
		p.noteSpare(k, errors.Join(w.unintended, w.refused, w.err))
	})
	return nil
}

// noteSpare has a kind of spares wait that cannot be made.
func (p *Pool) noteSpare(k string, err error) {
	if err != nil {
		p.warn("cannot make a spare; it is tried again", "", err)
	}
	p.mu.Lock()
	if err == nil {
		delete(p.failed, k)
	} else {
		f := p.failed[k]
		p.failed[k] = failure{times: f.times + 1, again: time.Now().Add(backoff(f.times))}
	}
	p.mu.Unlock()
	p.wakeUp()
}
