package storage

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// Init restores the newest version into dir, or does nothing when the volume has
// none yet. It is otherwise like Restore. It never falls back to an older version
// when the newest cannot be restored.
func (v *Volume) Init(ctx context.Context, sb Runner, dir string) error {
	_, err := v.InitVersion(ctx, sb, dir)
	return err
}

// InitVersion is Init that says which version it restored, nil if there was none.
func (v *Volume) InitVersion(ctx context.Context, sb Runner, dir string) (*Version, error) {
	if v.err != nil {
		return nil, v.err
	}
	l, err := v.look(ctx)
	if err == nil && l.head != nil {
		err = v.restore(ctx, sb, dir, func(context.Context) (*record, error) { return l.head, nil })
	}
	if err != nil {
		return nil, v.fail("init", err)
	}
	if l.head == nil {
		return nil, nil
	}
	return l.head.version(), nil
}

// Restore makes dir, an absolute path below the root, hold exactly the version
// called id: what the version does not have is deleted, and dir is made when it
// is absent. What Options.Exclude excludes, and other file systems mounted below
// dir, are left as they are. Files that are there already are not written again
// (see Options.Paranoid). An unknown id matches fs.ErrNotExist, a record of a later
// format errors.ErrUnsupported, damage ErrCorrupt.
//
// What is to change is written in a directory of its own inside dir, every byte
// checked against its SHA-256, and then moved to its place by renames, so old and
// new need room at once. When Restore fails before that (a full disk, a cut stream,
// damage, a cancelled context) dir is as it was. The renames are not interrupted by
// ctx; if the sandbox dies during them, the next Init, Restore or Sync of dir
// finishes them first.
//
// Files are made by the user that sb runs commands as. dir must not be a symbolic
// link, and no link in dir or in the version is followed. setuid and setgid bits are
// never set. busybox tar knows neither fractions of a second nor sparse files:
// there, times are cut to seconds and holes are filled.
func (v *Volume) Restore(ctx context.Context, sb Runner, dir, id string) error {
	if v.err != nil {
		return v.err
	}
	err := v.restore(ctx, sb, dir, func(ctx context.Context) (*record, error) { return v.byID(ctx, id) })
	if errors.Is(err, ErrCorrupt) && v.pruned(ctx, id) {
		err = fmt.Errorf("version %s was pruned: %w", id, fs.ErrNotExist)
	}
	if err != nil {
		return v.fail("restore", err)
	}
	return nil
}

// pruned reports whether a version was forgotten so long ago that its contents may
// have gone.
func (v *Volume) pruned(ctx context.Context, id string) bool {
	_, slot, _ := parseID(id)
	l, err := v.look(ctx)
	if err != nil || slot >= l.fence {
		return false
	}
	val, err := v.validity(ctx, l.fence)
	return err == nil && val.named[slot] != id &&
		!slices.ContainsFunc(val.fence.Forgotten, func(f slotID) bool { return f.ID == id })
}

func (v *Volume) restore(ctx context.Context, sb Runner, dir string, find func(context.Context) (*record, error)) error {
	dir, err := checkDir(dir)
	if err != nil {
		return err
	}
	m := &meter{call: v.opts.Progress}
	m.begin(PhaseList, 0, 0)
	at := v.placeOf(sb, dir)
	var k *known
	var have *listing
	g, listCtx := errgroup.WithContext(ctx)
	g.Go(func() error {
		r, err := find(listCtx)
		if err == nil {
			k, err = v.load(listCtx, r)
		}
		return err
	})
	g.Go(func() (err error) {
		have, err = at.list(listCtx)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	p, err := v.planRestore(k, have)
	if err != nil || p.empty() {
		return err
	}
	if err := v.carryOut(ctx, at, p, m); err != nil {
		return err
	}
	m.end()
	return nil
}

func (v *Volume) carryOut(ctx context.Context, at place, p *plan, m *meter) error {
	st, err := at.begin(ctx)
	if err != nil {
		return err
	}
	entries, files, bytes := p.order()
	m.begin(PhaseWrite, int64(len(entries)), bytes)
	if len(entries) > 0 {
		files = slices.DeleteFunc(files, st.direct)
		out := v.newOutlet(ctx, m, files)
		err = st.fill(ctx, entries, out)
		out.close()
	}
	if err == nil {
		m.begin(PhaseApply, 0, 0)
		err = st.apply(ctx, p)
	}
	if err == nil {
		return nil
	}
	if finished, dropErr := st.drop(ctx); !finished {
		return errors.Join(err, dropErr)
	}
	return nil // at the second attempt
}

// placeOf gives what Sync and Restore work on.
func (v *Volume) placeOf(sb Runner, dir string) place {
	if _, ok := sb.(Local); ok {
		return &localDir{v: v, dir: dir}
	}
	return &sandboxed{v: v, sb: sb, dir: dir}
}

// load reads the listing of a version.
func (v *Volume) load(ctx context.Context, r *record) (*known, error) {
	base, err := v.loadTree(ctx, r.Tree)
	if err != nil {
		return nil, err
	}
	k, err := r.on(base)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", v.slotKey(r.Slot), err)
	}
	return k, nil
}

// on gives what the version is, on the listing that it builds on. Errors match
// ErrCorrupt.
func (r *record) on(base *tree.Tree) (k *known, err error) {
	k = &known{tree: base, base: base, origin: r.Origin}
	if k.listed, err = tarstream.ParseTime(cmp.Or(r.Listed, "0")); err != nil {
		return nil, fmt.Errorf("%w: bad time", ErrCorrupt)
	}
	if r.Delta != nil {
		delta, err := decodeListing(r.delta, r.Delta)
		if err != nil {
			return nil, err
		}
		k.tree = tree.Apply(base, delta)
	}
	if err := k.tree.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return k, nil
}

// loadTree reads a listing that is an object of its own.
func (v *Volume) loadTree(ctx context.Context, s *stored) (*tree.Tree, error) {
	key := v.treeKey(s.Name)
	data, err := v.get(ctx, key, s.Size, s.Size) // no memory ahead for what a record says
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("object %s: %w: it is missing: %w", key, ErrCorrupt, err)
	}
	if err != nil {
		return nil, err
	}
	t, err := decodeListing(data, s)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", key, err)
	}
	return t, nil
}

// decodeListing checks and reads a stored listing.
func decodeListing(data []byte, s *stored) (*tree.Tree, error) {
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != s.SHA256 {
		return nil, fmt.Errorf("%w: its SHA-256 differs", ErrCorrupt)
	}
	if int64(len(data)) != s.Size {
		return nil, fmt.Errorf("%w: it has %d bytes, not %d", ErrCorrupt, len(data), s.Size)
	}
	raw, err := unpackListing(data, s.Raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	t, err := tree.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	for _, f := range t.Frames() {
		if !packShape.MatchString(f.Pack.Name) {
			return nil, fmt.Errorf("%w: a pack called %q", ErrCorrupt, clip(f.Pack.Name))
		}
		if max(f.Stored, f.Size) > maxFrame {
			return nil, fmt.Errorf("%w: a frame of %d bytes", ErrCorrupt, max(f.Stored, f.Size))
		}
	}
	return t, nil
}

// packListing is the inverse of decodeListing.
func (v *Volume) packListing(t *tree.Tree) ([]byte, *stored) {
	raw := t.Encode()
	data := encoder(v.opts.Compression).EncodeAll(raw, nil)
	sum := sha256.Sum256(data)
	return data, &stored{Size: int64(len(data)), Raw: int64(len(raw)), SHA256: hex.EncodeToString(sum[:])}
}
