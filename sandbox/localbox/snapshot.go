//go:build unix

package localbox

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// Snapshot implements driver.Snapshotter. It saves /workspace, /home/user and
// /tmp, file after file: what a command writes meanwhile may be saved as it was
// before or after. The snapshot is in the state directory until DeleteSnapshot.
func (b *box) Snapshot(ctx context.Context) (string, error) {
	id := state.NewSnapshotID()
	path, err := b.dir.Snapshot(id)
	if err != nil {
		return "", err
	}
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	err = b.save(ctx, f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(tmp))
	}
	return id, nil
}

// save writes the sandbox's files to w, packed and compressed.
func (b *box) save(ctx context.Context, w io.Writer) error {
	zw, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(2))
	if err != nil {
		return err
	}
	r, pw, err := os.Pipe()
	if err != nil {
		return errors.Join(err, zw.Close())
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(zw, r)
		copied <- errors.Join(err, r.Close())
	}()
	_, _, err = b.call(ctx, &wire.Request{Op: wire.OpSave}, nil, int(pw.Fd()))
	pw.Close()
	if err != nil {
		r.Close() // the helper may still be writing; it ends with this
	}
	cerr := <-copied
	if err != nil {
		cerr = nil
	}
	return errors.Join(err, cerr, zw.Close())
}

// DeleteSnapshot implements driver.SnapshotDeleter.
func (p *provider) DeleteSnapshot(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path, err := p.dir.Snapshot(id)
	if err != nil {
		return err
	}
	if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
		return driver.ErrNotFound
	} else if err != nil {
		return err
	}
	return nil
}
