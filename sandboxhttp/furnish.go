package sandboxhttp

import (
	"context"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/storage"
)

// furnish fills the workspace of a sandbox that this handler is making.
func (h *Handler) furnish(ctx context.Context, c *creation, sb *sandbox.Sandbox) error {
	if c.volume == nil {
		return nil
	}
	c.stage("restoring")
	ctx, stop := context.WithTimeoutCause(ctx, h.limits.SyncTime, errSyncTime)
	defer stop()
	volume := c.volume.With(func(o *storage.Options) { o.Progress = c.fill.counting(c.tell("restoring")) })
	v, err := bounded(ctx, func(ctx context.Context) (*storage.Version, error) { return volume.InitVersion(ctx, sb, sb.Dir()) })
	if v != nil {
		c.rec.Version, c.rec.Head = recordVersion(v), v.ID
	}
	if err == nil && v != nil {
		return c.box.recordFiles(ctx, v, v.ID) // who takes it over must know
	}
	if err == nil {
		return nil
	}
	return h.volumeProblem(ctx, codeRestoreFailed, "the volume's newest version could not be restored", err)
}
