package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// ImageInfo describes an image.
type ImageInfo = driver.ImageInfo

// BuildOptions are for Provider.BuildImage. nil is the zero value.
type BuildOptions struct {
	// Env and Secrets are in the environment of the RUN commands only. Secrets
	// are in no log.
	Env     map[string]string
	Secrets map[string]Secret
	// Force builds again what was built before.
	Force bool
	// Log receives what the commands print while they run. It may be nil.
	Log io.Writer
}

// BuildImage makes an image ahead of Create, or finds it if it was made before.
// Config.Image.Snapshot takes the id. A command that failed is an error that
// holds the tail of what it printed. Matches errors.ErrUnsupported where the
// driver builds only in Create, or not at all.
func (p *Provider) BuildImage(ctx context.Context, image Image, opts *BuildOptions) (*ImageInfo, error) {
	d, ok := p.driver.(driver.ImageBuilder)
	if !ok {
		return nil, wrap("build image", "", errors.ErrUnsupported)
	}
	if opts == nil {
		opts = &BuildOptions{}
	}
	var bad problems
	b := &driver.Build{Image: image.lower(&bad), Force: opts.Force, Log: opts.Log}
	b.Env = lowerEnv(&bad, "Env", opts.Env, func(v string) string { return v })
	b.Secrets = lowerEnv(&bad, "Secrets", opts.Secrets, Secret.Reveal)
	if err := bad.err(); err != nil {
		return nil, wrap("build image", "", err)
	}
	info, err := d.BuildImage(ctx, b)
	return info, wrap("build image", "", err)
}

// SnapshotDir saves one directory as an image for MountImage, or to start from.
// Matches errors.ErrUnsupported where the driver cannot.
func (s *Sandbox) SnapshotDir(ctx context.Context, dir string) (Image, error) {
	d, ok := s.driver.(driver.DirSnapshotter)
	if !ok {
		return Image{}, wrap("snapshot directory", s.ID(), errors.ErrUnsupported)
	}
	if !isCleanAbs(dir) {
		return Image{}, wrap("snapshot directory", s.ID(), invalidPath(dir))
	}
	id, err := d.SnapshotDir(ctx, dir)
	if err != nil {
		return Image{}, wrap("snapshot "+dir, s.ID(), err)
	}
	return Image{Snapshot: id}, nil
}

// MountImage shows the files of an image, by its Snapshot, in a directory, and
// the zero Image an empty one. What was there is hidden until UnmountImage; what
// is written there is lost with it. Matches errors.ErrUnsupported where the
// driver cannot.
func (s *Sandbox) MountImage(ctx context.Context, dir string, image Image) error {
	d, ok := s.driver.(driver.ImageMounter)
	if !ok {
		return wrap("mount image", s.ID(), errors.ErrUnsupported)
	}
	if !isCleanAbs(dir) {
		return wrap("mount image", s.ID(), invalidPath(dir))
	}
	if image.Base != "" || len(image.Commands) > 0 {
		return wrap("mount image", s.ID(), errors.Join(ErrInvalid, errors.New("build the image first: only Snapshot is used")))
	}
	return wrap("mount image on "+dir, s.ID(), d.MountImage(ctx, dir, image.Snapshot))
}

// UnmountImage undoes MountImage.
func (s *Sandbox) UnmountImage(ctx context.Context, dir string) error {
	d, ok := s.driver.(driver.ImageMounter)
	if !ok {
		return wrap("unmount image", s.ID(), errors.ErrUnsupported)
	}
	return wrap("unmount image from "+dir, s.ID(), d.UnmountImage(ctx, dir))
}

// SetNetwork changes what can be reached from inside. Connections that are open
// may go on. Matches errors.ErrUnsupported where the driver cannot.
func (s *Sandbox) SetNetwork(ctx context.Context, n Network) error {
	d, ok := s.driver.(driver.NetworkSetter)
	if !ok {
		return wrap("set network", s.ID(), errors.ErrUnsupported)
	}
	var bad problems
	low := n.lower(&bad)
	if err := bad.err(); err != nil {
		return wrap("set network", s.ID(), err)
	}
	return wrap("set network", s.ID(), d.SetNetwork(ctx, low))
}

// WaitReady returns when Config.Probe has succeeded once, at once where there
// was none.
func (s *Sandbox) WaitReady(ctx context.Context) error {
	d, ok := s.driver.(driver.ReadyWaiter)
	if !ok {
		return nil // such a driver refuses Config.Probe
	}
	return wrap("wait until ready", s.ID(), d.WaitReady(ctx))
}

func invalidPath(dir string) error {
	return fmt.Errorf("%w: %q: use a clean absolute path", ErrInvalid, dir)
}
