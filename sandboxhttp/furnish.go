package sandboxhttp

import (
	"context"
	"errors"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/storage"
)

// furnish fills the workspace, completes the record, and hands the sandbox over.
func (h *Handler) furnish(c *creation, sb *sandbox.Sandbox) error {
	if c.volume != nil {
		c.stage("restoring")
		if err := h.restoreNewest(c, sb); err != nil {
			return err
		}
	}
	info, err := sb.Info(c.ctx)
	if err == nil {
		err = context.Cause(c.ctx)
	}
	if err != nil {
		return providerProblem(err)
	}
	c.rec.ProviderID = sb.ID()
	c.rec.observe(info)
	// Who reads the record must find the handle, not attach another.
	if err := c.box.hold(sb); err != nil {
		return err
	}
	h.records.Lock()
	defer h.records.Unlock()
	if err := h.store.SaveSandbox(c.ctx, c.rec); err != nil {
		c.box.drop() // destroy closes it
		return err
	}
	return nil
}

func (h *Handler) restoreNewest(c *creation, sb *sandbox.Sandbox) error {
	ctx, stop := context.WithTimeoutCause(c.ctx, h.limits.SyncTime, errSyncTime)
	defer stop()
	volume := c.volume.With(func(o *storage.Options) { o.Progress = c.fill.counting(c.tell("restoring")) })
	v, err := bounded(ctx, func(ctx context.Context) (*storage.Version, error) { return volume.InitVersion(ctx, sb, sb.Dir()) })
	if v != nil {
		c.rec.Version, c.rec.Head = recordVersion(v), v.ID
	}
	if err == nil {
		return nil
	}
	return h.volumeProblem(ctx, codeRestoreFailed, "the volume's newest version could not be restored", err)
}

// destroy ends a sandbox that nobody is to have. An error is that it may live on.
func (h *Handler) destroy(sb *sandbox.Sandbox) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(h.ctx), cleanUpTime)
	defer stop()
	err := sb.Terminate(ctx)
	if err := errors.Join(err, sb.Close()); err != nil {
		h.log.Error("cannot terminate a sandbox; it lives on until its time limit", "sandbox", sb.ID(), "error", err)
	}
	return err
}
