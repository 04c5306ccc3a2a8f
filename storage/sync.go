package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// rounds is how often a Sync goes back to files that changed while it read them.
const rounds = 3

// Sync stores the directory dir of sb, an absolute path below the root, as a new
// version, and returns it. Only files that changed since the newest version are
// read (see Options.Paranoid), and only contents that the volume does not have
// are stored, in bounded memory.
//
// Kept are names (any bytes), contents, permission and sticky bits, modification
// times (to the nanosecond), symbolic and hard links, empty directories, and holes
// in sparse files (with GNU tar in the sandbox). Owners are kept and restored by
// option. Not kept are setuid and setgid bits and extended attributes. Devices,
// sockets and pipes are skipped, and named in Version.Skipped. What
// Options.Exclude excludes is left out, and so is what other file systems that are
// mounted below dir hold.
//
// A file that changes while it is read is read again; one that will not hold still
// does not fail the Sync, and is named in Version.Changed. Anything that cannot be
// read does: a version is whole. When Sync returns an error, no new version exists,
// but for two cases: after a failure of the very last write it may come to exist,
// and the error matches [ErrUnknownOutcome]; and with Options.KeepConflict a
// version that is not the newest is returned together with a [*ConflictError].
// Garbage that a failed Sync leaves is never part of a version; Prune removes it.
//
// A directory that does not exist matches fs.ErrNotExist. What a broken-off
// Restore left in dir is first brought to one of its two ends.
func (v *Volume) Sync(ctx context.Context, sb Runner, dir string) (*Version, error) {
	if v.err != nil {
		return nil, v.err
	}
	version, err := v.sync(ctx, sb, dir)
	if err != nil {
		return version, v.fail("sync", err)
	}
	return version, nil
}

// syncing is one Sync.
type syncing struct {
	v     *Volume
	meter *meter
	at    place
	line  *line
	known *known // the newest version, nil: none
	first *listing
	have  *listing // the last one
	in    *intake  // nil until something has to be read
	nonce string
	taken map[string]*found // what was read, by path
	moved []string          // what would not hold still
}

func (v *Volume) sync(ctx context.Context, sb Runner, dir string) (*Version, error) {
	dir, err := checkDir(dir)
	if err != nil {
		return nil, err
	}
	return v.syncFrom(ctx, v.placeOf(sb, dir))
}

// syncFrom makes a version of what a place holds.
func (v *Volume) syncFrom(ctx context.Context, at place) (*Version, error) {
	s := &syncing{v: v, meter: &meter{call: v.opts.Progress}, at: at, nonce: newNonce(), taken: map[string]*found{}}
	started := time.Now()
	s.meter.begin(PhaseList, 0, 0)
	if err := s.look(ctx); err != nil {
		return nil, err
	}
	err := s.readAll(ctx)
	if s.in != nil {
		err = s.in.close(err)
	}
	if err != nil {
		return nil, err
	}
	s.meter.begin(PhaseCommit, 0, 0)
	r, err := s.record(ctx, started)
	if err == nil {
		err = v.commit(ctx, s.line, r)
	}
	var conflict *ConflictError
	switch {
	case errors.As(err, &conflict):
		return conflict.Kept, err
	case err != nil:
		return nil, err
	}
	s.meter.end()
	return r.version(), nil
}

// look lists the directory, and reads the newest version at the same time.
func (s *syncing) look(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		s.first, err = s.at.list(ctx)
		s.have = s.first
		return err
	})
	g.Go(func() (err error) {
		if s.line, err = s.v.look(ctx); err != nil || s.line.head == nil {
			return err
		}
		if parent := s.v.opts.Parent; parent != "" && parent != s.line.head.ID && !s.v.opts.KeepConflict {
			return &ConflictError{Head: s.line.head.ID}
		}
		s.known, err = s.v.load(ctx, s.line.head)
		return err
	})
	return g.Wait()
}

