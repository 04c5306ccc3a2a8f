package sandboxhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/storage"
)

// adoptBox makes the record of a sandbox that outlived its own.
func (h *Handler) adoptBox(ctx context.Context, info *sandbox.Info) (account string, config *pool.Config, err error) {
	account, id := info.Tags[tagAccount], info.Tags[tagID]
	if account == "" || id == "" {
		return "", nil, nil
	}
	rec, err := h.store.Sandbox(ctx, account, id)
	if errors.Is(err, ErrNotFound) {
		rec = foundRecord(info.Tags)
		rec.ProviderID, rec.CreatedAt = info.ID, info.CreatedAt.UTC()
		rec.present(info)
		err = h.addFound(ctx, rec)
	}
	switch {
	case err != nil:
		return "", nil, err
	case rec.State == StateEnded:
		return "", nil, nil
	}
	own := maps.Clone(info.Tags)
	maps.DeleteFunc(own, func(tag, _ string) bool { return tag == pool.TagPool || tag == pool.TagBox })
	config = &pool.Config{ID: id, Labels: own, Sandbox: &sandbox.Config{}}
	if h.config.Sandbox != nil {
		*config.Sandbox = *h.config.Sandbox
		config.Sandbox.Name, config.Sandbox.Tags = "", nil
	}
	if rec.VolumeName == "" && h.spans.most > 0 {
		config.Sandbox.Timeout = min(cmp.Or(config.Sandbox.Timeout, h.spans.life), h.spans.most)
	}
	return account, config, nil
}

// notified takes over what the pool tells.
func (h *Handler) notified(ctx context.Context, e pool.Event) {
	var err error
	switch e.Kind {
	case pool.EventEnded:
		err = h.ended(ctx, e.Record.Owner, e.Record.ID, e.Reason, e.At, e.Saved)
	case pool.EventRolledOver:
		err = h.change(ctx, e.Record.Owner, e.Record.ID, func(rec *Sandbox) bool {
			rec.ProviderID = e.Record.Box.ID
			return true
		})
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		h.log.Error("cannot record what became of a sandbox; it is seen when somebody looks at it", "sandbox", e.Record.ID, "error", err)
	}
	if h.hooks.notify == nil {
		return
	}
	err = guarded(func() error {
		h.hooks.notify(ctx, e)
		return nil
	})
	if err != nil {
		h.log.Error("Config.Pool.Notify panicked", "error", err)
	}
}

// guarded makes an error of a panic: other hooks of the configuration run in there.
func guarded(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return fn()
}

// saveBeforeEnd saves what is to end, or to go on elsewhere, without anybody who asked.
func (h *Handler) saveBeforeEnd(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
	rec, err := h.recordOf(ctx, r)
	if err != nil {
		return err
	}
	if rec.VolumeName == "" {
		return nil // there is nowhere to
	}
	b := h.box(r.Owner, r.ID)
	why := &reason{text: "the sandbox came to its end: " + string(r.End), is: context.Canceled, end: claude.End(r.End)}
	if r.State == pool.StateStopping {
		b.stopRuns(why, nil)
		err = b.awaitWork(ctx)
	} else if err = h.mayMove(ctx, b, rec, r); err == nil {
		why = &reason{text: "another sandbox took over, before this one had to end", is: context.Canceled, end: claude.EndLifetime}
		b.stopRuns(why, func(r *run) bool { return r.inUse.Load() }) // others wait for the successor
	}
	if err != nil {
		return err
	}
	counted := h.countTransfer(ctx, r.Owner, r.ID, usage.KindSave)
	defer counted.end()
	v, err := bounded(ctx, func(ctx context.Context) (*storage.Version, error) {
		v, _, err := b.save(ctx, sb, saveOptions{note: why.text})
		return v, err
	})
	counted.saved(v)
	return err
}

// lastSave is how long before the provider's end a sandbox is saved that has no successor.
const lastSave = 10 * time.Minute

var errRestoring = errors.New("a version is being restored into the sandbox")

// mayMove says why another sandbox cannot take over now: then nothing is stopped for it.
func (h *Handler) mayMove(ctx context.Context, b *box, rec *Sandbox, r *pool.Record) error {
	if b.restoring() {
		return errRestoring // half of it would be saved
	}
	if r.Labels[tagSecrets] != "" && b.own == nil && time.Until(r.Box.ExpiresAt) > lastSave {
		return errSecretsGone
	}
	_, err := b.open(ctx, rec)
	return err
}

// fill puts the newest version of its volume into a sandbox, or into a successor what the
// one before held.
func (h *Handler) fill(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
	b := h.box(r.Owner, r.ID)
	if c := b.creation; c != nil && b.making() {
		return h.furnish(ctx, c, sb)
	}
	rec, err := h.store.Sandbox(ctx, r.Owner, r.ID)
	if errors.Is(err, ErrNotFound) || err == nil && rec.VolumeName == "" {
		return nil
	}
	if err != nil {
		return err
	}
	volume, err := b.open(ctx, rec)
	if err != nil {
		return err
	}
	v, err := bounded(ctx, func(ctx context.Context) (*storage.Version, error) {
		if rec.Version != nil {
			return nil, volume.Restore(ctx, sb, sb.Dir(), rec.Version.ID)
		}
		return volume.InitVersion(ctx, sb, sb.Dir())
	})
	if err == nil && v != nil {
		err = b.recordFiles(ctx, v, v.ID)
	}
	return err
}
