//go:build unix && !linux

package localbox

import (
	"context"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage"
)

// imageStore keeps what the options say of images, which need Linux.
type imageStore struct{ opts ImageOptions }

// root leaves it to the keeper to refuse an image.
func (p *provider) root(context.Context, *driver.Config) (*ociimage.Root, error) { return nil, nil }
