package pool

import (
	"context"
	"errors"
	"maps"

	"github.com/vivarium-go/vivarium/sandbox"
)

// errNotMade is what becomes of a sandbox whose creator ended before it was made.
var errNotMade = errors.New("the process that made it ended first")

// make makes the sandbox of a new record. When who began it is gone, it is taken over if
// it was made, and given up if it was not.
func (w *work) make(ctx context.Context) error {
	var sb *sandbox.Sandbox
	var err error
	if w.fresh {
		sb, err = w.create(ctx, w.rec.Box)
	} else if sb, err = w.p.lookUp(ctx, w.rec.Box.Name); gone(err) {
		err = errNotMade
	}
	if err != nil {
		return w.refuse(ctx, err)
	}
	return w.made(ctx, sb, func(r *Record, id string) { r.Box.ID = id })
}

// made records what a sandbox is called at the provider.
func (w *work) made(ctx context.Context, sb *sandbox.Sandbox, set func(r *Record, id string)) error {
	h, unused := w.p.adopt(sb)
	defer w.p.drop(h)
	if unused != nil {
		_ = unused.Close()
	}
	err := w.update(ctx, func(r *Record) error {
		set(r, sb.ID())
		return nil
	})
	if err != nil {
		w.p.forget(sb.ID())
	}
	return err
}

// refuse ends a sandbox that cannot be had. What may be otherwise later is tried again
// unless somebody waits.
func (w *work) refuse(ctx context.Context, err error) error {
	if ctx.Err() != nil || !w.fresh && transient(err) {
		return err
	}
	w.refused = err
	return w.update(context.WithoutCancel(ctx), func(r *Record) error {
		r.stop(sandbox.EndUnknown, Stop{Unsaved: true})
		r.Error = err.Error()
		return nil
	})
}

// fill puts the workspace into a new sandbox, which is ready then.
func (w *work) fill(ctx context.Context) error {
	if err := w.fillBox(ctx, w.rec.Box); err != nil {
		return w.refuse(ctx, err)
	}
	err := w.update(ctx, func(r *Record) error {
		r.State, r.ActiveAt, r.Error = StateRunning, now(), ""
		return nil
	})
	w.fresh = w.fresh && err != nil
	return err
}

func (w *work) fillBox(ctx context.Context, b Box) error {
	h, err := w.p.hold(ctx, b.ID)
	if err != nil {
		return err
	}
	defer w.p.drop(h)
	if w.p.opts.Fill == nil || w.rec.Owner == "" {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, w.p.opts.FillTime)
	defer stop()
	return retry(ctx, transient, func(ctx context.Context) error {
		return w.p.opts.Fill(ctx, w.copy(), h.sb)
	})
}

// create makes a sandbox. An answer that was lost is found by the name: nothing is made
// twice, as no two that run have the same.
func (w *work) create(ctx context.Context, b Box) (sb *sandbox.Sandbox, err error) {
	config, err := w.configure(ctx, b)
	if err != nil {
		return nil, err
	}
	again := func(err error) bool { return transient(err) || errors.Is(err, sandbox.ErrNameInUse) }
	err = retry(ctx, again, func(ctx context.Context) error {
		if sb, err = w.p.opts.Provider.Create(ctx, config); err == nil {
			return nil
		}
		if !errors.Is(err, sandbox.ErrUnavailable) && !errors.Is(err, sandbox.ErrNameInUse) {
			return err
		}
		found, lookErr := w.p.lookUp(ctx, b.Name)
		if lookErr != nil && !gone(lookErr) {
			return errors.Join(err, lookErr)
		}
		if lookErr != nil {
			return err
		}
		sb = found
		return nil
	})
	return sb, err
}

// configure gives what the provider is asked for.
func (w *work) configure(ctx context.Context, b Box) (*sandbox.Config, error) {
	config := w.rec.Config
	if w.config != nil {
		config = *w.config
	}
	config.Name, config.IdleTimeout, config.Timeout = b.Name, 0, b.ExpiresAt.Sub(now())
	config.Tags, config.Env, config.Secrets = cloned(config.Tags), cloned(config.Env), cloned(config.Secrets)
	config.Tags[TagPool], config.Tags[TagBox] = w.p.opts.Name, b.Name
	if w.p.opts.Configure == nil {
		return &config, nil
	}
	return &config, w.p.opts.Configure(ctx, w.copy(), &config)
}

// cloned is a map to write to.
func cloned[V any](m map[string]V) map[string]V {
	c := make(map[string]V, len(m)+2)
	maps.Copy(c, m)
	return c
}

// lookUp finds a sandbox by its name.
func (p *Pool) lookUp(ctx context.Context, name string) (sb *sandbox.Sandbox, err error) {
	err = retry(ctx, transient, func(ctx context.Context) error {
		sb, err = p.opts.Provider.AttachName(ctx, name)
		return err
	})
	return sb, err
}

// copy is the record for a hook.
func (w *work) copy() *Record {
	r := *w.rec
	return &r
}
