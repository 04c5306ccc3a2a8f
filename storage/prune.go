package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// Keep says which versions Prune keeps. A version is kept when any of the rules
// keeps it; the newest always is. The zero value keeps all, so that Prune only
// removes what no version needs. Periods are those of UTC, and of each the last
// version is the one that counts.
type Keep struct {
	// Last keeps so many of the newest.
	Last int
	// Within keeps those that are younger, by the clock of this machine.
	Within time.Duration
	// Hourly keeps the last version of each of so many hours that have one, and
	// the others likewise. Weeks are those of ISO 8601.
	Hourly, Daily, Weekly, Monthly, Yearly int
	// Also, if it is not nil, is asked about versions that no other rule keeps.
	Also func(*Version) bool
	// Grace is for how long what is no longer needed stays in the bucket, so
	// that a Restore that is under way can end, and a Sync that builds on it. A Sync
	// that meets a Prune and has taken longer than half of it fails with ErrConflict
	// and can be repeated. Zero means 24 hours. It is measured by the bucket's clock.
	Grace time.Duration
	// DryRun only reports what would be forgotten, and removes nothing.
	DryRun bool
}

const defaultGrace = 24 * time.Hour

// Pruned says what a Prune did.
type Pruned struct {
	// Kept counts the versions that remain. Forgotten are those that do not, newest
	// first; their contents go with a Prune after the grace.
	Kept      int
	Forgotten []*Version
	// Objects and Bytes count what was removed from the bucket.
	Objects int
	Bytes   int64
}

// Prune forgets the versions that keep does not name, and removes from the bucket
// what no version needs: what was forgotten, or left behind by a Sync that failed,
// longer ago than the grace. It may run beside any number of Syncs, Restores and
// other Prunes, and be broken off at any point. A version that cannot be read makes
// it fail before anything is removed.
func (v *Volume) Prune(ctx context.Context, keep Keep) (*Pruned, error) {
	if v.err != nil {
		return nil, v.err
	}
	p := &pruning{v: v, keep: keep}
	if p.keep.Grace == 0 {
		p.keep.Grace = defaultGrace
	}
	err := p.check()
	if err == nil {
		err = p.run(ctx)
	}
	if err != nil {
		return nil, v.fail("prune", err)
	}
	return &p.done, nil
}

type pruning struct {
	v     *Volume
	keep  Keep
	fence *record
	done  Pruned
}

func (p *pruning) check() error {
	k := &p.keep
	if min(k.Last, k.Hourly, k.Daily, k.Weekly, k.Monthly, k.Yearly) < 0 || k.Within < 0 || k.Grace < 0 {
		return fmt.Errorf("a number to keep is negative: %w", fs.ErrInvalid)
	}
	return nil
}

func (p *pruning) run(ctx context.Context) error {
	made, err := p.makeFence(ctx)
	if err != nil || !made {
		return err
	}
	// From here on no Sync that began before can commit unless it has taken less
	// than half of the grace, so what is now garbage and old will stay garbage.
	self, err := p.v.bucket.Stat(ctx, p.v.slotKey(p.fence.Slot))
	if err != nil {
		return err
	}
	live, err := p.live(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		overtaken, lookErr := p.overtaken(ctx)
		if overtaken {
			return nil // what is left to do, the other Prune does
		}
		err = errors.Join(err, lookErr)
	}
	if err != nil {
		return err
	}
	for _, prefix := range []string{p.v.packKey(""), p.v.treeKey(""), p.v.clockKey("")} {
		if err := p.sweep(ctx, prefix, live, self.Modified.Add(-p.keep.Grace)); err != nil {
			return err
		}
	}
	return p.sweepSlots(ctx, self.Modified.Add(-max(p.keep.Grace, slotRest)))
}

// makeFence decides what is forgotten and writes it down, in a slot of its own. It
// reports false where there is nothing to prune, or only a dry run.
func (p *pruning) makeFence(ctx context.Context) (bool, error) {
	for seen := uint64(0); ; {
		l, err := p.v.look(ctx)
		if err != nil || l.last == 0 {
			return false, err
		}
		p.done = Pruned{}
		f := &record{Format: formatNumber, Kind: kindFence, Slot: l.last + 1, Time: time.Now().UTC().Round(0), Fence: l.fence, Grace: p.keep.Grace}
		if l.head != nil {
			f.Head = l.head.Slot
		}
		err = p.choose(ctx, f)
		if err == nil {
			err = p.carry(ctx, f)
		}
		if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, errIncomplete)) && f.Slot != seen {
			seen = f.Slot // other Prunes may have removed it since
			continue
		}
		if err != nil || p.keep.DryRun {
			return false, err
		}
		there, err := p.v.putRecord(ctx, f)
		if err == nil && there == nil {
			err = p.v.stands(ctx, l, f)
		}
		if err == nil && there == nil {
			p.fence = f
			return true, nil
		}
		if err != nil && !errors.Is(err, errOvertaken) {
			return false, err
		}
		// Another record came first: decide again, with it in view.
	}
}

