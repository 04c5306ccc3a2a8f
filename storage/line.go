package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// line is where a volume's slots stand: what the next record builds on.
type line struct {
	last  uint64  // the last slot that holds a record, 0: none
	head  *record // the newest version, nil: none
	fence uint64  // the slot of the newest fence, 0: none
	read  time.Time
}

// look reads where the slots stand. A listing that lags behind what was written
// does no harm: the slots after the last one listed are tried too.
func (v *Volume) look(ctx context.Context) (*line, error) {
	l := &line{read: time.Now()}
	slots, err := v.slots(ctx)
	if err != nil {
		return nil, err
	}
	var newest *record
	for at := slices.Max(append(slots, 0)); ; at++ {
		r, err := v.record(ctx, at, at+1)
		if err != nil {
			return nil, err
		}
		if r[0] != nil {
			newest = r[0]
		}
		if r[1] == nil {
			break
		}
		newest = r[1]
	}
	if newest == nil {
		return l, nil
	}
	return l, l.follow(ctx, v, newest)
}

// follow sets l to what stands once r is the last record.
func (l *line) follow(ctx context.Context, v *Volume, r *record) error {
	l.last, l.fence = r.Slot, r.Fence
	if r.Kind == kindFence {
		l.fence = r.Slot
	}
	switch {
	case r.Head == 0:
		l.head = nil
	case r.Head == r.Slot:
		l.head = r
	case l.head == nil || l.head.Slot != r.Head:
		at, err := v.record(ctx, r.Head)
		if err != nil {
			return err
		}
		if at[0] == nil || !at[0].isVersion() {
			return fmt.Errorf("%w: slot %d says that the newest version is in slot %d, where there is none", ErrCorrupt, r.Slot, r.Head)
		}
		l.head = at[0]
	}
	return nil
}

// slots lists the slots that hold something, in ascending order.
func (v *Volume) slots(ctx context.Context) (all []uint64, err error) {
	prefix := v.slotPrefix()
	for object, err := range v.bucket.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(object.Key, ".json") {
			return nil, fmt.Errorf("%s is of format 1, which only development builds before this one wrote; unpack its archives by hand (zstd -dc _archives/ID.tar.zst | tar -x) and sync them to a new volume: %w", object.Key, errors.ErrUnsupported)
		}
		if slot, ok := v.slotOf(object.Key); ok {
			all = append(all, slot)
		}
	}
	return all, nil
}

// slotOf is the inverse of slotKey.
func (v *Volume) slotOf(key string) (uint64, bool) {
	name := strings.TrimPrefix(key, v.slotPrefix())
	slot, err := strconv.ParseUint(name, 10, 64)
	return slot, err == nil && len(name) == 10 && slot > 0
}

// record reads the records of some slots at once; nil where a slot is empty.
func (v *Volume) record(ctx context.Context, slots ...uint64) ([]*record, error) {
	out := make([]*record, len(slots))
	g, ctx := errgroup.WithContext(ctx)
	for i, slot := range slots {
		if slot == 0 {
			continue
		}
		g.Go(func() (err error) {
			out[i], err = v.readRecord(ctx, slot, -1)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
	}
	return out, g.Wait()
}

// headBytes is how much of a record is read where its delta is not wanted.
const headBytes = 32 << 10

// readRecord reads a slot. With a limit only the head of a record, if it is within
// so many bytes.
func (v *Volume) readRecord(ctx context.Context, slot uint64, limit int64) (*record, error) {
	data, err := v.get(ctx, v.slotKey(slot), limit, maxTree)
	if err != nil {
		return nil, err
	}
	r, err := parseRecord(data, slot, limit < 0)
	if errors.Is(err, errCutRecord) && limit >= 0 && int64(len(data)) >= limit {
		return v.readRecord(ctx, slot, -1)
	}
	if errors.Is(err, errCutRecord) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", v.slotKey(slot), err)
	}
	return r, nil
}

// get reads an object, or the first length bytes of it.
func (v *Volume) get(ctx context.Context, key string, length, limit int64) ([]byte, error) {
	r, err := v.bucket.Get(ctx, key, 0, length)
	if err != nil {
		return nil, err
	}
	data, err := readBounded(r, limit)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read object %s: %w", key, err)
	}
	return data, nil
}

// byID reads the record of a version; an unknown id matches fs.ErrNotExist.
func (v *Volume) byID(ctx context.Context, id string) (*record, error) {
	_, slot, ok := parseID(id)
	if !ok {
		return nil, fmt.Errorf("version %q: %w", clip(id), fs.ErrNotExist)
	}
	r, err := v.readRecord(ctx, slot, -1)
	if err == nil && r.ID != id {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("version %s: %w", id, err)
	}
	return r, nil
}

// validity tells which slots hold versions: all after the newest fence, and before
// it those that the fence names.
type validity struct {
	fence *record // nil: none
	named map[uint64]string
}

