package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// work is what this process does about one sandbox: the steps that its record needs,
// one after the other, while it holds the lease. Each step ends with a change of the
// record, and can be done again by who takes over from here.
type work struct {
	p      *Pool
	key    string
	fresh  bool            // somebody waits for it, and nobody was at it before
	config *sandbox.Config // with secrets, where Create gave some
	intend func() error    // saves the record, which is done first

	ctx    context.Context
	cancel context.CancelCauseFunc
	nudged chan struct{} // the record is to be looked at
	begun  chan struct{} // the record is saved, or will not be
	done   chan struct{}

	mu        sync.Mutex              // held while the record is changed
	rec       *Record                 // set by the goroutine that takes the steps only
	interrupt context.CancelCauseFunc // of the step

	// For those who wait, once done is closed.
	unintended error // why nothing was begun
	refused    error // why there is no sandbox, or why it was not ended
	err        error // why it could not go on; it is tried again
}

type step func(w *work, ctx context.Context) error

var (
	// errHeld: another process is at work.
	errHeld = errors.New("another process is at work on the sandbox")
	// errForgotten: there is no record any more.
	errForgotten = errors.New("the record was deleted")
	// errLost: it took over from this one.
	errLost = errors.New("another process has taken over the work on the sandbox")
	// errGoal: something else is to become of the sandbox now.
	errGoal = errors.New("the sandbox is to end")
	// errSame is returned by a change that has nothing to change.
	errSame = errors.New("nothing to change")
)

// change applies fn to a record as it is, and saves it, until nobody else was first.
func (p *Pool) change(ctx context.Context, key string, fn func(*Record) error) (*Record, error) {
	for {
		r, err := p.opts.Store.Record(ctx, p.opts.Name, key)
		if err != nil {
			return nil, err
		}
		switch err := fn(r); {
		case err == errSame:
			return r, nil
		case err != nil:
			return r, err
		}
		err = p.opts.Store.Save(ctx, r)
		if !errors.Is(err, ErrConflict) {
			return r, err
		}
	}
}

// begin gives the work on a sandbox, which goes on in the background. set, which may be
// nil, is called if it was not under way.
func (p *Pool) begin(key string, set func(*work)) (*work, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return nil, ErrClosed
	}
	if w := p.works[key]; w != nil {
		return w, nil
	}
	w := &work{p: p, key: key, nudged: make(chan struct{}, 1), begun: make(chan struct{}), done: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancelCause(p.ctx)
	if set != nil {
		set(w)
	}
	p.works[key] = w
	p.wg.Go(w.run)
	return w, nil
}

// nudge has the work look at the record at once.
func (w *work) nudge() {
	select {
	case w.nudged <- struct{}{}:
	default:
	}
}

func (w *work) run() {
	defer w.finish()
	if w.intend != nil {
		w.unintended = w.intend()
	}
	close(w.begun)
	if w.unintended != nil {
		return
	}
	if w.rec == nil {
		if w.err = w.acquire(); w.err != nil {
			return
		}
	}
	var renewing sync.WaitGroup
	renewing.Go(w.renew)
	for w.err == nil {
		do, _ := w.p.next(w.rec, now())
		if do == nil {
			break
		}
		w.err = w.take(do)
	}
	w.cancel(nil)
	renewing.Wait()
	w.letGo()
}

// finish says that it is over.
func (w *work) finish() {
	w.cancel(nil)
	w.p.mu.Lock()
	delete(w.p.works, w.key)
	if w.err == nil || errors.Is(w.err, errHeld) || errors.Is(w.err, errForgotten) {
		delete(w.p.failed, w.key)
	} else {
		f := w.p.failed[w.key]
		w.p.failed[w.key] = failure{times: f.times + 1, again: now().Add(backoff(f.times))}
	}
	w.p.mu.Unlock()
	close(w.done)
	w.p.wakeUp()
}

// acquire takes the lease.
func (w *work) acquire() error {
	rec, err := w.p.change(w.ctx, w.key, func(r *Record) error {
		if r.Lease.heldByOther(w.p.holder, now()) {
			return errHeld
		}
		r.Lease = w.p.lease()
		return nil
	})
	if errors.Is(err, sandbox.ErrNotFound) {
		return errForgotten
	}
	w.rec = rec
	return err
}

func (p *Pool) lease() Lease { return Lease{Holder: p.holder, Until: now().Add(p.opts.Lease)} }

// renew keeps the lease, and interrupts the step when something else is to be done.
func (w *work) renew() {
	tick := time.NewTicker(w.p.opts.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.nudged:
		case <-w.ctx.Done():
			return
		}
		w.renewOnce()
	}
}

func (w *work) renewOnce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.changeLocked(w.ctx, func(r *Record) error {
		r.Lease = w.p.lease()
		return nil
	})
	switch {
	case errors.Is(err, errGoal):
		if w.interrupt != nil {
			w.interrupt(errGoal)
		}
	case errors.Is(err, errLost) || errors.Is(err, sandbox.ErrNotFound):
		w.cancel(errLost)
	case err != nil && w.ctx.Err() == nil:
		w.p.opts.Log.Warn("pool: cannot renew a lease", "sandbox", w.rec.ID, "error", err)
	}
}

// update changes the record at the end of a step, unless another process has taken
// over, or something else is to be done.
func (w *work) update(ctx context.Context, fn func(*Record) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec, err := w.changeLocked(ctx, fn)
	if err == nil {
		w.rec = rec
	}
	return err
}

func (w *work) changeLocked(ctx context.Context, fn func(*Record) error) (*Record, error) {
	return w.p.change(ctx, w.key, func(r *Record) error {
		if r.Lease.Holder != w.p.holder {
			return errLost
		}
		if goal(r) != goal(w.rec) {
			return errGoal
		}
		return fn(r)
	})
}

// goal is what others may change while somebody is at work.
func goal(r *Record) string {
	unsaved := r.Stop != nil && r.Stop.Unsaved
	return fmt.Sprint(r.State, unsaved)
}

// take takes a step. When something else is to be done meanwhile, that is next.
func (w *work) take(do step) error {
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	w.mu.Lock()
	w.interrupt = cancel
	w.mu.Unlock()
	err := do(w, ctx)
	if !errors.Is(err, errGoal) && context.Cause(ctx) != errGoal {
		return err
	}
	return w.reload()
}

func (w *work) reload() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec, err := w.p.opts.Store.Record(w.ctx, w.p.opts.Name, w.key)
	if err != nil {
		return err
	}
	if rec.Lease.Holder != w.p.holder {
		return errLost
	}
	w.rec = rec
	return nil
}

// letGo gives the lease back, also when the pool is being closed.
func (w *work) letGo() {
	if w.rec.State == StateTerminated || errors.Is(w.err, errLost) {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(w.ctx), cleanUpTime)
	defer stop()
	_, err := w.p.change(ctx, w.key, func(r *Record) error {
		if r.Lease.Holder != w.p.holder {
			return errSame
		}
		r.Lease = Lease{}
		if failed := errors.Join(w.refused, w.err); failed != nil && w.p.ctx.Err() == nil {
			r.Error = failed.Error()
		}
		return nil
	})
	if err != nil && !errors.Is(err, sandbox.ErrNotFound) {
		w.p.opts.Log.Warn("pool: cannot give a lease back; it runs out", "sandbox", w.rec.ID, "error", err)
	}
}

// now is the time as records have it.
func now() time.Time { return time.Now().UTC().Round(0) }