// choose fills in which versions the fence keeps and forgets.
func (p *pruning) choose(ctx context.Context, f *record) error {
	val, err := p.v.validity(ctx, f.Fence)
	if err != nil {
		return err
	}
	slots, err := p.candidates(ctx, f, val)
	if err != nil {
		return err
	}
	chosen := p.keep.chooser()
	for r, err := range p.v.recordsIn(ctx, slots, val, headBytes) {
		if err != nil {
			return err
		}
		if v := r.version(); chosen(v, r.Slot == f.Head) {
			f.Valid = append(f.Valid, slotID{Slot: r.Slot, ID: r.ID})
			p.done.Kept++
		} else {
			f.Forgotten = append(f.Forgotten, slotID{Slot: r.Slot, ID: r.ID})
			p.done.Forgotten = append(p.done.Forgotten, v)
		}
	}
	return context.Cause(ctx)
}

// errIncomplete is a list of slots that lacks some that there are.
var errIncomplete = errors.New("the bucket's list lags behind, or records were removed: try again later")

// candidates gives the slots that can hold valid versions, newest first. A version
// that the bucket's list hides would be lost, so each slot after the fence before
// has to be there: none of these was ever emptied.
func (p *pruning) candidates(ctx context.Context, f *record, val *validity) (slots []uint64, err error) {
	listed, err := p.v.allSlots(ctx)
	if err != nil {
		return nil, err
	}
	for slot := range val.named {
		slots = append(slots, slot)
	}
	n := uint64(0)
	for _, slot := range listed {
		if slot > f.Fence && slot < f.Slot {
			slots = append(slots, slot)
			n++
		}
	}
	if want := f.Slot - 1 - f.Fence; n != want {
		return nil, fmt.Errorf("%d of %d records are listed: %w", n, want, errIncomplete)
	}
	slices.Sort(slots)
	slices.Reverse(slots)
	return slots, nil
}

// carry takes over what the fence before had forgotten, until that is older than
// the grace.
func (p *pruning) carry(ctx context.Context, f *record) error {
	if f.Fence == 0 {
		return nil
	}
	before, err := p.v.readRecord(ctx, f.Fence, -1)
	if err != nil {
		return err
	}
	at, err := p.v.bucket.Stat(ctx, p.v.slotKey(f.Fence))
	if err != nil {
		return err
	}
	now, err := p.now(ctx)
	if err != nil {
		return err
	}
	for _, id := range before.Forgotten {
		if id.Since.IsZero() {
			id.Since = at.Modified.UTC()
		}
		if now.Sub(id.Since) < p.keep.Grace {
			f.Forgotten = append(f.Forgotten, id)
		}
	}
	return nil
}

// now asks the bucket what time it is, by a small object.
func (p *pruning) now(ctx context.Context) (time.Time, error) {
	key := p.v.clockKey(newNonce())
	if err := p.v.bucket.Put(ctx, key, noBytes{}, nil); err != nil {
		return time.Time{}, err
	}
	o, err := p.v.bucket.Stat(ctx, key)
	cleanCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	return o.Modified, errors.Join(err, p.v.bucket.Delete(cleanCtx, key))
}

// overtaken reports whether another Prune has made a fence since.
func (p *pruning) overtaken(ctx context.Context) (bool, error) {
	l, err := p.v.look(ctx)
	if err != nil {
		return false, err
	}
	return l.fence > p.fence.Slot, nil
}

// live collects the names of the objects that versions need, those included that
// were forgotten less than the grace ago.
func (p *pruning) live(ctx context.Context) (map[string]bool, error) {
	live := map[string]bool{}
	var name string // of the listing that was read last, as neighbours share theirs
	var base *tree.Tree
	for _, id := range slices.Concat(p.fence.Valid, p.fence.Forgotten) {
		r, err := p.v.readRecord(ctx, id.Slot, -1)
		if err == nil && live[r.Tree.Name] && r.Delta == nil {
			continue // seen already
		}
		if err == nil && r.Tree.Name != name {
			name = r.Tree.Name
			base, err = p.v.loadTree(ctx, r.Tree)
			live[name] = true
			// What only the base refers to stays too, as it is read with the base.
			addPacks(live, base)
		}
		if err != nil {
			return nil, fmt.Errorf("version %s: %w", id.ID, err)
		}
		k, err := r.on(base)
		if err != nil {
			return nil, fmt.Errorf("object %s: %w", p.v.slotKey(r.Slot), err)
		}
		addPacks(live, k.tree)
	}
	return live, nil
}