func (v *Volume) validity(ctx context.Context, fence uint64) (*validity, error) {
	if fence == 0 {
		return &validity{}, nil
	}
	r, err := v.readRecord(ctx, fence, -1)
	if err != nil {
		return nil, err
	}
	if r.Kind != kindFence {
		return nil, fmt.Errorf("%w: slot %d should hold a fence", ErrCorrupt, fence)
	}
	val := &validity{fence: r, named: map[uint64]string{}}
	for _, id := range r.Valid {
		val.named[id.Slot] = id.ID
	}
	return val, nil
}

// maybe reports whether a slot can hold a valid version.
func (val *validity) maybe(slot uint64) bool {
	return val.fence == nil || slot > val.fence.Slot || val.named[slot] != ""
}

// id gives the ID of the version in a slot, where the fence names it.
func (val *validity) id(slot uint64) []string {
	if id := val.named[slot]; id != "" {
		return []string{id}
	}
	return nil
}

func (val *validity) is(r *record) bool {
	return r.isVersion() && (val.fence == nil || r.Slot > val.fence.Slot || val.named[r.Slot] == r.ID)
}

// recordsAtOnce is how many records are fetched at a time by Versions.
const recordsAtOnce = 16

// Versions gives the volume's versions, newest first; a volume that was never
// synced has none. Records are fetched as the sequence is read, a few ahead. A
// version whose record cannot be read is given as an error in its place, and
// the sequence can go on after it; after an error of listing it ends. Each range
// over it asks the bucket again.
func (v *Volume) Versions(ctx context.Context) iter.Seq2[*Version, error] {
	return func(yield func(*Version, error) bool) {
		for r, err := range v.records(ctx, headBytes) {
			if err != nil {
				if !yield(nil, v.fail("list versions of", err)) {
					return
				}
				continue
			}
			if !yield(r.version(), nil) {
				return
			}
		}
	}
}

