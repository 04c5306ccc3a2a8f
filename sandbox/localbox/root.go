//go:build unix

package localbox

import (
	"context"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// HostRoot as Config.Image.Base is this machine's programs as a root file system
// that can be changed, by a root user inside: what a command installs or removes
// is seen in that sandbox only, and saved by its Snapshot. Of the rest of this
// machine's files it shows as little as the default.
const HostRoot = "host:root"

// imageRoot says what the files of a new sandbox are made of; nil is this
// machine's programs, read-only.
func (p *provider) imageRoot(ctx context.Context, cfg *driver.Config) (*wire.Root, error) {
	root, err := p.root(ctx, cfg)
	return onWire(root), err
}

// MountImage implements driver.ImageMounter, for a program that runs as root. What
// is written there counts towards Config.Memory and is bounded by Config.Disk,
// each mount for itself.
func (b *box) MountImage(ctx context.Context, dir, id string) error {
	req := &wire.KeeperRequest{Op: wire.KeeperMount, Path: dir}
	if id != "" {
		var err error
		if req.Root, err = b.p.imageNamed(id); err != nil {
			return err
		}
	}
	return b.atDesk(ctx, req)
}

// UnmountImage implements driver.ImageMounter.
func (b *box) UnmountImage(ctx context.Context, dir string) error {
	return b.atDesk(ctx, &wire.KeeperRequest{Op: wire.KeeperUnmount, Path: dir})
}

// onWire is an image as it is told to the keeper.
func onWire(r *ociimage.Root) *wire.Root {
	if r == nil {
		return nil
	}
	return &wire.Root{ID: r.ID, Host: r.Host, Layers: r.Layers, Record: r.Record, Env: r.Env,
		Dir: r.Dir, User: r.User, Entrypoint: r.Entrypoint, Command: r.Command}
}

// imageOf undoes onWire.
func imageOf(r *wire.Root) *ociimage.Root {
	return &ociimage.Root{ID: r.ID, Host: r.Host, Layers: r.Layers, Record: r.Record, Env: r.Env,
		Dir: r.Dir, User: r.User, Entrypoint: r.Entrypoint, Command: r.Command}
}