func addPacks(names map[string]bool, t *tree.Tree) {
	if t == nil {
		return
	}
	for _, f := range t.Frames() {
		names[f.Pack.Name] = true
	}
}

// sweep removes the objects below prefix that are not live and older than before.
func (p *pruning) sweep(ctx context.Context, prefix string, live map[string]bool, before time.Time) error {
	for o, err := range p.v.bucket.List(ctx, prefix) {
		if err != nil {
			return err
		}
		if live[o.Key[len(prefix):]] || !o.Modified.Before(before) {
			continue
		}
		if err := p.remove(ctx, o.Key, o.Size); err != nil {
			return err
		}
	}
	return nil
}

// sweepSlots empties the slots before the fence that were written before then and
// hold neither a version, nor what was forgotten a short time ago, nor the fence
// that this one built on, which others may be about to read.
func (p *pruning) sweepSlots(ctx context.Context, before time.Time) error {
	keep := map[uint64]bool{p.fence.Fence: true}
	for _, id := range slices.Concat(p.fence.Valid, p.fence.Forgotten) {
		keep[id.Slot] = true
	}
	for o, err := range p.v.bucket.List(ctx, p.v.slotPrefix()) {
		if err != nil {
			return err
		}
		slot, ok := p.v.slotOf(o.Key)
		if !ok || slot >= p.fence.Slot || keep[slot] || !o.Modified.Before(before) {
			continue
		}
		if err := p.remove(ctx, o.Key, o.Size); err != nil {
			return err
		}
	}
	return nil
}

func (p *pruning) remove(ctx context.Context, key string, size int64) error {
	if err := p.v.bucket.Delete(ctx, key); err != nil {
		return fmt.Errorf("remove object %s: %w", key, err)
	}
	p.done.Objects++
	p.done.Bytes += size
	return nil
}

// chooser gives a function that is to be called with each version, newest first, and
// whether it is the newest of the line.
func (k Keep) chooser() func(v *Version, newest bool) bool {
	if k.Last+k.Hourly+k.Daily+k.Weekly+k.Monthly+k.Yearly == 0 && k.Within == 0 && k.Also == nil {
		return func(*Version, bool) bool { return true }
	}
	now := time.Now()
	type rule struct {
		left int
		of   func(time.Time) string
		last string
	}
	week := func(t time.Time) string {
		y, w := t.ISOWeek()
		return fmt.Sprint(y, w)
	}
	layout := func(l string) func(time.Time) string { return func(t time.Time) string { return t.Format(l) } }
	rules := []*rule{
		{left: k.Last, of: func(t time.Time) string { return t.String() }},
		{left: k.Hourly, of: layout("2006010215")},
		{left: k.Daily, of: layout("20060102")},
		{left: k.Weekly, of: week},
		{left: k.Monthly, of: layout("200601")},
		{left: k.Yearly, of: layout("2006")},
	}
	return func(v *Version, newest bool) bool {
		keep := newest || k.Within > 0 && now.Sub(v.Time) < k.Within
		for _, r := range rules {
			if period := r.of(v.Time.UTC()); r.left > 0 && period != r.last {
				r.left--
				r.last = period
				keep = true
			}
		}
		return keep || k.Also != nil && k.Also(v)
	}
}

// noBytes is an empty body.
type noBytes struct{}

// Read gives io.EOF.
func (noBytes) Read([]byte) (int, error) { return 0, io.EOF }

// Delete removes the volume with all its versions, the newest first. It must not
// run beside a Sync or a Prune of the volume, and can be repeated where it was
// broken off. A volume that does not exist is no error.
func (v *Volume) Delete(ctx context.Context) error {
	if v.err != nil {
		return v.err
	}
	if err := v.deleteAll(ctx); err != nil {
		return v.fail("delete", err)
	}
	return nil
}

func (v *Volume) deleteAll(ctx context.Context) error {
	for _, prefix := range []string{v.slotPrefix(), v.treeKey(""), v.packKey(""), v.clockKey("")} {
		var keys []string
		for o, err := range v.bucket.List(ctx, prefix) {
			if err != nil {
				return err
			}
			keys = append(keys, o.Key)
		}
		for _, key := range slices.Backward(keys) {
			if err := v.bucket.Delete(ctx, key); err != nil {
				return fmt.Errorf("remove object %s: %w", key, err)
			}
		}
	}
	return nil
}