// records gives the records of all versions, newest first, as Versions does.
func (v *Volume) records(ctx context.Context, limit int64) iter.Seq2[*record, error] {
	return func(yield func(*record, error) bool) {
		slots, val, err := v.validSlots(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		v.recordsIn(ctx, slots, val, limit)(yield)
	}
}

// recordsIn gives the records in slots that hold versions.
func (v *Volume) recordsIn(ctx context.Context, slots []uint64, val *validity, limit int64) iter.Seq2[*record, error] {
	return func(yield func(*record, error) bool) {
		for chunk := range slices.Chunk(slots, recordsAtOnce) {
			for _, got := range v.fetch(ctx, chunk, limit) {
				switch {
				case errors.Is(got.err, fs.ErrNotExist): // removed since it was listed
				case got.err == nil && !val.is(got.r):
				case !yield(got.r, got.err):
					return
				}
			}
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// validSlots lists the slots that may hold versions, newest first.
func (v *Volume) validSlots(ctx context.Context) ([]uint64, *validity, error) {
	if v.err != nil {
		return nil, nil, v.err
	}
	for missing := uint64(0); ; {
		slots, err := v.allSlots(ctx)
		if err != nil || len(slots) == 0 {
			return nil, nil, err
		}
		slices.Reverse(slots)
		// The last record that can be read knows the newest fence.
		fence := uint64(0)
		for _, got := range v.fetch(ctx, slots[:min(len(slots), recordsAtOnce)], headBytes) {
			if got.err == nil {
				if fence = got.r.Fence; got.r.Kind == kindFence {
					fence = got.r.Slot
				}
				break
			}
			if !lasting(got.err) { // it may be the fence
				return nil, nil, got.err
			}
		}
		val, err := v.validity(ctx, fence)
		if errors.Is(err, fs.ErrNotExist) && fence != missing {
			missing = fence // a newer fence has come since
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		slots = slices.DeleteFunc(slots, func(slot uint64) bool { return !val.maybe(slot) })
		return slots, val, nil
	}
}

// lasting reports whether an error of reading a record says what will not change.
func lasting(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrNotExist)
}

// allSlots is slots with those, too, that follow and that the bucket's list does not
// show yet.
func (v *Volume) allSlots(ctx context.Context) ([]uint64, error) {
	slots, err := v.slots(ctx)
	if err != nil {
		return nil, err
	}
	for next := slices.Max(append(slots, 0)) + 1; ; next++ {
		_, err := v.get(ctx, v.slotKey(next), 1, 1)
		if errors.Is(err, fs.ErrNotExist) {
			return slots, nil
		}
		if err != nil {
			return nil, err
		}
		slots = append(slots, next)
	}
}

type fetched struct {
	r   *record
	err error
}

// fetch reads several records at once.
func (v *Volume) fetch(ctx context.Context, slots []uint64, limit int64) []fetched {
	out := make([]fetched, len(slots))
	var g errgroup.Group
	for i, slot := range slots {
		g.Go(func() error {
			out[i].r, out[i].err = v.readRecord(ctx, slot, limit)
			return nil
		})
	}
	_ = g.Wait() // each result carries its own error
	return out
}

// ErrUnknownOutcome is matched by the error of a Sync whose last write was sent
// and not answered: its version may exist.
var ErrUnknownOutcome = errors.New("the new version may or may not exist")

// ErrConflict is matched by the error of a Sync that another writer's came before,
// which is a *ConflictError.
var ErrConflict = errors.New("another version became the newest first")

// ConflictError is a Sync that did not make the newest version.
type ConflictError struct {
	// Head is the ID of the version that is the newest.
	Head string
	// Kept is the version that was kept beside it, as Options.KeepConflict asked;
	// nil without that.
	Kept *Version
}

func (e *ConflictError) Error() string {
	text := fmt.Sprintf("%v: %s", ErrConflict, e.Head)
	if e.Kept != nil {
		return text + "; this one is kept beside it as " + e.Kept.ID
	}
	return text + "; restore that one and sync again, or keep both with KeepConflict"
}

// Is reports whether target is ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// commit writes r into the next empty slot after l and gives it its slot, id and
// time. That is the moment at which the version exists. Once a write was sent, what
// r refers to must stay, as a write whose answer was lost may still land.
func (v *Volume) commit(ctx context.Context, l *line, r *record) error {
	conflict := v.opts.Parent != "" && (l.head == nil || l.head.ID != v.opts.Parent)
	for {
		if conflict && !v.opts.KeepConflict {
			return &ConflictError{Head: l.headID()}
		}
		v.place(l, r, conflict)
		there, err := v.putRecord(ctx, r)
		if err != nil {
			return err
		}
		if there == nil {
			if err := v.stands(ctx, l, r); err != nil {
				return err
			}
			if conflict {
				return &ConflictError{Head: l.headID(), Kept: r.version()}
			}
			return nil
		}
		if there.Kind == kindFence && since(l.read) > there.Grace/2 {
			return fmt.Errorf("%w, which took longer than half of the grace of %v: sync again, or prune with a longer grace", errOvertaken, there.Grace)
		}
		before := l.headID()
		if err := l.follow(ctx, v, there); err != nil {
			return err
		}
		conflict = conflict || l.headID() != before
	}
}

// errOvertaken is a Sync that a Prune made worthless.
var errOvertaken = fmt.Errorf("%w: a Prune overtook this", ErrConflict)

// slotRest is how long a slot keeps its record at least once nobody needs it, by the
// bucket's clock. A writer that was quicker than half of it has not written to a slot
// that had been emptied.
const slotRest = 24 * time.Hour

// stands makes sure that r, which was written, is valid: a writer that was slow, or
// stood still, may have found a slot empty that had been in use and lies before a
// fence.
func (v *Volume) stands(ctx context.Context, l *line, r *record) error {
	if since(l.read) <= slotRest/2 {
		return nil
	}
	now, err := v.look(ctx)
	if err == nil && now.fence > r.Slot {
		var val *validity
		if val, err = v.validity(ctx, now.fence); err == nil && !val.is(r) {
			return fmt.Errorf("%w, which took %v: begin again", errOvertaken, since(l.read).Round(time.Second))
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	return nil
}

// place makes r the record of the slot after l's last.
func (v *Volume) place(l *line, r *record, conflict bool) {
	r.Format, r.Slot, r.Fence = formatNumber, l.last+1, l.fence
	r.Kind, r.Head = kindVersion, r.Slot
	if conflict {
		r.Kind, r.Head = kindConflict, 0
		if l.head != nil {
			r.Head = l.head.Slot
		}
	}
	r.ID = newID(r.Time, r.Slot)
}

func (l *line) headID() string {
	if l.head == nil {
		return ""
	}
	return l.head.ID
}

// since is the time that has passed, by the clock that stands still while a
// machine sleeps or by the one that does not, whichever says more.
func since(t time.Time) time.Duration {
	return max(time.Since(t), time.Now().Round(0).Sub(t.Round(0)))
}

// putRecord writes r if its slot is empty, and otherwise gives what is there.
func (v *Volume) putRecord(ctx context.Context, r *record) (there *record, err error) {
	data, err := r.encode()
	if err != nil {
		return nil, err
	}
	key := v.slotKey(r.Slot)
	sum := sha256.Sum256(data)
	err = v.bucket.Put(ctx, key, bytes.NewReader(data), &PutOptions{IfAbsent: true, SHA256: sum[:], Size: int64(len(data))})
	if err == nil || errors.Is(err, fs.ErrInvalid) {
		return nil, err
	}
	readCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	got, getErr := v.get(readCtx, key, -1, maxTree)
	switch {
	case getErr == nil && bytes.Equal(got, data):
		return nil, nil // ours: the answer was lost
	case getErr == nil && errors.Is(err, fs.ErrExist):
		return parseRecord(got, r.Slot, true)
	case getErr == nil:
		return nil, err // another's is there, so ours will never be
	case errors.Is(err, fs.ErrExist) && errors.Is(getErr, fs.ErrNotExist):
		return nil, errOvertaken // another's was there, and has been removed since
	case errors.Is(err, fs.ErrExist):
		return nil, getErr // another's is there, and cannot be read
	}
	return nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// cleanupTime bounds clean-up, which goes on when the caller's context has ended.
const cleanupTime = 30 * time.Second