// readAll reads what has to be read, and reads again what did not hold still.
func (s *syncing) readAll(ctx context.Context) error {
	for round := range rounds {
		want, bytes := s.wanted()
		if len(want) == 0 {
			return nil
		}
		if s.in == nil {
			if err := s.open(ctx, bytes); err != nil {
				return err
			}
		}
		s.meter.begin(PhaseRead, int64(len(want)), bytes)
		steady, err := s.at.read(ctx, want, s.in)
		if err != nil {
			return err
		}
		for _, f := range want {
			if f.read != nil {
				s.taken[f.Path] = f
			}
		}
		if steady {
			return nil
		}
		if round == rounds-1 {
			break
		}
		if s.have, err = s.at.list(ctx); err != nil {
			return err
		}
	}
	return s.settle(ctx)
}

// wanted lists what cannot be taken over from the newest version, nor from what was
// read already.
func (s *syncing) wanted() (want []*found, bytes int64) {
	i := 0
	for _, f := range s.have.entries {
		if f.Kind != tree.File && (f.Kind != tree.Symlink || f.Link != "") {
			continue
		}
		if t := s.taken[f.Path]; t != nil && t.sameState(f) {
			f.read = t.read
			continue
		}
		if s.known != nil && !s.v.opts.Paranoid {
			for i < len(s.known.tree.Entries) && tree.ComparePaths(s.known.tree.Entries[i].Path, f.Path) < 0 {
				i++
			}
			if i < len(s.known.tree.Entries) {
				if e := &s.known.tree.Entries[i]; e.Path == f.Path && s.known.unchanged(e, f, s.have) {
					f.old = e
					continue
				}
			}
		}
		want = append(want, f)
		bytes += f.Size
	}
	return want, bytes
}

// sameState reports whether nothing can have been written to f since it was
// listed as g.
func (f *found) sameState(g *found) bool {
	return f.Kind == g.Kind && f.Size == g.Size && f.Mtime == g.Mtime && f.ctime == g.ctime && f.ino == g.ino
}

// settle gives up on what will not hold still: it takes what was read last.
func (s *syncing) settle(ctx context.Context) (err error) {
	before := s.have
	if s.have, err = s.at.list(ctx); err != nil {
		return err
	}
	want, _ := s.wanted()
	for _, f := range want {
		t := s.taken[f.Path]
		if was := before.find(f.Path); t == nil && (was == nil || !was.sameState(f)) {
			if was != nil && len(s.moved) < maxNames {
				s.moved = append(s.moved, f.Path)
			}
			continue // it was made anew after the last reading; tree leaves it out
		}
		if t == nil {
			if f.Kind == tree.File && s.in.said != "" {
				return fmt.Errorf("cannot read %q: %s", clip(f.Path), s.in.said)
			}
			return fmt.Errorf("cannot read %q, which is there in each listing", clip(f.Path))
		}
		if f.read = t.read; len(s.moved) < maxNames {
			s.moved = append(s.moved, f.Path)
		}
	}
	return nil
}

// open starts the intake. Contents of the newest version are known to it, and where
// much is to be read those of a few versions before, too.
func (s *syncing) open(ctx context.Context, bytes int64) error {
	s.in = s.v.newIntake(ctx, s.meter, s.nonce)
	if s.known == nil {
		return nil
	}
	if bytes >= worthLooking {
		for _, t := range s.v.olderTrees(ctx, s.line) {
			s.in.blobs.add(t)
		}
	}
	s.in.blobs.add(s.known.tree)
	return nil
}

// Older versions are looked at for contents to share when so many bytes are to be
// read, and so many of them.
const (
	worthLooking = 4 << 20
	olderLooks   = 8
	olderMost    = 3
)

// olderTrees gives the listings that a few versions before the head build on, besides
// the head's own. What cannot be read of them is left out: it only saves room.
func (v *Volume) olderTrees(ctx context.Context, l *line) (all []*tree.Tree) {
	seen := map[string]bool{l.head.Tree.Name: true}
	looked := 0
	val, err := v.validity(ctx, l.fence) // what a list lags behind could call valid is not
	if err != nil {
		return nil
	}
	for r, err := range v.records(ctx, headBytes) {
		if looked++; looked > olderLooks || len(all) == olderMost {
			break
		}
		if err != nil || !val.is(r) || seen[r.Tree.Name] {
			continue
		}
		seen[r.Tree.Name] = true
		if t, err := v.loadTree(ctx, r.Tree); err == nil {
			all = append(all, t)
		}
	}
	return all
}

