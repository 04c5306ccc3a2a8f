package storage

import (
	"context"
	"iter"

	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// Change is what two versions differ in at one path.
type Change struct {
	// Path is slash-separated and relative; "" is the directory itself.
	Path string
	// Kind says how they differ.
	Kind ChangeKind
	// Old and New are the file in either version, nil where there is none.
	Old, New *Entry
}

// ChangeKind is how a file differs between two versions.
type ChangeKind string

// The kinds of changes.
const (
	Added    ChangeKind = "added"
	Removed  ChangeKind = "removed"
	Modified ChangeKind = "modified" // in contents, type, or where a link leads
	Touched  ChangeKind = "touched"  // only in mode, time or owner
)

// Diff gives what changed from one version to another, in the order of paths, with
// each directory before what is in it. An empty from is the empty directory. No
// contents are read. After an error the sequence ends; an unknown id matches
// fs.ErrNotExist.
func (v *Volume) Diff(ctx context.Context, from, to string) iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) {
		before, after, err := v.loadPair(ctx, from, to)
		if err != nil {
			yield(nil, v.fail("compare versions of", err))
			return
		}
		i := 0
		for n := range after.Entries {
			e := &after.Entries[n]
			for i < len(before.Entries) && tree.ComparePaths(before.Entries[i].Path, e.Path) < 0 {
				if !yield(removed(before, i), nil) {
					return
				}
				i++
			}
			var was *tree.Entry
			if i < len(before.Entries) && before.Entries[i].Path == e.Path {
				was = &before.Entries[i]
				i++
			}
			if c := change(before, after, was, e); c != nil && !yield(c, nil) {
				return
			}
		}
		for ; i < len(before.Entries); i++ {
			if !yield(removed(before, i), nil) {
				return
			}
		}
	}
}

func removed(t *tree.Tree, i int) *Change {
	e := &t.Entries[i]
	return &Change{Path: e.Path, Kind: Removed, Old: entryOf(t, e)}
}

// change compares one path; nil is that nothing changed.
func change(before, after *tree.Tree, was, is *tree.Entry) *Change {
	c := &Change{Path: is.Path, Kind: Added, New: entryOf(after, is)}
	if was == nil {
		return c
	}
	c.Old = entryOf(before, was)
	switch {
	case c.Old.Mode.Type() != c.New.Mode.Type() || is.Kind == tree.Symlink && was.Link != is.Link,
		!sameContents(contents(before, was), contents(after, is)):
		c.Kind = Modified
	case was.Mode != is.Mode || was.Mtime != is.Mtime || was.UID != is.UID || was.GID != is.GID || was.Link != is.Link:
		c.Kind = Touched
	default:
		return nil
	}
	return c
}

func contents(t *tree.Tree, e *tree.Entry) []tree.Chunk {
	if e.Kind == tree.Hardlink {
		if file := t.Find(e.Link); file != nil {
			return file.Chunks
		}
	}
	return e.Chunks
}

// sameContents compares by sums. Files that were cut in other places, as other
// versions of this package may do, count as different.
func sameContents(a, b []tree.Chunk) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if x.Size != y.Size || (x.Blob == nil) != (y.Blob == nil) || x.Blob != nil && x.Blob.Sum != y.Blob.Sum {
			return false
		}
	}
	return true
}

func (v *Volume) loadPair(ctx context.Context, from, to string) (before, after *tree.Tree, err error) {
	if v.err != nil {
		return nil, nil, v.err
	}
	g, ctx := errgroup.WithContext(ctx)
	one := func(id string, out **tree.Tree) {
		*out = new(tree.Tree)
		if id == "" {
			return
		}
		g.Go(func() error {
			r, err := v.byID(ctx, id)
			if err != nil {
				return err
			}
			k, err := v.load(ctx, r)
			if err == nil {
				*out = k.tree
			}
			return err
		})
	}
	one(from, &before)
	one(to, &after)
	return before, after, g.Wait()
}
