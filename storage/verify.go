package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// Verified says what a Verify found.
type Verified struct {
	// Versions and Objects count what was read, Bytes is how much that was.
	Versions, Objects int
	Bytes             int64
	// Problems are the objects that are damaged or missing.
	Problems []Problem
}

// Problem is an object that is not what was stored.
type Problem struct {
	// Object is its key.
	Object string
	// Versions are the IDs of those that need it. Of a record that cannot be read,
	// which holds one version, the ID is known where a Prune has noted it.
	Versions []string
	// Err matches ErrCorrupt, and fs.ErrNotExist where the object is missing. Of a
	// record that is, or seems to be, of a later format it matches
	// errors.ErrUnsupported instead.
	Err error
}

// Verify reads every byte that the volume's versions need and checks it against
// the SHA-256 that was stored with it. Damage is reported, each object once, and is
// no error; an error is that something could not be looked at. Memory is bounded
// but for the listings of one version at a time, and about 100 bytes for each
// file content.
func (v *Volume) Verify(ctx context.Context) (*Verified, error) {
	if v.err != nil {
		return nil, v.err
	}
	check := &verifying{v: v, packs: map[string]*packNeeds{}, trees: map[string]*tree.Tree{}}
	err := check.records(ctx)
	if err == nil {
		err = check.readPacks(ctx)
	}
	if err != nil {
		return nil, v.fail("verify", err)
	}
	return &check.out, nil
}

type verifying struct {
	v     *Volume
	packs map[string]*packNeeds
	trees map[string]*tree.Tree // the last one that was read
	out   Verified
}

// packNeeds is what versions need of a pack.
type packNeeds struct {
	versions []string
	frames   map[tree.Frame]map[tree.Blob]bool // Pack and Frame are nil in these
}

func (c *verifying) problem(object string, versions []string, err error) {
	i := slices.IndexFunc(c.out.Problems, func(p Problem) bool { return p.Object == object })
	if i >= 0 {
		c.out.Problems[i].Versions = append(c.out.Problems[i].Versions, versions...)
		return
	}
	c.out.Problems = append(c.out.Problems, Problem{Object: object, Versions: versions, Err: err})
}

// records reads the records and listings of all versions.
func (c *verifying) records(ctx context.Context) error {
	slots, val, err := c.v.validSlots(ctx)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		r, err := c.v.readRecord(ctx, slot, -1)
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed since it was listed
			continue
		case lasting(err):
			c.problem(c.v.slotKey(slot), val.id(slot), err)
			continue
		case err != nil:
			return err
		case !val.is(r):
			continue
		}
		c.out.Versions++
		c.out.Objects++
		if err := c.version(ctx, r); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func (c *verifying) version(ctx context.Context, r *record) error {
	base := c.trees[r.Tree.Name]
	if base == nil {
		var err error
		base, err = c.v.loadTree(ctx, r.Tree)
		if errors.Is(err, ErrCorrupt) {
			c.problem(c.v.treeKey(r.Tree.Name), []string{r.ID}, err)
			return nil
		}
		if err != nil {
			return err
		}
		c.out.Objects++
		c.out.Bytes += r.Tree.Size
		clear(c.trees)
		c.trees[r.Tree.Name] = base
	}
	k, err := r.on(base)
	if err != nil {
		c.problem(c.v.slotKey(r.Slot), []string{r.ID}, err)
		return nil
	}
	for i := range k.tree.Entries {
		for _, chunk := range k.tree.Entries[i].Chunks {
			if chunk.Blob != nil {
				c.need(r.ID, chunk.Blob)
			}
		}
	}
	return nil
}

func (c *verifying) need(version string, b *tree.Blob) {
	name := b.Frame.Pack.Name
	needs := c.packs[name]
	if needs == nil {
		needs = &packNeeds{frames: map[tree.Frame]map[tree.Blob]bool{}}
		c.packs[name] = needs
	}
	if n := len(needs.versions); n == 0 || needs.versions[n-1] != version {
		needs.versions = append(needs.versions, version)
	}
	frame, blob := *b.Frame, *b
	frame.Pack, blob.Frame = nil, nil
	if needs.frames[frame] == nil {
		needs.frames[frame] = map[tree.Blob]bool{}
	}
	needs.frames[frame][blob] = true
}

// packsAtOnce is how many packs Verify reads at a time.
const packsAtOnce = 3

// maxPack bounds the memory that a pack may take here, in bytes.
const maxPack = 64 << 20

func (c *verifying) readPacks(ctx context.Context) error {
	names := make([]string, 0, len(c.packs))
	for name := range c.packs {
		names = append(names, name)
	}
	slices.Sort(names)
	faults, sizes := make([]error, len(names)), make([]int, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(packsAtOnce)
	for i, name := range names {
		g.Go(func() error {
			var err error
			sizes[i], err = c.readPack(ctx, name)
			if errors.Is(err, ErrCorrupt) {
				faults[i] = err
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, name := range names {
		c.out.Objects++
		c.out.Bytes += int64(sizes[i])
		if faults[i] != nil {
			c.problem(c.v.packKey(name), c.packs[name].versions, faults[i])
		}
	}
	return nil
}

// fitsName reports whether a pack has the SHA-256 or CRC-32C that its name says.
func fitsName(name string, data []byte) bool {
	if nameShape.MatchString(name) {
		sum := sha256.Sum256(data)
		return strings.HasPrefix(name, hex.EncodeToString(sum[:]))
	}
	return strings.HasPrefix(name, hex.EncodeToString(crcOf(data)))
}

func (c *verifying) readPack(ctx context.Context, name string) (int, error) {
	key := c.v.packKey(name)
	data, err := c.v.get(ctx, key, -1, maxPack)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("object %s: %w: it is missing: %w", key, ErrCorrupt, err)
	case err != nil:
		return len(data), err
	}
	if !fitsName(name, data) {
		return len(data), fmt.Errorf("object %s: %w: its checksum differs from its name", key, ErrCorrupt)
	}
	for frame, blobs := range c.packs[name].frames {
		if int64(frame.Off)+int64(frame.Stored) > int64(len(data)) {
			return len(data), fmt.Errorf("object %s: %w: it ends before byte %d", key, ErrCorrupt, frame.Off+frame.Stored)
		}
		contents, err := openFrame(&frame, data[frame.Off:frame.Off+frame.Stored])
		for blob := range blobs {
			if err == nil {
				err = checkBlob(&blob, contents)
			}
		}
		if err != nil {
			return len(data), fmt.Errorf("object %s, bytes %d to %d: %w", key, frame.Off, frame.Off+frame.Stored, err)
		}
	}
	return len(data), nil
}
