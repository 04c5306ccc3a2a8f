package storage

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// place is a directory of a sandbox or of this machine: what Sync reads and
// Restore writes.
type place interface {
	// list tells what the directory holds. An absent one matches fs.ErrNotExist.
	// Before that it brings what a broken-off restore left to one of its two ends.
	list(ctx context.Context) (*listing, error)
	// read gives the contents of files, and the targets of links whose targets
	// list could not tell, to in. What has gone by then is left out. It reports
	// whether everything given was the same while it was read as when it was
	// listed.
	read(ctx context.Context, want []*found, in *intake) (steady bool, err error)
	// begin makes the directory if it is absent, and a staging directory in it.
	begin(ctx context.Context) (stage, error)
}

// stage is a restore that is being prepared in a place.
type stage interface {
	// direct reports whether fill gets the contents of a file by itself.
	direct(e *tree.Entry) bool
	// fill makes entries in the staging directory, with the contents of the other
	// files from out, which holds them in the order of the entries.
	fill(ctx context.Context, entries []*tree.Entry, out *outlet) error
	// apply carries out the plan. It is not interrupted by ctx.
	apply(ctx context.Context, p *plan) error
	// drop brings the directory back to what it was, or to what the plan makes of
	// it where that had been begun, and says so.
	drop(ctx context.Context) (finished bool, err error)
}

// found is an entry as a directory has it.
type found struct {
	tree.Entry // without chunks; a symbolic link may lack its target
	ctime      tree.Time
	ino, dev   uint64
	links      uint64
	sparse     bool        // it takes less room than its size
	read       *reading    // its contents, once they were read
	old        *tree.Entry // of the newest version, where it is unchanged
}

// listing is what a directory holds.
type listing struct {
	entries []*found // the directory itself first, then in the order of paths
	// outside are the paths that are no part of the volume: excluded ones and
	// what other file systems are mounted on. All below them is outside too.
	outside []string
	// special are devices, sockets and pipes, which are not kept, in the order of
	// paths. Their kind is zero.
	special []*found
	// origin identifies the directory on its machine, as long as that runs; ""
	// where that cannot be told.
	origin string
	now    tree.Time // its machine's clock before the first entry was read
	coarse bool      // times were told in whole seconds
	cut    bool      // restored files may have lost the fractions of theirs
}

// lister makes a listing of what a place tells, which is not trusted.
type lister struct {
	v   *Volume
	out listing
}

// add takes an entry. The letters for kinds are those of find's -printf %y.
func (l *lister) add(kind byte, f *found) error {
	if why := tree.CheckPath(f.Path); why != "" {
		return fmt.Errorf("the directory is said to hold %q, which %s", clip(f.Path), why)
	}
	if len(l.out.entries) >= l.v.opts.MaxFiles {
		return fmt.Errorf("the directory has more than %d entries: exclude some of it, or raise MaxFiles: %w", l.v.opts.MaxFiles, fs.ErrInvalid)
	}
	f.Mode &= 0o1777
	switch kind {
	case 'f':
		f.Kind, f.Link = tree.File, ""
		if f.Size < 0 {
			return fmt.Errorf("%q is said to have %d bytes", clip(f.Path), f.Size)
		}
	case 'd':
		f.Kind, f.Size, f.Link = tree.Dir, 0, ""
	case 'l':
		f.Kind, f.Size, f.Mode = tree.Symlink, 0, 0o777
	default:
		f.Kind, f.Size = 0, 0
	}
	l.out.entries = append(l.out.entries, f)
	return nil
}

// finish orders the listing, leaves out what is outside or special, and pairs
// hard links.
func (l *lister) finish() (*listing, error) {
	sortFound(l.out.entries)
	all := l.out.entries
	if len(all) == 0 || all[0].Path != "" || all[0].Kind != tree.Dir {
		return nil, fmt.Errorf("the directory itself was not listed")
	}
	dev, kept, outside := all[0].dev, all[:0], ""
	layers := layered(all)
	parents, before := []string{""}, ""
	first := map[[2]uint64]string{}
	for i := range all {
		f := all[i]
		if i > 0 && f.Path == before {
			return nil, fmt.Errorf("%q was listed twice", clip(f.Path))
		}
		before = f.Path
		if outside != "" && within(f.Path, outside) {
			continue
		}
		elsewhere := f.dev != dev && (f.Kind == tree.Dir || !layers)
		if f.Path != "" && (elsewhere || l.v.exclude.MatchSelf(f.Path, f.Kind == tree.Dir)) {
			outside = f.Path
			l.out.outside = append(l.out.outside, f.Path)
			continue
		}
		for len(parents) > 1 && !within(f.Path, parents[len(parents)-1]) {
			parents = parents[:len(parents)-1]
		}
		if f.Path != "" && tree.Parent(f.Path) != parents[len(parents)-1] {
			continue // what it was in has gone since, or is no directory any more
		}
		switch {
		case f.Kind == 0:
			l.out.special = append(l.out.special, f)
			continue
		case f.Kind == tree.Dir && f.Path != "":
			parents = append(parents, f.Path)
		case f.Kind == tree.File && f.links > 1:
			id := [2]uint64{f.dev, f.ino}
			if path, ok := first[id]; ok {
				f.Kind, f.Link, f.Size = tree.Hardlink, path, 0
			} else {
				first[id] = f.Path
			}
		}
		kept = append(kept, f)
	}
	l.out.entries = kept
	return &l.out, nil
}

// layered reports whether the directory seems to be on an overlayfs of layers from
// several file systems, as the roots of containers are: there only directories
// have the device of their mount, and everything else that of its layer.
func layered(all []*found) bool {
	return !slices.ContainsFunc(all, func(f *found) bool { return f.Kind != tree.Dir && f.dev == all[0].dev })
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || len(path) > len(dir) && path[len(dir)] == '/' && strings.HasPrefix(path, dir)
}

// find gives the entry with that path, or nil.
func (l *listing) find(path string) *found {
	lo, hi := 0, len(l.entries)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if tree.ComparePaths(l.entries[mid].Path, path) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(l.entries) && l.entries[lo].Path == path {
		return l.entries[lo]
	}
	return nil
}

// known is a version that a listing is compared with.
type known struct {
	tree   *tree.Tree
	base   *tree.Tree // that it builds on
	origin string
	listed tree.Time
}

func sortFound(all []*found) {
	order := func(a, b *found) int { return tree.ComparePaths(a.Path, b.Path) }
	if !slices.IsSortedFunc(all, order) {
		slices.SortFunc(all, order)
	}
}

// unchanged reports whether f is what e was, as far as can be told without
// reading it: see Options.Paranoid.
func (k *known) unchanged(e *tree.Entry, f *found, l *listing) bool {
	if e.Kind != f.Kind || e.Size != f.Size || f.Kind != tree.File && f.Kind != tree.Symlink || !sameTime(e.Mtime, f.Mtime, l.cut) {
		return false
	}
	if k.origin == "" || k.origin != l.origin {
		return true
	}
	// The kernel's clock ticks a few times a second in some places, and times
	// that were cut to seconds are up to one too early.
	before := k.listed
	if slack := int32(20_000_000); before.Nsec >= slack && !l.coarse {
		before.Nsec -= slack
	} else {
		before.Sec--
	}
	if l.coarse {
		before.Sec--
	}
	return f.ctime.Compare(before) < 0
}

// sameTime compares a stored time with one that a directory has: busybox restores
// whole seconds.
func sameTime(stored, has tree.Time, cut bool) bool {
	return stored.Sec == has.Sec && (stored.Nsec == has.Nsec || cut && has.Nsec == 0)
}
