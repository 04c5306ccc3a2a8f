package modalbox

import (
	"context"
	"fmt"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// image builds an image, or finds it.
func (p *provider) image(ctx context.Context, app *modal.App, b *driver.Build) (*modal.Image, error) {
	image, err := p.base(ctx, &b.Image)
	if err != nil {
		return nil, err
	}
	if len(b.Image.Commands) > 0 {
		env, rawEnv := split(b.Env)
		_, rawSecrets := split(b.Secrets)
		if len(rawEnv)+len(rawSecrets) > 0 {
			return nil, fmt.Errorf("%w: the environment of a build has to be UTF-8", driver.ErrInvalid)
		}
		layer := &modal.ImageDockerfileCommandsParams{Env: env, ForceBuild: b.Force}
		secret, err := p.credentials(ctx, "", b.Secrets)
		if err != nil {
			return nil, err
		}
		if secret != nil {
			layer.Secrets = []*modal.Secret{secret}
		}
		image = image.DockerfileCommands(b.Image.Commands, layer)
	}
	built, err := image.Build(ctx, app, nil)
	return built, called(ctx, "build image", err)
}

// base is what an image's commands run on.
func (p *provider) base(ctx context.Context, i *driver.Image) (*modal.Image, error) {
	if i.Snapshot != "" {
		image, err := p.client.Images.FromID(ctx, i.Snapshot, nil)
		return image, called(ctx, fmt.Sprintf("find image %q", i.Snapshot), err)
	}
	name := i.Base
	if name == "" {
		name = p.opts.image()
	}
	if i.Registry == nil {
		return p.client.Images.FromRegistry(name, nil), nil
	}
	secret, err := p.credentials(ctx, i.Registry.SecretName, i.Registry.Credentials)
	if err != nil {
		return nil, err
	}
	switch i.Registry.Kind {
	case driver.RegistryECR:
		return p.client.Images.FromAwsEcr(name, secret, nil), nil
	case driver.RegistryGCP:
		return p.client.Images.FromGcpArtifactRegistry(name, secret, nil), nil
	default:
		return p.client.Images.FromRegistry(name, &modal.ImageFromRegistryParams{Secret: secret}), nil
	}
}

// BuildImage implements driver.ImageBuilder. The client throws away what the
// commands print, unless one fails: Build.Log gets nothing.
func (p *provider) BuildImage(ctx context.Context, b *driver.Build) (*driver.ImageInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(b.Images) > 0 {
		return nil, &driver.UnsupportedError{Setting: "Build.Images",
			Reason: "Modal's Go client cannot name other images of Modal's; push them to a registry, and name that in COPY --from"}
	}
	app, err := p.app(ctx)
	if err != nil {
		return nil, err
	}
	image, err := p.image(ctx, app, b)
	if err != nil {
		secrets := []driver.Secrets{b.Secrets}
		if b.Image.Registry != nil {
			secrets = append(secrets, b.Image.Registry.Credentials)
		}
		return nil, redact(err, secrets...)
	}
	return &driver.ImageInfo{ID: image.ImageID}, nil
}

// DeleteSnapshot implements driver.SnapshotDeleter.
func (p *provider) DeleteSnapshot(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return called(ctx, fmt.Sprintf("delete image %q", id), p.client.Images.Delete(ctx, id, nil))
}
