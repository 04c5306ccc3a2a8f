package modalemu

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// recipe is what an image is made from.
type recipe struct {
	digest string
	build  driver.Build
	base   *imageRecord // what FROM names, when that is an image here
}

// fromCommand is the Dockerfile command that every image starts with.
var fromCommand = regexp.MustCompile(`(?i)^\s*FROM\s+(?:--platform=\S+\s+)?(\S+)\s*$`)

// recipe checks the definition of an image.
func (s *Server) recipe(def *pb.Image) (*recipe, error) {
	if len(def.GetContextFiles()) > 0 || def.GetContextMountId() != "" || def.GetBuildFunction() != nil || def.GetBuildFunctionDef() != "" {
		return nil, refused("an image cannot be built from local files or Python functions")
	}
	commands := def.GetDockerfileCommands()
	if len(commands) == 0 {
		return nil, invalid("an image needs a FROM command")
	}
	from := fromCommand.FindStringSubmatch(commands[0])
	if from == nil {
		return nil, invalid("the first command of an image is not FROM: %q", commands[0])
	}
	r := &recipe{build: driver.Build{Image: driver.Image{Commands: commands[1:]}, Images: make(map[string]string)}}
	if err := s.planBase(r, from[1], def); err != nil {
		return nil, err
	}
	values, err := s.variables(def.GetSecretIds(), nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(values, def.GetBuildArgs())
	r.build.Secrets = environ(values)
	if r.digest, err = s.digest(r, def, values); err != nil {
		return nil, err
	}
	return r, nil
}

// planBase finds what FROM and COPY --from name.
func (s *Server) planBase(r *recipe, from string, def *pb.Image) error {
	known := make(map[string]*imageRecord)
	for _, b := range def.GetBaseImages() {
		img := s.store.image(b.GetImageId())
		if img == nil {
			return noImage(b.GetImageId())
		}
		known[b.GetDockerTag()] = img
		if img.Driver != "" {
			r.build.Images[b.GetDockerTag()] = img.Driver
		}
	}
	if r.base = known[from]; r.base != nil {
		if r.base.Mountable {
			return invalid("Image '%s' is of a directory: no image can be built on it", r.base.ID)
		}
		// FROM is this one; what is left of the name is for COPY.
		image := r.base.driverImage()
		r.build.Image.Base, r.build.Image.Snapshot = image.Base, image.Snapshot
		return nil
	}
	if s.opts.Base == SourceHost {
		r.build.Image.Base = s.hostBase()
		return nil
	}
	r.build.Image.Base = from
	registry, err := s.registry(def.GetImageRegistryConfig())
	r.build.Image.Registry = registry
	return err
}

// hostBase is what stands for every image in a registry with SourceHost.
func (s *Server) hostBase() string {
	if s.ownBoxes == nil {
		return "" // a provider of the caller's: its default
	}
	return localbox.HostRoot
}

// registry says how to log in where an image is.
func (s *Server) registry(cfg *pb.ImageRegistryConfig) (*driver.Registry, error) {
	if cfg.GetSecretId() == "" {
		return nil, nil
	}
	values, err := s.secretValues(cfg.GetSecretId())
	if err != nil {
		return nil, err
	}
	r := &driver.Registry{Credentials: environ(values)}
	switch cfg.GetRegistryAuthType() {
	case pb.RegistryAuthType_REGISTRY_AUTH_TYPE_STATIC_CREDS:
		r.Kind = driver.RegistryPassword
	case pb.RegistryAuthType_REGISTRY_AUTH_TYPE_AWS:
		r.Kind = driver.RegistryECR
	case pb.RegistryAuthType_REGISTRY_AUTH_TYPE_GCP:
		r.Kind = driver.RegistryGCP
	default:
		return nil, nil
	}
	return r, nil
}

// digest is the same for the same image. Values of secrets are in it by a keyed
// digest only.
func (s *Server) digest(r *recipe, def *pb.Image, values map[string]string) (string, error) {
	var key []byte
	s.store.read(func(rec *records) { key = rec.BuildKey })
	mac := hmac.New(sha256.New, key)
	bases := make([]string, 0, len(def.GetBaseImages()))
	for _, b := range def.GetBaseImages() {
		bases = append(bases, b.GetDockerTag()+"="+b.GetImageId())
	}
	slices.Sort(bases)
	raw, err := json.Marshal(map[string]any{
		"commands": def.GetDockerfileCommands(), "bases": bases, "values": values, "host": s.opts.Base == SourceHost,
		"gpu": def.GetGpuConfig().GetGpuType(), "registry": def.GetImageRegistryConfig().GetRegistryAuthType(),
	})
	if err != nil {
		return "", err
	}
	mac.Write(raw)
	return hex.EncodeToString(mac.Sum(nil)), nil
}

// build makes the image of a recipe.
func (s *Server) build(ctx context.Context, r *recipe) (*imageRecord, error) {
	img := &imageRecord{Recipe: r.digest, Created: time.Now()}
	builder, ok := s.provider.(driver.ImageBuilder)
	if !ok {
		if len(r.build.Image.Commands) > 0 {
			return nil, fmt.Errorf("the sandboxes' driver builds no images: only FROM is possible")
		}
		img.Driver, img.Base = r.build.Image.Snapshot, r.build.Image.Base
		return img, nil
	}
	if err := s.lendHost(ctx, builder, r); err != nil {
		return nil, err
	}
	info, err := builder.BuildImage(ctx, &r.build)
	if err != nil {
		return nil, err
	}
	img.Driver, img.Env, img.Dir, img.Entrypoint = info.ID, info.Env, info.Dir, info.Entrypoint
	return img, nil
}