// record makes the record of the new version, and stores its listing where that is
// new.
func (s *syncing) record(ctx context.Context, started time.Time) (*record, error) {
	next := s.tree()
	if err := next.Check(); err != nil {
		return nil, fmt.Errorf("the directory changed too much while it was read: %w", err)
	}
	r := &record{
		Time: s.after(started), Author: s.v.opts.Author, Note: s.v.opts.Note,
		Changed: valid(s.moved), Skips: int64(len(s.have.special)),
		Origin: s.first.origin, Listed: tarstream.FormatTime(s.first.now),
	}
	for _, f := range s.have.special[:min(len(s.have.special), maxNames)] {
		r.Skipped = append(r.Skipped, f.Path)
	}
	r.Skipped = valid(r.Skipped)
	if s.line.head != nil {
		r.Parent = s.line.head.ID
	}
	if s.v.opts.Parent != "" {
		r.Parent = s.v.opts.Parent
	}
	count(r, next)
	if s.in != nil {
		r.Added = s.in.added.Load()
	}
	if s.known != nil && s.delta(r, next) {
		return r, nil
	}
	data, st := s.v.packListing(next)
	name, err := s.v.putNamed(ctx, s.v.treeKey, data, s.nonce)
	st.Name = name
	r.Tree, r.Delta, r.delta = st, nil, nil
	r.Added += st.Size
	return r, err
}

// after gives the version a time that comes after its parent's.
func (s *syncing) after(t time.Time) time.Time {
	t = t.UTC().Round(0)
	if s.line.head != nil && !t.After(s.line.head.Time) {
		t = s.line.head.Time.Add(1)
	}
	return t
}

// A delta takes the place of a whole listing while it has at most so many entries
// per entry of that, and bytes per byte.
const (
	deltaEntries = 4
	deltaBytes   = 4
	deltaAlways  = 16 << 10 // bytes
)

// delta makes r say what next has beyond the listing that its parent builds on, if
// that is worth it.
func (s *syncing) delta(r *record, next *tree.Tree) bool {
	d := tree.Delta(s.known.base, next)
	n := len(d.Entries) + len(d.Removed)
	if n > 64 && n > len(next.Entries)/deltaEntries {
		return false
	}
	r.Tree = s.line.head.Tree
	if n == 0 {
		return true
	}
	data, st := s.v.packListing(d)
	if st.Size > deltaAlways && st.Size > r.Tree.Size/deltaBytes {
		return false
	}
	r.Delta, r.delta = st, data
	r.Added += st.Size
	return true
}

// tree is the listing of the new version.
func (s *syncing) tree() *tree.Tree {
	t := &tree.Tree{Entries: make([]tree.Entry, 0, len(s.have.entries))}
	gone := map[string]bool{}
	for _, f := range s.have.entries {
		e := f.Entry
		switch {
		case f.read != nil && e.Kind == tree.Symlink:
			e.Link = f.read.link
		case f.read != nil:
			e.Size, e.Chunks = f.read.size, f.read.chunks()
		case f.old != nil:
			e.Chunks, e.Mtime = f.old.Chunks, f.old.Mtime
			if e.Kind == tree.Symlink && e.Link == "" {
				e.Link = f.old.Link
			}
		case e.Kind == tree.File || e.Kind == tree.Symlink && e.Link == "":
			gone[e.Path] = true // it vanished while others were read
			continue
		case e.Kind == tree.Hardlink && gone[e.Link]:
			continue
		}
		t.Entries = append(t.Entries, e)
	}
	return t
}

func count(r *record, t *tree.Tree) {
	for i := range t.Entries {
		switch e := &t.Entries[i]; e.Kind {
		case tree.File:
			r.Files++
			r.Size += e.Size
		case tree.Hardlink:
			r.Files++
		case tree.Dir:
			if e.Path != "" {
				r.Dirs++
			}
		case tree.Symlink:
			r.Links++
		}
	}
	for _, f := range t.Frames() {
		r.Stored += int64(f.Stored)
	}
}

// valid makes names fit for JSON.
func valid(names []string) []string {
	for i, name := range names {
		names[i] = strings.ToValidUTF8(clip(name), "\ufffd")
	}
	return names
}
