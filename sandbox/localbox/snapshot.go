//go:build unix

package localbox

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// Snapshot implements driver.Snapshotter. Of a sandbox without an image it saves
// /workspace, /home/user and /tmp in the state directory, of one with an image
// all that was changed in it, as another image. File is saved after file: what
// a command writes meanwhile may be saved as it was before or after. It stays
// until DeleteSnapshot.
func (b *box) Snapshot(ctx context.Context) (string, error) {
	if b.root != nil {
		return b.snapshotImage(ctx, &wire.Request{Op: wire.OpSaveLayer}, b.root)
	}
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
	err = b.archive(ctx, &wire.Request{Op: wire.OpSave}, func(r io.Reader) error { return compress(f, r) })
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

// SnapshotDir implements driver.DirSnapshotter. What is mounted below dir, such
// as Config.Mounts, is left out.
func (b *box) SnapshotDir(ctx context.Context, dir string) (string, error) {
	if b.plain {
		return "", &driver.UnsupportedError{Setting: "SnapshotDir", Reason: "plain processes have no images"}
	}
	return b.snapshotImage(ctx, &wire.Request{Op: wire.OpSaveBelow, Path: dir}, nil)
}

func compress(w io.Writer, r io.Reader) error {
	zw, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(2))
	if err != nil {
		return err
	}
	_, err = io.Copy(zw, r)
	return errors.Join(err, zw.Close())
}

// archive lets read have the archive that the helper writes for req. What it
// reads ends with an error, not with io.EOF, when the archive is not whole.
func (b *box) archive(ctx context.Context, req *wire.Request, read func(io.Reader) error) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	a := &archiveReader{pipe: r}
	done := make(chan error, 1)
	go func() {
		err := read(a)
		// The helper may still be writing; that ends with this.
		done <- errors.Join(err, r.Close())
	}()
	_, _, err = b.call(ctx, req, nil, int(w.Fd()))
	if err != nil {
		a.failed.Store(&err)
		_ = r.SetReadDeadline(time.Unix(1, 0)) // it may not have let go of its end
	}
	w.Close()
	rerr := <-done
	switch {
	case err == nil:
		return rerr
	case rerr == nil || ctx.Err() != nil || errors.Is(rerr, err):
		return err
	}
	return rerr // and so the helper could not go on writing
}

// archiveReader reads what a helper writes.
type archiveReader struct {
	pipe   *os.File
	failed atomic.Pointer[error]
}

// Read implements io.Reader.
func (a *archiveReader) Read(p []byte) (int, error) {
	n, err := a.pipe.Read(p)
	if why := a.failed.Load(); err != nil && why != nil {
		err = *why
	}
	return n, err
}

// DeleteSnapshot implements driver.SnapshotDeleter.
func (p *provider) DeleteSnapshot(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if isImage(id) {
		return p.deleteImage(id)
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
