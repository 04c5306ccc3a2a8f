package sandboxhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/storage"
)

// furnish fills the workspace, completes the record, and hands the sandbox over.
func (h *Handler) furnish(c *creation, sb *sandbox.Sandbox) error {
	if c.volume != nil {
		c.stage("restoring")
		if err := h.restore(c, sb); err != nil {
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

func (h *Handler) restore(c *creation, sb *sandbox.Sandbox) (err error) {
	ctx, stop := context.WithTimeoutCause(c.ctx, h.limits.SyncTime, errSyncTime)
	defer stop()
	c.rec.Version, err = bounded(ctx, func(ctx context.Context) (*Version, error) { return restoreNewest(ctx, c.volume, sb) })
	switch {
	case err == nil:
		return nil
	case h.ctx.Err() != nil:
		return shuttingDown().because(err)
	}
	detail := "the volume's newest version could not be restored"
	if context.Cause(ctx) == errSyncTime {
		detail += fmt.Sprintf(" within %v", h.limits.SyncTime)
	}
	return newProblem(http.StatusBadGateway, codeRestoreFailed, detail).because(err)
}

// restoreNewest is Volume.Init that says which version it was.
func restoreNewest(ctx context.Context, v *storage.Volume, sb *sandbox.Sandbox) (*Version, error) {
	for newest, err := range v.Versions(ctx) {
		if err != nil {
			return nil, err
		}
		if err := v.Restore(ctx, sb, sb.Dir(), newest.ID); err != nil {
			return nil, err
		}
		return &Version{ID: newest.ID, CreatedAt: newest.Time}, nil
	}
	return nil, nil
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
