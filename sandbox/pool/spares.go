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
// spare's record: nothing is asked of the provider.
func (p *Pool) claim(ctx context.Context, r *Record, config *sandbox.Config) (*Record, error) {
	if len(p.spares) == 0 || config != nil && hasSecrets(config) {
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
	// In any order, so that those who claim at once do not all claim the same one.
	for _, i := range rand.Perm(len(list)) {
		spare := list[i]
		if !p.fits(spare, r) {
			continue
		}
		claimed := *r
		claimed.Key, claimed.Revision, claimed.Box, claimed.Boxes = spare.Key, spare.Revision, spare.Box, spare.Boxes
		if r.ID == r.Key {
			claimed.ID = spare.ID
		}
		if p.opts.Fill == nil {
			claimed.State, claimed.Lease = StateRunning, Lease{}
		}
		err := p.opts.Store.Save(ctx, &claimed)
		if err == nil {
			return &claimed, nil
		}
		if !errors.Is(err, ErrConflict) {
			p.abandonClaim(ctx, spare.Key, claimed.Owner, err)
			return nil, err
		}
	}
	return nil, nil
}

// fits reports whether a spare lives long enough to be claimed.
func (p *Pool) fits(spare, r *Record) bool {
	return spare.State == StateRunning && !spare.Lease.heldByOther("", r.CreatedAt) &&
		(p.opts.Cap > 0 && spare.Box.ExpiresAt.After(r.CreatedAt.Add(p.opts.Ahead)) ||
			!spare.Box.ExpiresAt.Before(r.ExpiresAt.Add(p.opts.Grace)))
}

// abandonClaim undoes a claim that may have been made although the Store did not say so.
func (p *Pool) abandonClaim(ctx context.Context, key, owner string, err error) {
	if errors.Is(err, fs.ErrExist) {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer stop()
	_ = p.abandon(ctx, key, owner) // it is tried again
}

// restock makes the spares that are missing.
func (p *Pool) restock(ctx context.Context, live []*Record) error {
	have := map[string]int{}
	for _, r := range live {
		if r.Spare != "" && r.State != StateStopping {
			have[r.Spare]++
		}
	}
	for i, s := range p.opts.Spares {
		for p.failure(p.spares[i]).again.Before(now()) && have[p.spares[i]] < s.N {
			have[p.spares[i]]++
			if err := p.makeSpare(ctx, p.spares[i], s.Config); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeSpare begins to make one; how it went is seen at the next pass.
func (p *Pool) makeSpare(ctx context.Context, k string, config *sandbox.Config) error {
	select {
	case p.slots <- struct{}{}:
	default:
		return nil
	}
	r := p.blank(config)
	r.Spare, r.ExpiresAt = k, r.CreatedAt.Add(p.opts.SpareAge)
	r.Box = r.nextBox(r.CreatedAt.Add(p.boxTime(r, r.CreatedAt)))
	err := p.opts.Store.Save(ctx, r)
	var w *work
	if err == nil {
		w, err = p.begin(r.Key, func(w *work) { w.fresh, w.rec = true, r })
	}
	if err != nil {
		<-p.slots
		return err
	}
	p.wg.Go(func() {
		<-w.done
		<-p.slots
		p.noteSpare(k, errors.Join(w.refused, w.err))
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
