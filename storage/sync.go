package storage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// streamBuffer is the size of the buffers between the stages of a Sync or a
// Restore, in bytes.
const streamBuffer = 256 << 10

// cleanupTime bounds clean-up, which goes on when the caller's context has ended.
const cleanupTime = 30 * time.Second

// Sync stores the directory dir of sb, an absolute path below the root, as a new
// version, and returns it. The archive streams from the sandbox through a
// compressor into the bucket, in bounded memory.
//
// Kept are names (any bytes), contents, permission bits, modification times
// (to the nanosecond with GNU tar, to the second with busybox), symbolic and hard
// links, FIFOs, empty directories, and holes in sparse files (with GNU tar). Not
// kept are owners, setuid and setgid bits, extended attributes, devices and
// sockets.
//
// A file that changes while it is read does not fail the Sync; it is named in
// Version.Changed. Anything else that tar complains of does: a version is whole.
// When Sync returns an error, no new version exists, except that after a failure
// of the very last write (the manifest's) it may come to exist; the error then
// matches [ErrUnknownOutcome]. Garbage it may leave is never part of a version.
//
// A directory that does not exist matches fs.ErrNotExist. What a broken-off
// Restore left in dir is first brought to one of its two ends.
func (v *Volume) Sync(ctx context.Context, sb Runner, dir string) (*Version, error) {
	if v.err != nil {
		return nil, v.err
	}
	version, err := v.sync(ctx, sb, dir)
	if err != nil {
		return nil, v.fail("sync", err)
	}
	return version, nil
}

// ErrUnknownOutcome is matched by the error of a Sync whose last write was sent
// and not answered: its version may exist.
var ErrUnknownOutcome = errors.New("the new version may or may not exist")

func (v *Volume) sync(ctx context.Context, sb Runner, dir string) (*Version, error) {
	dir, err := checkDir(dir)
	if err != nil {
		return nil, err
	}
	id, t, err := v.nextID(ctx)
	if err != nil {
		return nil, err
	}
	m := &manifest{Format: formatNumber, ID: id, Time: t}
	if err := v.storeArchive(ctx, sb, dir, m); err != nil {
		if !errors.Is(err, fs.ErrExist) { // that would be another's
			v.dropArchive(ctx, id)
		}
		return nil, err
	}
	if err := v.commit(ctx, m); err != nil {
		return nil, err
	}
	return m.version(), nil
}

// dropArchive removes the archive of a version that was given up before its
// manifest was sent. What it cannot remove is garbage and does no harm.
func (v *Volume) dropArchive(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	_ = v.bucket.Delete(ctx, v.archiveKey(id))
}

// commit writes the manifest, which makes the version exist. Once it was sent the
// archive must stay, as a write whose answer was lost may still land.
func (v *Volume) commit(ctx context.Context, m *manifest) error {
	data, err := m.encode()
	if err != nil {
		return err
	}
	err = v.bucket.Put(ctx, v.manifestKey(m.ID), bytes.NewReader(data), &PutOptions{IfAbsent: true})
	if err == nil || errors.Is(err, fs.ErrInvalid) {
		return err
	}
	readCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	r, getErr := v.bucket.Get(readCtx, v.manifestKey(m.ID), 0, -1)
	if getErr != nil {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	defer func() { _ = r.Close() }()
	if there, getErr := readBounded(r, maxManifest); getErr != nil || !bytes.Equal(there, data) {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	return nil
}

// storeArchive streams the directory into the archive object and fills in what
// the manifest says of it. When it fails, the object does not exist, unless the
// bucket's answer was lost.
func (v *Volume) storeArchive(ctx context.Context, sb Runner, dir string, m *manifest) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tarOut, tarIn := io.Pipe()
	zstOut, zstIn := io.Pipe()
	var g errgroup.Group
	g.Go(func() error {
		err := sb.Run(ctx, nil, tarIn, "sh", "-c", syncScript, "sh", dir)
		_ = tarIn.CloseWithError(err) // never fails
		return err
	})
	g.Go(func() error {
		err := v.compress(zstIn, tarOut, m)
		// Neither end may go on waiting for this one.
		_ = tarOut.CloseWithError(errStopped)
		if err != nil {
			cancel(err)
		}
		_ = zstIn.CloseWithError(err)
		return err
	})
	sum := &summed{r: zstOut, hash: sha256.New()}
	err := v.bucket.Put(ctx, v.archiveKey(m.ID), sum, &PutOptions{IfAbsent: true})
	if err != nil {
		cancel(err)
	}
	_ = zstOut.CloseWithError(errStopped)
	if stageErr := g.Wait(); err == nil {
		// A stage's error reaches Put through the pipes, so this is none, unless
		// the bucket stored a broken stream.
		err = stageErr
	}
	if err != nil {
		return fmt.Errorf("store archive: %w", rootCause(ctx, err))
	}
	m.Archive.Size, m.Archive.SHA256 = sum.n, hex.EncodeToString(sum.hash.Sum(nil))
	return nil
}

// errStopped is what a stage of a pipeline sees when the one after it gave up.
var errStopped = errors.New("stopped reading")

// rootCause adds the error that made the pipeline stop, when err only tells of a
// cancelled context.
func rootCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w (%w)", cause, err)
}

