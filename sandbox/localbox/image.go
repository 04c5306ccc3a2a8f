//go:build linux

package localbox

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage"
)

// imageStore is the store of images once it has been needed.
type imageStore struct {
	opts  ImageOptions
	store *ociimage.Store
}

// images opens the store of images, for the first time.
func (p *provider) images() (*ociimage.Store, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.image.store != nil {
		return p.image.store, nil
	}
	o := p.image.opts
	store, err := ociimage.Open(filepath.Join(p.dir.Path(), "images"), ociimage.Options{
		MaxBytes: o.MaxBytes, MaxFiles: o.MaxFiles, DockerLogin: o.DockerLogin})
	if err != nil {
		return nil, fmt.Errorf("the store of images: %w", err)
	}
	p.image.store = store
	p.sweepBuilds(store)
	return store, nil
}

// root gives what the files of a new sandbox are made of: nil for this machine's
// programs, read-only, with or without a snapshot of such a sandbox.
func (p *provider) root(ctx context.Context, cfg *driver.Config) (*ociimage.Root, error) {
	img := &cfg.Image
	if len(img.Commands) == 0 {
		switch {
		case img.Snapshot != "" && !ociimage.IsID(img.Snapshot), img.Snapshot == "" && isMachine(img.Base):
			return nil, nil
		case img.Snapshot == "" && img.Base == HostRoot:
			return &ociimage.Root{Host: true}, nil
		}
	}
	rec, store, err := p.build(ctx, &driver.Build{Image: *img})
	if err != nil {
		return nil, err
	}
	return store.Root(rec), nil
}

// isMachine reports whether base is this machine's programs as they are.
func isMachine(base string) bool { return base == "" || base == "host" }

// BuildImage implements driver.ImageBuilder.
func (p *provider) BuildImage(ctx context.Context, b *driver.Build) (*driver.ImageInfo, error) {
	rec, _, err := p.build(ctx, b)
	if err != nil {
		return nil, err
	}
	return imageInfo(rec), nil
}

// Image implements driver.ImageInspector.
func (p *provider) Image(ctx context.Context, id string) (*driver.ImageInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	store, err := p.images()
	if err != nil {
		return nil, err
	}
	rec, err := store.Lookup(id)
	if err != nil {
		return nil, err
	}
	return imageInfo(rec), nil
}

func imageInfo(rec *ociimage.Record) *driver.ImageInfo {
	c := rec.Clone().Config
	return &driver.ImageInfo{ID: rec.ID, Env: c.Env, Dir: c.Dir, User: c.User, Entrypoint: c.Entrypoint, Command: c.Command}
}

// buildLimit is what a RUN command may use where nothing is said.
func buildLimit(set int64) int64 {
	if set != 0 {
		return set
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0 // the driver's default
	}
	return int64(info.Totalram) * int64(info.Unit) / 4 * 3
}

// sweepBuilds ends the sandboxes of builds that died.
func (p *provider) sweepBuilds(store *ociimage.Store) {
	ctx, cancel := context.WithTimeout(context.Background(), abandonPatience)
	defer cancel()
	for info, err := range p.List(ctx, nil) {
		if err != nil {
			return
		}
		name, ok := strings.CutPrefix(info.Name, buildName)
		if !ok || store.Locked("build-"+name) {
			continue
		}
		if err := p.Terminate(ctx, info.ID); err != nil {
			p.log.Warn("a build that died has left a sandbox", "sandbox", info.ID, "reason", err)
		}
	}
}
