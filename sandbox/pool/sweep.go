package pool

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// sweep brings the records and what the provider has in line, and forgets what ended
// long ago.
func (p *Pool) sweep(ctx context.Context) {
	for what, err := range map[string]error{
		"cannot ask the provider what there is": p.compare(ctx),
		"cannot forget what ended long ago":     p.prune(ctx),
	} {
		if err != nil {
			p.warn(what, "", err)
		}
	}
}

// compare ends what no record owns, and has recorded what ended by itself. The records
// are read before the provider is asked for the latter, and after it for the former,
// since a record is there before its sandbox is, and longer.
func (p *Pool) compare(ctx context.Context) error {
	before, err := p.opts.Store.Records(ctx, Query{Pool: p.opts.Name, Live: true})
	if err != nil {
		return err
	}
	byKey := map[string]*Record{}
	for _, r := range before {
		byKey[r.Key] = r
	}
	running, errs := map[string]bool{}, []error(nil)
	opts := &sandbox.ListOptions{Tags: map[string]string{TagPool: p.opts.Name}}
	for info, err := range p.opts.Provider.List(ctx, opts) {
		if err != nil {
			return err
		}
		running[info.ID] = true
		errs = append(errs, p.claimOrEnd(ctx, info, byKey))
	}
	p.forgetUses(before)
	p.forgetHandles(before, running)
	for _, r := range before {
		if r.State == StateRunning && r.Box.ID != "" && !running[r.Box.ID] {
			errs = append(errs, p.checkLoss(ctx, r))
		}
	}
	return errors.Join(errs...)
}

// claimOrEnd ends a sandbox of the provider that no record owns, whoever made it. It has
// to be some time old, since the provider's answer and a Store's replica may be.
func (p *Pool) claimOrEnd(ctx context.Context, info *sandbox.Info, byKey map[string]*Record) error {
	name := info.Tags[TagBox]
	key := name[:max(strings.LastIndexByte(name, '-'), 0)]
	if r := byKey[key]; r != nil && r.owns(name, info.ID) {
		return nil
	}
	r, err := p.opts.Store.Record(ctx, p.opts.Name, key)
	switch {
	case err != nil && !errors.Is(err, sandbox.ErrNotFound):
		return err
	case err == nil && r.owns(name, info.ID):
		return nil
	case time.Since(info.CreatedAt) < minOrphanAge:
		return nil
	}
	p.opts.Log.Info("pool: ending a sandbox that no record owns", "provider_id", info.ID, "name", name)
	return p.endBox(ctx, Box{Name: name, ID: info.ID})
}

// checkLoss has it recorded that a sandbox ended which the provider did not list, if an
// attempt to attach to it says so too.
func (p *Pool) checkLoss(ctx context.Context, r *Record) error {
	if !p.hasEnded(ctx, r.Box.ID) {
		return nil
	}
	return p.recordLoss(ctx, r)
}

// prune forgets what ended long ago.
func (p *Pool) prune(ctx context.Context) error {
	old, err := p.opts.Store.Records(ctx, Query{Pool: p.opts.Name, EndedBefore: now().Add(-p.opts.Keep)})
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range old {
		if err := p.opts.Store.Delete(ctx, r); err != nil && !errors.Is(err, ErrConflict) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
