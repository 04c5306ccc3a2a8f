package storage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// ErrCorrupt is matched by the error of a Restore whose archive is not what was
// stored. Nothing in the directory was replaced.
var ErrCorrupt = errors.New("stored version is damaged")

// swapTime bounds the exchange of the old files for the new, which goes on when
// the caller's context has ended.
const swapTime = 10 * time.Minute

// maxWindow bounds what a zstd frame may ask of memory, in bytes. It is above
// what any level used by Sync writes.
const maxWindow = 64 << 20

// Init restores the newest version into dir, or does nothing when the volume has
// none yet. It is otherwise like Restore. It never falls back to an older version
// when the newest cannot be restored.
func (v *Volume) Init(ctx context.Context, sb Runner, dir string) error {
	if v.err != nil {
		return v.err
	}
	id, err := v.newest(ctx)
	if err != nil {
		return v.fail("init", err)
	}
	if id == "" {
		return nil
	}
	if err := v.restore(ctx, sb, dir, id); err != nil {
		return v.fail("init", err)
	}
	return nil
}

// Restore makes dir, an absolute path below the root, hold exactly the version
// called id: what the version does not have is deleted, and dir is made when it
// is absent. An unknown id matches fs.ErrNotExist, a manifest of a later format
// errors.ErrUnsupported, a damaged archive ErrCorrupt.
//
// The version is unpacked in a directory of its own inside dir, checked against
// its SHA-256, and then exchanged for the old files by renames, so both need room
// at once. When Restore fails before the exchange (a full disk, a cut stream, a
// bad archive, a cancelled context) dir is as it was. The exchange is not
// interrupted by ctx; if the sandbox dies in it, the next Init, Restore or Sync
// of dir finishes or undoes it first.
//
// Files are made by the user that sb runs commands as. dir must not be a symbolic
// link, and no link in dir or in the version is followed. busybox tar knows
// neither fractions of a second nor sparse files: there, times are cut to seconds
// and holes are filled.
func (v *Volume) Restore(ctx context.Context, sb Runner, dir, id string) error {
	if v.err != nil {
		return v.err
	}
	if err := v.restore(ctx, sb, dir, id); err != nil {
		return v.fail("restore", err)
	}
	return nil
}

func (v *Volume) restore(ctx context.Context, sb Runner, dir, id string) error {
	dir, err := checkDir(dir)
	if err != nil {
		return err
	}
	m, err := v.manifest(ctx, id)
	if err != nil {
		return err
	}
	stage := strings.ToLower(rand.Text())
	kind, err := runScript(ctx, sb, nil, prepareScript, dir, stage)
	if err != nil {
		return fmt.Errorf("prepare %s: %w", dir, err)
	}
	into := posix
	if kind != "gnu" {
		into = busybox
	}
	sent, err := v.extract(ctx, sb, m, into, dir, stage)
	if err == nil {
		err = closeDirs(ctx, sb, sent, dir, stage)
	}
	if err == nil {
		err = swap(ctx, sb, sent.root, dir, stage)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("version %s: %w", id, err), tidy(ctx, sb, dir))
	}
	return nil
}

// closeDirs gives the directories their times, and takes away the rights that they
// had while they were filled, where busybox did not.
func closeDirs(ctx context.Context, sb Runner, sent *tarFilter, dir, stage string) error {
	if len(sent.dirs) == 0 {
		return nil
	}
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		out := bufio.NewWriterSize(w, streamBuffer)
		err := sent.writeDirs(out)
		if err == nil {
			err = out.Flush()
		}
		_ = w.CloseWithError(err)
		written <- err
	}()
	_, err := runScript(ctx, sb, r, extractScript, dir, stage)
	_ = r.CloseWithError(errStopped)
	if err = errors.Join(err, <-written); err != nil {
		return fmt.Errorf("set times of directories: %w", err)
	}
	list := sent.closed()
	if len(list) == 0 {
		return nil
	}
	if _, err := runScript(ctx, sb, bytes.NewReader(list), closeScript, dir, stage); err != nil {
		return fmt.Errorf("set modes of directories: %w", err)
	}
	return nil
}

