package modalemu

import (
	"context"
	"regexp"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// otherImage is how a Dockerfile command names another image: FROM begins a
// stage on it, COPY --from= copies from it.
var otherImage = regexp.MustCompile(`(?i)^\s*(?:FROM\s+(?:--\S+\s+)*|COPY\s+(?:--\S+\s+)*?--from=)([^-\s]\S*)`)

// lendHost lets FROM and COPY --from=… of images in a registry find this
// machine's programs and files, with SourceHost.
func (s *Server) lendHost(ctx context.Context, builder driver.ImageBuilder, r *recipe) error {
	if s.opts.Base != SourceHost {
		return nil
	}
	for _, command := range r.build.Image.Commands {
		m := otherImage.FindStringSubmatch(command)
		if m == nil || r.build.Images[m[1]] != "" {
			continue
		}
		info, err := builder.BuildImage(ctx, &driver.Build{Image: driver.Image{Base: s.hostBase()}})
		if err != nil {
			return err
		}
		r.build.Images[m[1]] = info.ID
	}
	return nil
}
