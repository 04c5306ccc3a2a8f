package storage

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/vivarium-go/vivarium/storage/internal/ignore"
)

// Options change how a Volume works. The zero value, like nil, means the defaults
// given with each field.
type Options struct {
	// Compression is a zstd level as the zstd program counts them, 1 (fast) to
	// 22 (small); levels are rounded to the four that the compressor has. Zero
	// means 1. It concerns new contents only.
	Compression int
	// Exclude are patterns in the syntax of a .gitignore file at the top of the
	// directory. What they match is no part of the volume: Sync does not
	// store it, and Restore neither makes nor deletes it. Nil means DefaultExclude;
	// to exclude nothing give an empty list that is not nil.
	Exclude []string
	// Owners keeps the numbers of owner and group through a Restore, which then has
	// to run as root. Otherwise files belong to the user that restores them.
	Owners bool
	// Paranoid reads every file at each Sync, and at each Restore writes every
	// file anew. Otherwise a file counts as unchanged when its size and its
	// modification time are what they were, to the nanosecond where the sandbox
	// can tell, and, for a Sync of the same directory on the same machine as the
	// one before, the kernel has recorded no change of it since then (ctime).
	Paranoid bool
	// Author and Note are kept with each version that is made. They are for
	// people; a note may have up to 64 KiB.
	Author, Note string
	// Parent is the ID of the version that the directory came from. When another
	// has become the newest since, Sync fails with ErrConflict. Empty means the one
	// that is the newest when Sync begins.
	Parent string
	// KeepConflict makes a Sync that ends with ErrConflict keep its version all the
	// same, beside the others: it is listed, with Version.Conflict set, and can be
	// restored, but it does not become the newest.
	KeepConflict bool
	// Memory bounds the bytes of contents that one call has in memory at a
	// time. The listing comes on top: about 300 bytes for each file and the length
	// of its name. Zero means 64 MiB; less than 32 MiB is refused.
	Memory int64
	// Direct makes files of at least so many bytes, in sandboxes, travel between
	// there and the bucket without this process, by requests that it signs and curl
	// in the sandbox sends. The bucket has to be a [Presigner], and the sandbox has to
	// reach it. A request names one object, and to store something the SHA-256 that
	// it must have; it is valid for ten minutes at most, and neither a file nor
	// another process sees it. Such files are cut at fixed places and are not
	// compressed. Zero means never; less than 16 MiB is refused.
	Direct int64
	// MaxFiles bounds how many entries a directory may have, so that what runs in
	// a sandbox cannot make this process run out of memory. Zero means 5,000,000.
	MaxFiles int
	// Progress, if it is not nil, is called as a Sync or a Restore goes on: at the
	// beginning of each phase and at its end, and in between about ten times a
	// second. It is called by one goroutine at a time and should return quickly.
	Progress func(Progress)
}

// Volume is a named series of versions in a bucket. It holds no state and no
// connection, so it needs no closing, may be made anew at any time, by any
// number of processes, and is safe for concurrent use.
//
// Init and Restore must not run while another Init, Restore or Sync works on the
// same directory of the same sandbox. Nothing else needs to be kept apart: of
// several Syncs at once, from any machines, one makes the next version and the
// others fail with ErrConflict.
//
// Errors name the volume and the operation. Those of the bucket and of the runner
// can be reached with errors.Is and errors.As.
type Volume struct {
	bucket  Bucket
	name    string
	opts    Options
	exclude *ignore.Matcher
	err     error // a bad name or option; every method returns it
}

// Defaults and bounds of Options.
const (
	defaultMemory   = 64 << 20
	leastMemory     = 32 << 20
	leastDirect     = 16 << 20
	defaultMaxFiles = 5_000_000
	maxNote         = 64 << 10
)

// DefaultExclude is what Options.Exclude excludes unless it is set: what file
// systems and desktops leave behind, and caches that their programs make anew.
// Callers may read it, not change it.
var DefaultExclude = []string{
	"/lost+found/", ".nfs*", ".fuse_hidden*", ".DS_Store",
	"__pycache__/", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", "node_modules/.cache/",
}

// NewVolume gives the volume called name in bucket. It does not go to the bucket:
// a volume that nothing was synced to has no versions. With a name that
// [CheckName] refuses, or an option out of its bounds, every method returns an error
// that matches fs.ErrInvalid. opts may be nil.
func NewVolume(bucket Bucket, name string, opts *Options) *Volume {
	v := &Volume{bucket: bucket, name: name, err: CheckName(name)}
	if opts != nil {
		v.opts = *opts
	}
	if v.opts.Memory == 0 {
		v.opts.Memory = defaultMemory
	}
	if v.opts.MaxFiles == 0 {
		v.opts.MaxFiles = defaultMaxFiles
	}
	if v.opts.Exclude == nil {
		v.opts.Exclude = DefaultExclude
	}
	matcher, err := ignore.New(v.opts.Exclude)
	v.exclude = matcher
	if v.err != nil {
		return v
	}
	if err == nil {
		err = v.opts.check()
	}
	if err != nil {
		v.err = fmt.Errorf("storage: volume %s: %w: %w", name, err, fs.ErrInvalid)
	}
	return v
}

func (o *Options) check() error {
	_, _, id := parseID(o.Parent)
	switch {
	case o.Compression < 0 || o.Compression > 22:
		return fmt.Errorf("compression level %d is not from 1 to 22", o.Compression)
	case o.Memory < leastMemory:
		return fmt.Errorf("%d bytes of memory are less than the %d that are needed", o.Memory, leastMemory)
	case o.Direct != 0 && o.Direct < leastDirect:
		return fmt.Errorf("files of %d bytes are too small to travel directly: %d are the least", o.Direct, leastDirect)
	case o.MaxFiles < 0:
		return fmt.Errorf("MaxFiles is negative")
	case len(o.Author)+len(o.Note) > maxNote:
		return fmt.Errorf("author and note have more than %d bytes", maxNote)
	case o.Parent != "" && !id:
		return fmt.Errorf("parent %q is no id of a version", clip(o.Parent))
	}
	return nil
}

// With gives the same volume with other options: change gets a copy of v's, with
// the defaults filled in. It is for what differs from call to call, such as Author,
// Note, Parent and Progress, in a program that gets its volumes from elsewhere. v
// stays as it is.
func (v *Volume) With(change func(*Options)) *Volume {
	opts := v.opts
	change(&opts)
	return NewVolume(v.bucket, v.name, &opts)
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
func (v *Volume) slotPrefix() string { return v.name + "/_versions/" }

func (v *Volume) slotKey(slot uint64) string { return fmt.Sprintf("%s%010d", v.slotPrefix(), slot) }

func (v *Volume) packKey(name string) string { return v.name + "/_packs/" + name }

func (v *Volume) treeKey(name string) string { return v.name + "/_trees/" + name }

func (v *Volume) clockKey(name string) string { return v.name + "/_clock/" + name }

// fail wraps an error once, with what was being done.
func (v *Volume) fail(op string, err error) error {
	return fmt.Errorf("storage: %s volume %s: %w", op, v.name, err)
}
