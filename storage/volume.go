package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options change how a Volume works. The zero value, like nil, means the defaults
// given with each field.
type Options struct {
	// Compression is a zstd level as the zstd program counts them, 1 (fast) to
	// 22 (small); levels are rounded to the four that the compressor has. Zero
	// means 1. It concerns new versions only.
	Compression int
}

// Volume is a named series of versions in a bucket. It holds no state and no
// connection, so it needs no closing, may be made anew at any time, by any
// number of processes, and is safe for concurrent use.
//
// Init and Restore must not run while another Init, Restore or Sync works on the
// same directory of the same sandbox. Nothing else needs to be kept apart: any
// number of Syncs, from any machines, become as many versions.
//
// Errors name the volume and the operation. Those of the bucket and of the runner
// can be reached with errors.Is and errors.As.
type Volume struct {
	bucket Bucket
	name   string
	opts   Options
	err    error // a bad name; every method returns it
}

// NewVolume gives the volume called name in bucket. It does not go to the bucket:
// a volume that nothing was synced to has no versions. With a name that
// [CheckName] refuses, every method returns CheckName's error. opts may be nil.
func NewVolume(bucket Bucket, name string, opts *Options) *Volume {
	v := &Volume{bucket: bucket, name: name, err: CheckName(name)}
	if opts != nil {
		v.opts = *opts
	}
	if v.err == nil && (v.opts.Compression < 0 || v.opts.Compression > 22) {
		v.err = fmt.Errorf("storage: volume %s: compression level %d is not from 1 to 22: %w", name, v.opts.Compression, fs.ErrInvalid)
	}
	return v
}

// Name returns the volume's name.
func (v *Volume) Name() string { return v.name }

// Limits of a volume's name; with the longest key below it, it fits maxKey.
const (
	maxName        = 256
	maxNameSegment = 64
)

// CheckName returns nil when name can name a volume: one or more segments
// separated by slashes ("acme/workspace-7"), each of 1 to 64 ASCII letters,
// digits, dots, hyphens and underscores with a letter or a digit at its start,
// and at most 256 bytes in all. Otherwise it returns an error that matches
// fs.ErrInvalid. Case counts.
func CheckName(name string) error {
	if why := nameFault(name); why != "" {
		return fmt.Errorf("storage: volume name %q %s: %w", clip(name), why, fs.ErrInvalid)
	}
	return nil
}

func nameFault(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxName:
		return fmt.Sprintf("is longer than %d bytes", maxName)
	case strings.HasPrefix(name, "/"):
		return "starts with a slash"
	}
	for segment := range strings.SplitSeq(name, "/") {
		switch {
		case segment == "":
			return "has an empty segment"
		case len(segment) > maxNameSegment:
			return fmt.Sprintf("has a segment longer than %d bytes", maxNameSegment)
		case !alphanumeric(rune(segment[0])):
			return "has a segment that does not start with a letter or a digit"
		case strings.ContainsFunc(segment, func(r rune) bool { return !alphanumeric(r) && !strings.ContainsRune("._-", r) }):
			return "has a character other than letters, digits, '.', '_' and '-'"
		}
	}
	return ""
}

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
}

// No segment of a volume's name starts with "_", so the keys of "a" are never
// those of "a/b".
const (
	manifestSuffix = ".json"
	archiveSuffix  = ".tar.zst"
)

func (v *Volume) manifestPrefix() string { return v.name + "/_versions/" }

func (v *Volume) manifestKey(id string) string { return v.manifestPrefix() + id + manifestSuffix }

func (v *Volume) archiveKey(id string) string { return v.name + "/_archives/" + id + archiveSuffix }

// fail wraps an error once, with what was being done.
func (v *Volume) fail(op string, err error) error {
	return fmt.Errorf("storage: %s volume %s: %w", op, v.name, err)
}

// ids lists the ids of the volume's versions, oldest first. Objects that are not
// named like a manifest are not versions.
func (v *Volume) ids(ctx context.Context) (ids []string, err error) {
	prefix := v.manifestPrefix()
	for object, err := range v.bucket.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		id, ok := strings.CutSuffix(strings.TrimPrefix(object.Key, prefix), manifestSuffix)
		if !ok {
			continue
		}
		if _, ok := idTime(id); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// newest gives the id of the newest version, or "".
func (v *Volume) newest(ctx context.Context) (string, error) {
	ids, err := v.ids(ctx)
	if err != nil || len(ids) == 0 {
		return "", err
	}
	return ids[len(ids)-1], nil
}

// nextID gives an id for now that sorts after every version there is, even when
// another machine's clock ran ahead of this one.
func (v *Volume) nextID(ctx context.Context) (string, time.Time, error) {
	now := time.Now().UTC().Round(0)
	last, err := v.newest(ctx)
	if err != nil {
		return "", now, err
	}
	if t, ok := idTime(last); ok && !now.After(t) {
		now = t.Add(1)
	}
	return newID(now), now, nil
}

// manifest reads the manifest of a version; an unknown id matches fs.ErrNotExist.
func (v *Volume) manifest(ctx context.Context, id string) (*manifest, error) {
	if _, ok := idTime(id); !ok {
		return nil, fmt.Errorf("version %q: %w", clip(id), fs.ErrNotExist)
	}
	m, err := v.readManifest(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("version %s: %w", id, err)
	}
	return m, nil
}

func (v *Volume) readManifest(ctx context.Context, id string) (*manifest, error) {
	r, err := v.bucket.Get(ctx, v.manifestKey(id), 0, -1)
	if err != nil {
		return nil, err
	}
	data, err := readBounded(r, maxManifest)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	return parseManifest(data, id)
}

// manifestsAtOnce is how many manifests are fetched at a time by Versions.
const manifestsAtOnce = 16

// Versions gives the volume's versions, newest first; a volume that was never
// synced has none. Manifests are fetched as the sequence is read, a few ahead. A
// version whose manifest cannot be read is given as an error in its place, and
// the sequence can go on after it; after an error of listing it ends. Each range
// over it asks the bucket again.
func (v *Volume) Versions(ctx context.Context) iter.Seq2[*Version, error] {
	return func(yield func(*Version, error) bool) {
		ids, err := v.listed(ctx)
		if err != nil {
			yield(nil, v.fail("list versions of", err))
			return
		}
		slices.Reverse(ids)
		for chunk := range slices.Chunk(ids, manifestsAtOnce) {
			for _, got := range v.fetch(ctx, chunk) {
				switch {
				case errors.Is(got.err, fs.ErrNotExist): // removed since it was listed
				case got.err != nil:
					if !yield(nil, v.fail("list versions of", got.err)) {
						return
					}
				case !yield(got.m.version(), nil):
					return
				}
			}
			if ctx.Err() != nil {
				return
			}
		}
	}
}

func (v *Volume) listed(ctx context.Context) ([]string, error) {
	if v.err != nil {
		return nil, v.err
	}
	return v.ids(ctx)
}

type fetched struct {
	m   *manifest
	err error
}

// fetch reads several manifests at once.
func (v *Volume) fetch(ctx context.Context, ids []string) []fetched {
	out := make([]fetched, len(ids))
	var g errgroup.Group
	for i, id := range ids {
		g.Go(func() error {
			out[i].m, out[i].err = v.manifest(ctx, id)
			return nil
		})
	}
	_ = g.Wait() // each result carries its own error
	return out
}
