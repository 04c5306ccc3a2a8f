package modalbox

import (
	"context"
	"time"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// snapshotTimeout bounds a snapshot where the context does not; the client's own
// bound is 55 seconds, which is little for a large file system.
const snapshotTimeout = 10 * time.Minute

// Snapshot implements driver.Snapshotter. Modal keeps the image until it is deleted.
func (b *box) Snapshot(ctx context.Context) (string, error) {
	if err := b.usable(ctx); err != nil {
		return "", err
	}
	image, err := b.sb.SnapshotFilesystem(ctx, &modal.SandboxSnapshotFilesystemParams{Timeout: snapshotTimeout, TTL: modal.NoExpiryTTL})
	if err != nil {
		return "", b.explain(ctx, "snapshot", err)
	}
	return image.ImageID, nil
}

// SnapshotDir implements driver.DirSnapshotter.
func (b *box) SnapshotDir(ctx context.Context, dir string) (string, error) {
	if err := b.usable(ctx); err != nil {
		return "", err
	}
	image, err := b.sb.SnapshotDirectory(ctx, dir, &modal.SandboxSnapshotDirectoryParams{Timeout: snapshotTimeout, TTL: modal.NoExpiryTTL})
	if err != nil {
		return "", b.explain(ctx, "snapshot a directory", err)
	}
	return image.ImageID, nil
}

// MountImage implements driver.ImageMounter.
func (b *box) MountImage(ctx context.Context, dir, id string) error {
	if err := b.usable(ctx); err != nil {
		return err
	}
	var image *modal.Image
	if id != "" {
		image = &modal.Image{ImageID: id}
	}
	return b.explain(ctx, "mount an image", b.sb.MountImage(ctx, dir, image, nil))
}

// UnmountImage implements driver.ImageMounter.
func (b *box) UnmountImage(ctx context.Context, dir string) error {
	if err := b.usable(ctx); err != nil {
		return err
	}
	return b.explain(ctx, "unmount an image", b.sb.UnmountImage(ctx, dir, nil))
}

// WaitReady implements driver.ReadyWaiter.
func (b *box) WaitReady(ctx context.Context) error {
	if err := b.usable(ctx); err != nil || !b.rec.probe {
		return err
	}
	timeout := maxTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), time.Millisecond)
	}
	return b.explain(ctx, "wait until the sandbox is ready", b.sb.WaitUntilReady(ctx, timeout, nil))
}

// Terminate implements driver.Terminator.
func (p *provider) Terminate(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !isSandboxID(id) {
		return driver.ErrNotFound
	}
	sb, err := p.client.Sandboxes.FromID(ctx, id, nil)
	if err != nil {
		return called(ctx, "find sandbox", err)
	}
	defer sb.Detach() //nolint:errcheck // it never fails
	rec, err := readRecord(ctx, sb)
	if err != nil {
		return err
	}
	_, err = terminate(ctx, sb, rec)
	return err
}
