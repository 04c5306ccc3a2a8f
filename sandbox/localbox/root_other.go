//go:build unix && !linux

package localbox

import (
	"context"
	"errors"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

func (b *box) snapshotImage(context.Context, *wire.Request, *wire.Root) (string, error) {
	return "", errors.ErrUnsupported
}

func isImage(string) bool { return false }

func (p *provider) deleteImage(string) error { return errors.ErrUnsupported }

func (p *provider) imageNamed(string) (*wire.Root, error) { return nil, errors.ErrUnsupported }