// summed counts and hashes what is read through it.
type summed struct {
	r    io.Reader
	hash hash.Hash
	n    int64
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	s.hash.Write(p[:n])
	return n, err
}

// compress turns the output of syncScript into an archive.
func (v *Volume) compress(w io.Writer, tarOut io.Reader, m *manifest) error {
	buffered := bufio.NewWriterSize(w, streamBuffer)
	level := max(v.opts.Compression, 1)
	zw, err := zstd.NewWriter(struct{ io.Writer }{buffered}, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)))
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(tarOut, streamBuffer)
	filter := newTarFilter(in, struct{ io.Writer }{zw})
	copyErr := filter.copy()
	changed, err := tarStatus(in, copyErr)
	if err != nil {
		_ = zw.Close() // ends its goroutines; what it writes is thrown away
		return err
	}
	if err := zw.Close(); err != nil {
		return err
	}
	m.Files, m.Size, m.Archive.TarSize, m.Changed = filter.files, filter.size, filter.written, changed
	return buffered.Flush()
}

// tarStatus reads what follows the archive in the output of syncScript. copyErr is
// how reading the archive ended: where the script has something to say, that
// explains it better.
func tarStatus(r io.Reader, copyErr error) (changed []string, err error) {
	words := &tail{max: 32 << 10}
	if _, err := io.Copy(words, r); err != nil {
		return nil, err
	}
	_, text, ok := strings.Cut(words.String(), statusMark)
	if !ok {
		if copyErr != nil {
			return nil, copyErr
		}
		return nil, fmt.Errorf("no word from tar after its archive: %w", io.ErrUnexpectedEOF)
	}
	text = strings.TrimSpace(text)
	at := strings.LastIndexByte(text, '\n') + 1
	said, status := strings.TrimSpace(text[:at]), text[at:]
	switch {
	case status == "absent":
		return nil, fs.ErrNotExist
	case copyErr == nil && (status == "gnu 0" || status == "other 0"):
		return nil, nil
	case copyErr == nil && status == "gnu 1":
		return changedFiles(said), nil
	case status == "failed":
		return nil, errors.New(clipTail(said))
	case copyErr != nil && strings.HasSuffix(status, " 0"):
		return nil, copyErr
	}
	return nil, fmt.Errorf("tar (%s): %s", status, clipTail(said))
}

func clipTail(s string) string {
	const most = 1000
	if len(s) <= most {
		return s
	}
	return "…" + s[len(s)-most:]
}

// What GNU tar 1.34 says when it exits with 1, "some files differ".
var changedLine = regexp.MustCompile(`^[^:]*tar: (.*): ([Ff]ile changed as we read it|[Ff]ile removed before we read it|[Ff]ile shrank by [0-9]+ bytes?; padding with zeros)$`)

// changedFiles picks the names out of tar's messages.
func changedFiles(said string) []string {
	names := []string{}
	for line := range strings.SplitSeq(said, "\n") {
		match := changedLine.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		if name := strings.TrimPrefix(match[1], "./"); len(names) < maxChanged && len(name) <= 4<<10 {
			names = append(names, name)
		}
	}
	if len(names) == 0 { // a message unknown here still means that something did
		names = append(names, ".")
	}
	return names
}
