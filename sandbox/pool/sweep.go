package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Sweep brings the records and what the provider has in line at once, as is done every
// Options.Sweep anyway: what ended by itself is recorded, and what has no record is adopted
// or, once it is a minute old, ended.
func (p *Pool) Sweep(ctx context.Context) error {
	if p.closed() {
		return fmt.Errorf("pool: sweep: %w", ErrClosed)
	}
	if err := p.compare(ctx); err != nil {
		return fmt.Errorf("pool: sweep: %w", err)
	}
	return nil
}

// sweep does that, and forgets what ended long ago.
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
			if err := p.checkLoss(ctx, r); err != nil {
				p.warn("cannot tell whether a sandbox has ended", r.ID, err)
			}
		}
	}
	return errors.Join(errs...)
}

// claimOrEnd adopts a sandbox of the provider that has no record, or ends it, whoever made
// it. For that it has to be some time old, since the provider's answer and a Store's
// replica may be.
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
	case err != nil:
		if adopted, err := p.adoptBox(ctx, key, info); adopted || err != nil {
			return err
		}
	}
	if time.Since(info.CreatedAt) < minOrphanAge {
		return nil
	}
	p.opts.Log.Info("pool: ending a sandbox that no record owns", "provider_id", info.ID, "name", name)
	if err := p.endBox(ctx, Box{Name: name, ID: info.ID}); err != nil {
		p.warn("cannot end a sandbox that no record owns", info.ID, err)
	}
	return nil
}

// adoptBox makes a record of a sandbox that has none, if it is somebody's. Where a sweep of
// another process was first, or a record was just made, that counts.
func (p *Pool) adoptBox(ctx context.Context, key string, info *sandbox.Info) (adopted bool, err error) {
	if p.opts.Adopt == nil || key == "" || p.hasEnded(ctx, info.ID) { // the provider's answer may be old
		return false, nil
	}
	owner, config, err := p.opts.Adopt(ctx, info)
	if err != nil || owner == "" {
		return false, err
	}
	if config == nil {
		config = &Config{}
	}
	r := p.found(key, info, config)
	r.Owner = owner
	err = p.opts.Store.Save(ctx, r)
	switch {
	case errors.Is(err, fs.ErrExist):
		return false, nil // its owner has another by that ID
	case errors.Is(err, ErrConflict):
		return true, nil
	case err == nil:
		p.opts.Log.Info("pool: adopted a sandbox whose record was lost", "sandbox", r.ID, "provider_id", info.ID)
		p.wakeUp()
	}
	return err == nil, err
}

// found is the record of a sandbox as far as it can be told. It was made with the time
// that boxTime gives, so that tells its own.
func (p *Pool) found(key string, info *sandbox.Info, config *Config) *Record {
	name := info.Tags[TagBox]
	bare, _ := config.Sandbox.WithoutSecrets()
	r := &Record{
		Pool: p.opts.Name, Key: key, ID: cmp.Or(config.ID, key), Labels: config.Labels, Config: bare,
		State: StateRunning, CreatedAt: info.CreatedAt.UTC(), ActiveAt: now(),
		Box: Box{Name: name, ID: info.ID, ExpiresAt: info.ExpiresAt.UTC()},
	}
	r.Boxes, _ = strconv.Atoi(name[len(key)+1:]) // 0 where somebody else gave the name
	r.Config.Timeout = cmp.Or(r.Config.Timeout, p.opts.Lifetime)
	r.Config.IdleTimeout = cmp.Or(r.Config.IdleTimeout, p.opts.Idle)
	if left := info.ExpiresAt.Sub(info.CreatedAt) - p.opts.Grace - p.opts.SaveWithin; (p.opts.Cap == 0 || left+p.opts.Grace+p.opts.SaveWithin < p.opts.Cap) && left > 0 {
		r.Config.Timeout = left
	}
	r.ExpiresAt = r.CreatedAt.Add(r.Config.Timeout)
	return r
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
