//go:build linux

package ociimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Source is an image in a registry.
type Source struct {
	Ref   string // such as "debian:12"
	Login *driver.Registry
	Force bool // look again what Ref names
	Log   io.Writer
}

// Pull gets an image from a registry, or finds it where it was got before with
// the same credentials. What it holds is checked against the digests of the
// manifest. Errors match driver.ErrInvalid, ErrNotFound, ErrUnauthenticated,
// ErrUnavailable or ErrExhausted, and name what to do.
func (s *Store) Pull(ctx context.Context, src *Source) (*Record, error) {
	ref, err := name.ParseReference(src.Ref)
	if err != nil {
		return nil, fmt.Errorf("%w: image %q is not a name such as debian:12 or ghcr.io/owner/name:tag", driver.ErrInvalid, src.Ref)
	}
	auth, err := s.login(ref.Context().Registry, src.Login)
	if err != nil {
		return nil, err
	}
	key := s.Key(append([]string{"pull", ref.Name(), platform().String()}, loginKey(src.Login)...)...)
	lock, err := s.Lock(ctx, "pull-"+key)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	old, err := s.Find(key)
	if err != nil && !errors.Is(err, driver.ErrNotFound) {
		return nil, err
	}
	if old != nil && !src.Force {
		return old, nil
	}
	p := &pull{store: s, ref: ref, authed: src.Login != nil, log: src.Log, old: old}
	rec, err := p.run(ctx, remote.WithContext(ctx), remote.WithAuth(auth), remote.WithTransport(s.transport()),
		remote.WithPlatform(platform()), remote.WithUserAgent("vivarium"))
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", ref.Name(), p.explain(ctx, err))
	}
	return rec, s.SetKey(ctx, key, rec.ID)
}

func platform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// pull is one image on its way.
type pull struct {
	store  *Store
	ref    name.Reference
	authed bool
	log    io.Writer
	old    *Record // what the reference named before
}

func (p *pull) logf(format string, args ...any) {
	if p.log != nil {
		fmt.Fprintf(p.log, format+"\n", args...)
	}
}

func (p *pull) run(ctx context.Context, opts ...remote.Option) (*Record, error) {
	p.logf("Pulling %s for %s", p.ref.Name(), platform())
	desc, err := remote.Get(p.ref, opts...)
	if err != nil {
		return nil, damaged(err)
	}
	if p.old != nil && p.old.Digest == desc.Digest.String() {
		p.logf("It is as it was: %s", p.old.Digest)
		return p.old, nil
	}
	cfg, layers, err := parts(desc)
	if err != nil {
		return nil, damaged(err)
	}
	if cfg.Architecture != "" && cfg.Architecture != runtime.GOARCH {
		return nil, fmt.Errorf("%w: the image is for %s/%s, and this machine is %s", driver.ErrNotFound, cfg.OS, cfg.Architecture, platform())
	}
	if len(layers) != len(cfg.RootFS.DiffIDs) {
		return nil, fmt.Errorf("%w: its manifest has %d layers and its configuration %d", ErrDamaged, len(layers), len(cfg.RootFS.DiffIDs))
	}
	rec := &Record{Base: p.ref.Name(), Digest: desc.Digest.String(), Config: configOf(&cfg.Config)}
	return p.layers(ctx, rec, layers, cfg.RootFS.DiffIDs)
}

// parts fetches the manifest for this machine, if desc has several, and the
// configuration.
func parts(desc *remote.Descriptor) (*v1.ConfigFile, []v1.Layer, error) {
	img, err := desc.Image()
	if err != nil {
		return nil, nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, nil, err
	}
	layers, err := img.Layers()
	return cfg, layers, err
}

// damaged marks what is wrong with an answer that came.
func damaged(err error) error {
	var terr *transport.Error
	if isNetwork(err) || errors.As(err, &terr) || isForeign(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// isForeign reports that an index has nothing for this machine, for which the
// module has no error of its own.
func isForeign(err error) bool { return strings.Contains(err.Error(), "no child with platform") }

func configOf(c *v1.Config) Config {
	return Config{Env: c.Env, Dir: c.WorkingDir, User: c.User, Entrypoint: c.Entrypoint, Command: c.Cmd, Shell: c.Shell,
		OnBuild: c.OnBuild, Labels: c.Labels, StopSignal: c.StopSignal,
		Ports: slices.Sorted(maps.Keys(c.ExposedPorts)), Volumes: slices.Sorted(maps.Keys(c.Volumes))}
}

// layers fetches and unpacks what is missing, and writes the record.
func (p *pull) layers(ctx context.Context, rec *Record, layers []v1.Layer, diffIDs []v1.Hash) (*Record, error) {
	s := p.store
	end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	f := newFetch(ctx, s, layers, missing(s, diffIDs))
	defer f.stop()
	l := &limits{bytes: s.opts.MaxBytes, files: s.opts.MaxFiles}
	for i := range layers {
		if err := p.layer(ctx, rec, f, i, diffIDs[i].Hex, l); err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	if err := s.put(rec); err != nil {
		return nil, err
	}
	p.logf("Pulled %s", rec.Digest)
	return rec, nil
}

// missing is the number of the first layer that has to be fetched.
func missing(s *Store, diffIDs []v1.Hash) int {
	rec := &Record{}
	for i, id := range diffIDs {
		if ok, err := s.haveLayer(rec, id.Hex); err != nil || !ok {
			return i
		}
	}
	return len(diffIDs)
}

func (p *pull) layer(ctx context.Context, rec *Record, f *fetch, i int, diffID string, l *limits) error {
	s := p.store
	lock, err := s.Lock(ctx, "layer-"+chainID(rec, diffID))
	if err != nil {
		return err
	}
	defer lock.Close()
	if have, err := s.haveLayer(rec, diffID); have || err != nil {
		p.logf("Layer %d of %d is here", i+1, len(f.layers))
		return err
	}
	blob, err := f.wait(i)
	if err != nil {
		return err
	}
	defer blob.Close()
	tr, err := decompress(blob)
	if err != nil {
		return err
	}
	defer tr.Close()
	made, err := s.unpackLayer(ctx, rec, tr, l)
	if err != nil {
		return err
	}
	if made.diffID != diffID {
		return errors.Join(fmt.Errorf("%w: unpacked it has the digest sha256:%s, the image says sha256:%s", ErrDamaged, made.diffID, diffID),
			removeAll(made.tmp))
	}
	made.empty = false // so that it is found again
	p.logf("Layer %d of %d is unpacked", i+1, len(f.layers))
	return s.keepLayer(rec, made)
}