// swap exchanges the old files for the unpacked ones.
func swap(ctx context.Context, sb Runner, root *member, dir, stage string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), swapTime)
	defer cancel()
	var mode, mtime string
	if root != nil {
		mode, mtime = strconv.FormatInt(root.mode, 8), root.mtime
	}
	if _, err := runScript(ctx, sb, nil, swapScript, dir, stage, mode, mtime); err != nil {
		return fmt.Errorf("exchange files in %s: %w", dir, err)
	}
	return nil
}

// tidy brings a failed restore to one of its ends.
func tidy(ctx context.Context, sb Runner, dir string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), swapTime)
	defer cancel()
	if _, err := runScript(ctx, sb, nil, cleanScript, dir); err != nil {
		return fmt.Errorf("clean up %s: %w", dir, err)
	}
	return nil
}

// extract feeds the archive to tar in the staging directory, and returns the filter
// that it went through. It succeeds only when tar did and every byte was
// what the manifest says.
func (v *Volume) extract(ctx context.Context, sb Runner, m *manifest, into dialect, dir, stage string) (*tarFilter, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := v.bucket.Get(ctx, v.archiveKey(m.ID), 0, -1)
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	defer func() { _ = stream.Close() }()
	r, w := io.Pipe()
	type result struct {
		filter *tarFilter
		err    error
	}
	sent := make(chan result, 1)
	go func() {
		filter, err := decompress(w, stream, m, into)
		if err != nil && !errors.Is(err, errStopped) {
			// A command may take a broken stdin for its end, so end it too.
			cancel(err)
		}
		_ = w.CloseWithError(err)
		sent <- result{filter, err}
	}()
	text, runErr := runScript(ctx, sb, r, extractScript, dir, stage)
	_ = r.CloseWithError(errStopped)
	if runErr != nil {
		cancel(runErr) // frees a decompressor that waits for the bucket
	}
	got := <-sent
	switch {
	case got.err != nil && !errors.Is(got.err, errStopped) && runErr != nil && errors.Is(context.Cause(ctx), got.err):
		return nil, got.err
	case runErr != nil:
		return nil, fmt.Errorf("unpack: %w", runErr)
	case got.err != nil:
		return nil, said(got.err, text)
	}
	return got.filter, nil
}

// decompress writes the archive as tar to w, and checks all that is known of it.
func decompress(w io.Writer, stream io.Reader, m *manifest, into dialect) (*tarFilter, error) {
	sum := &summed{r: io.LimitReader(stream, m.Archive.Size+1), hash: sha256.New()}
	zr, err := zstd.NewReader(sum, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer zr.Close() // may be called twice
	plain := &io.LimitedReader{R: zr, N: m.Archive.TarSize}
	out := bufio.NewWriterSize(w, streamBuffer)
	filter := newTarFilter(bufio.NewReaderSize(plain, streamBuffer), struct{ io.Writer }{out})
	filter.dialect, filter.noRoot = into, true
	copyErr := filter.copy()
	if errors.Is(copyErr, errStopped) {
		return nil, copyErr
	}
	zr.Close() // before anything else reads from sum
	if _, err := io.Copy(io.Discard, sum); err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	switch {
	case sum.n != m.Archive.Size || hex.EncodeToString(sum.hash.Sum(nil)) != m.Archive.SHA256:
		return nil, fmt.Errorf("%w: its SHA-256 or its length differs from the manifest's", ErrCorrupt)
	case copyErr != nil:
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, copyErr)
	case plain.N != 0:
		return nil, fmt.Errorf("%w: the tar inside is %d bytes shorter than the manifest says", ErrCorrupt, plain.N)
	}
	return filter, out.Flush()
}
