package localbox

import (
	"context"
	"io"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// snapshotImage makes an image of base, which may be nil, and the archive that
// the helper writes for req.
func (b *box) snapshotImage(ctx context.Context, req *wire.Request, base *wire.Root) (id string, err error) {
	store, err := b.p.images()
	if err != nil {
		return "", err
	}
	var on *ociimage.Root
	if base != nil { // its keeper holds it
		on = imageOf(base)
	}
	err = b.archive(ctx, req, func(r io.Reader) error {
		id, err = store.AddLayer(ctx, on, r)
		return err
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

func isImage(id string) bool { return ociimage.IsID(id) }

func (p *provider) deleteImage(id string) error {
	store, err := p.images()
	if err != nil {
		return err
	}
	return store.Delete(id)
}

func (p *provider) imageNamed(id string) (*wire.Root, error) {
	store, err := p.images()
	if err != nil {
		return nil, err
	}
	rec, err := store.Lookup(id)
	if err != nil {
		return nil, err
	}
	return onWire(store.Root(rec)), nil
}
