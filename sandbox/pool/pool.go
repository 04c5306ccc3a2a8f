package pool

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// ErrClosed is what methods return once Close or Shutdown was called. What they had
// begun is finished, or undone, by the next Pool that is opened on the Store.
var ErrClosed = errors.New("the pool is closed")

// Pool is the sandboxes of many owners. Open opens one. Its methods are safe for
// concurrent use. Errors say what was to be done, and match the provider's, the
// Store's, a hook's, or the ones named here.
type Pool struct {
	opts   *Options
	holder string   // what this process is called in leases
	spares []string // the kind of each of opts.Spares

	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	wake   chan struct{} // the records are to be looked at
	slots  chan struct{} // as many works as the background may have

	mu        sync.Mutex
	closing   bool
	works     map[string]*work   // by key, as the three that follow
	failed    map[string]failure // those to be tried again
	uses      map[string]*use
	abandoned map[string]string  // the owner of those that the Store could not be told of
	handles   map[string]*handle // by the provider's id
}

// failure is work that is tried again later.
type failure struct {
	times int
	again time.Time
}

// Open opens a pool, and takes over in the background what an earlier one left. The
// caller closes it.
func Open(ctx context.Context, opts *Options) (*Pool, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("pool: open: %w", err)
	}
	p := &Pool{
		opts: o, holder: rand.Text(), wake: make(chan struct{}, 1), slots: make(chan struct{}, maxAtOnce),
		works: map[string]*work{}, failed: map[string]failure{}, uses: map[string]*use{},
		abandoned: map[string]string{}, handles: map[string]*handle{},
	}
	for _, s := range o.Spares {
		k, err := kind(s.Config)
		if err != nil {
			return nil, fmt.Errorf("pool: open: %w", err)
		}
		p.spares = append(p.spares, k)
	}
	if _, err := o.Store.Records(ctx, Query{Pool: o.Name, Live: true}); err != nil {
		return nil, fmt.Errorf("pool: open: %w", err)
	}
	p.ctx, p.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	p.wg.Go(p.watch)
	p.wg.Go(p.renewUses)
	return p, nil
}

// Shutdown waits for what is under way, such as saving, to be done, and then closes the
// pool. Nothing is begun meanwhile. When ctx ends first it returns its error, after
// closing too.
func (p *Pool) Shutdown(ctx context.Context) error {
	p.mu.Lock()
	p.closing = true
	var under []*work
	for _, w := range p.works {
		under = append(under, w)
	}
	p.mu.Unlock()
	var err error
	for _, w := range under {
		select {
		case <-w.done:
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		break
	}
	return errors.Join(err, p.Close())
}

// Close lets go of the sandboxes, which go on. What is under way is interrupted, and
// taken up by another process at once, or by the next Open. It is safe to call again.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	p.cancel(ErrClosed)
	p.wg.Wait()
	return p.closeHandles()
}

// Get finds a sandbox of an owner, also one that is terminated, as long as its record is
// kept. Without one, and for another owner's, it matches sandbox.ErrNotFound.
func (p *Pool) Get(ctx context.Context, owner, id string) (*Sandbox, error) {
	r, err := p.find(ctx, owner, id)
	if err != nil {
		return nil, fmt.Errorf("pool: sandbox %q: %w", id, err)
	}
	return p.sandbox(r), nil
}

func (p *Pool) find(ctx context.Context, owner, id string) (*Record, error) {
	if owner == "" || id == "" {
		return nil, sandbox.ErrNotFound
	}
	list, err := p.opts.Store.Records(ctx, Query{Pool: p.opts.Name, Owner: owner, ID: id})
	if err == nil && len(list) == 0 {
		err = sandbox.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// List gives the records of an owner's sandboxes, the terminated ones that are still
// kept among them: newest first.
func (p *Pool) List(ctx context.Context, owner string) ([]*Record, error) {
	if owner == "" {
		return nil, nil
	}
	list, err := p.opts.Store.Records(ctx, Query{Pool: p.opts.Name, Owner: owner})
	if err != nil {
		return nil, fmt.Errorf("pool: list: %w", err)
	}
	return list, nil
}

// watch has work begun on the sandboxes that need it, when they do.
func (p *Pool) watch() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var swept time.Time
	for {
		select {
		case <-timer.C:
		case <-p.wake:
		case <-p.ctx.Done():
			return
		}
		if swept.IsZero() || time.Since(swept) >= p.opts.Sweep {
			swept = time.Now()
			p.sweep(p.ctx)
		}
		timer.Reset(time.Until(p.pass(p.ctx)))
	}
}

// wakeUp has the records looked at.
func (p *Pool) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// pass looks at every record, and gives when to do so again.
func (p *Pool) pass(ctx context.Context) time.Time {
	again := now().Add(p.opts.Interval)
	p.tellAbandoned(ctx)
	recs, err := p.opts.Store.Records(ctx, Query{Pool: p.opts.Name, Live: true})
	if err != nil {
		p.warn("cannot read the records", "", err)
		return again
	}
	for _, r := range recs {
		at := p.look(r)
		if !at.IsZero() && at.Before(again) {
			again = at
		}
	}
	if err := p.restock(recs); err != nil {
		p.warn("cannot make spares", "", err)
	}
	return again
}

// look begins the work that a sandbox needs, and gives when it is to be looked at again.
func (p *Pool) look(r *Record) time.Time {
	at := now()
	do, due := p.next(r, at)
	switch failed := p.failure(r.Key); {
	case do == nil:
		return due
	case p.working(r.Key):
		return time.Time{} // its end has this looked at again
	case r.Lease.heldByOther(p.holder, at):
		return r.Lease.Until
	case failed.again.After(at):
		return failed.again
	}
	select {
	case p.slots <- struct{}{}:
	default:
		return time.Time{} // as above
	}
	w, err := p.begin(r.Key, nil)
	if err != nil {
		<-p.slots
		return time.Time{}
	}
	p.wg.Go(func() {
		<-w.done
		<-p.slots
		if w.err != nil && !errors.Is(w.err, errHeld) && !errors.Is(w.err, errForgotten) {
			p.warn("work on a sandbox failed; it is tried again", r.ID, w.err)
		}
		p.wakeUp()
	})
	return time.Time{}
}

// closed reports whether Close or Shutdown was called.
func (p *Pool) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closing
}

func (p *Pool) working(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.works[key] != nil
}

func (p *Pool) failure(key string) failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed[key]
}

// warn logs what is tried again, unless the pool is being closed.
func (p *Pool) warn(what, id string, err error) {
	if p.ctx.Err() == nil {
		p.opts.Log.Warn("pool: "+what, "sandbox", id, "error", err)
	}
}
