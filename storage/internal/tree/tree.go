// Package tree is the listing of a version: every entry of a directory, and where
// in the bucket the contents of its files are. Encode and Decode give the stored
// form, which docs/storage-format.md describes.
package tree

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Kind says what an entry is. The numbers are those of the stored form.
type Kind uint8

// The kinds. Everything else a directory can hold is not kept.
const (
	File     Kind = 1
	Dir      Kind = 2
	Symlink  Kind = 3
	Hardlink Kind = 4 // another name of a File
)

// Time is a file's time, which may lie outside of what time.Time's UnixNano can
// say.
type Time struct {
	Sec  int64
	Nsec int32 // 0 to 999,999,999
}

// Compare orders times.
func (t Time) Compare(u Time) int {
	return cmp.Or(cmp.Compare(t.Sec, u.Sec), cmp.Compare(t.Nsec, u.Nsec))
}

// Entry is one name in a directory.
type Entry struct {
	Path  string // slash-separated, below the directory; "" is the directory itself
	Link  string // a Symlink's target, or the Path of the File that a Hardlink is
	Size  int64  // a File's length
	Mtime Time
	UID   uint32
	GID   uint32
	Mode  uint16 // permission bits, and the sticky bit as 01000
	Kind  Kind
	// Chunks are a File's contents from its start to its end.
	Chunks []Chunk
}

// Chunk is a stretch of a file.
type Chunk struct {
	Blob *Blob // nil is a hole
	Size int64
}

// Blob is a content that is stored once, whatever holds it.
type Blob struct {
	Sum   [32]byte // SHA-256
	Frame *Frame
	Off   uint32 // within the frame's contents
	Len   uint32
}

// Frame is a stretch of a pack that is compressed as one.
type Frame struct {
	Pack   *Pack
	Off    uint32 // within the pack
	Stored uint32 // bytes there
	Size   uint32 // bytes of contents
	Raw    bool   // stored as it is, not as a zstd frame
}

// Pack is an object that holds frames.
type Pack struct {
	Name string
}

// Tree is a listing, or what one says beyond another.
type Tree struct {
	// Entries are in the order of ComparePaths. Those of a whole tree begin with
	// the directory itself.
	Entries []Entry
	// Removed are the paths that a tree which builds on another takes away, in the
	// same order. Everything below them goes too.
	Removed []string
}

// ComparePaths orders paths so that a directory comes before what is in it, and
// all that is in it before its next sibling: bytewise, with the slash before
// every other byte.
func ComparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		switch {
		case x == '/':
			return -1
		case y == '/':
			return 1
		case x < y:
			return -1
		}
		return 1
	}
	return cmp.Compare(len(a), len(b))
}

// Sort brings entries into the order of ComparePaths.
func Sort(entries []Entry) {
	order := func(a, b Entry) int { return ComparePaths(a.Path, b.Path) }
	if !slices.IsSortedFunc(entries, order) {
		slices.SortFunc(entries, order)
	}
}

// Find gives the entry with that path, or nil.
func (t *Tree) Find(path string) *Entry {
	i, ok := slices.BinarySearchFunc(t.Entries, path, func(e Entry, p string) int { return ComparePaths(e.Path, p) })
	if !ok {
		return nil
	}
	return &t.Entries[i]
}

// Limits of what a tree may hold, so that a hostile one cannot name what no file
// system has.
const (
	MaxPath   = 64 << 10
	MaxLink   = 64 << 10
	maxChunks = 1 << 28
)

// CheckPath says what is wrong with the path of an entry, or "".
func CheckPath(path string) string {
	if path == "" {
		return ""
	}
	if len(path) > MaxPath {
		return "is too long"
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || strings.IndexByte(part, 0) >= 0 {
			return "is not a plain relative path"
		}
	}
	return ""
}

// Check returns an error unless t is the listing of one directory: in order,
// every entry in a directory of its own tree, nothing below a link, links that
// lead to files, contents as long as the files.
func (t *Tree) Check() error {
	if len(t.Removed) > 0 {
		return fmt.Errorf("a whole tree removes %q", clip(t.Removed[0]))
	}
	if len(t.Entries) == 0 || t.Entries[0].Path != "" || t.Entries[0].Kind != Dir {
		return fmt.Errorf("no entry for the directory itself")
	}
	var open []string // the directories that lead to the entry before, but for the root
	for i := range t.Entries {
		e := &t.Entries[i]
		if err := e.check(); err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		if ComparePaths(t.Entries[i-1].Path, e.Path) >= 0 {
			return fmt.Errorf("%q is out of order", clip(e.Path))
		}
		for len(open) > 0 && !below(e.Path, open[len(open)-1]) {
			open = open[:len(open)-1]
		}
		parent := ""
		if len(open) > 0 {
			parent = open[len(open)-1]
		}
		if Parent(e.Path) != parent {
			return fmt.Errorf("%q is not in a directory of the tree", clip(e.Path))
		}
		if e.Kind == Dir {
			open = append(open, e.Path)
		}
		if e.Kind == Hardlink {
			if to := t.Find(e.Link); to == nil || to.Kind != File {
				return fmt.Errorf("%q is a hard link to %q, which is no file", clip(e.Path), clip(e.Link))
			}
		}
	}
	return nil
}

// check checks what can be said of an entry by itself.
func (e *Entry) check() error {
	if why := CheckPath(e.Path); why != "" {
		return fmt.Errorf("path %q %s", clip(e.Path), why)
	}
	bad := func(what string) error { return fmt.Errorf("%q: %s", clip(e.Path), what) }
	if e.Mode&^0o1777 != 0 {
		return bad("mode has bits that are not kept")
	}
	if e.Mtime.Nsec < 0 || e.Mtime.Nsec > 999_999_999 {
		return bad("bad time")
	}
	switch e.Kind {
	case File:
		return e.checkChunks()
	case Dir:
		if e.Link != "" {
			return bad("a directory with a link")
		}
	case Symlink, Hardlink:
		if e.Link == "" || len(e.Link) > MaxLink || strings.IndexByte(e.Link, 0) >= 0 {
			return bad("a link without a usable target")
		}
	default:
		return bad("unknown kind")
	}
	if e.Size != 0 || len(e.Chunks) > 0 {
		return bad("contents without a file")
	}
	return nil
}

func (e *Entry) checkChunks() error {
	if e.Link != "" {
		return fmt.Errorf("%q: a file with a link", clip(e.Path))
	}
	left := e.Size
	for _, c := range e.Chunks {
		if c.Size <= 0 || c.Size > left {
			return fmt.Errorf("%q: contents and size differ", clip(e.Path))
		}
		if b := c.Blob; b != nil && (int64(b.Len) != c.Size || uint64(b.Off)+uint64(b.Len) > uint64(b.Frame.Size)) {
			return fmt.Errorf("%q: contents beyond their frame", clip(e.Path))
		}
		left -= c.Size
	}
	if left != 0 || e.Size < 0 {
		return fmt.Errorf("%q: contents and size differ", clip(e.Path))
	}
	return nil
}

// Parent is the path of the directory that path is in.
func Parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ""
	}
	return path[:i]
}

func below(path, dir string) bool {
	return len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}

// Apply gives the tree that delta makes of base, sharing their chunks.
func Apply(base, delta *Tree) *Tree {
	out := &Tree{Entries: make([]Entry, 0, len(base.Entries)+len(delta.Entries))}
	i, r, gone := 0, 0, ""
	for _, e := range delta.Entries {
		for i < len(base.Entries) && ComparePaths(base.Entries[i].Path, e.Path) < 0 {
			out.keep(&base.Entries[i], delta.Removed, &r, &gone)
			i++
		}
		if i < len(base.Entries) && base.Entries[i].Path == e.Path {
			i++
		}
		out.Entries = append(out.Entries, e)
	}
	for ; i < len(base.Entries); i++ {
		out.keep(&base.Entries[i], delta.Removed, &r, &gone)
	}
	return out
}

// keep appends an entry of the base unless it, or what it is in, is removed. r is
// how far into removed the entries before it have come, gone the last of those.
func (t *Tree) keep(e *Entry, removed []string, r *int, gone *string) {
	for *r < len(removed) && ComparePaths(removed[*r], e.Path) <= 0 {
		*gone = removed[*r]
		*r++
	}
	if *gone != "" && (e.Path == *gone || below(e.Path, *gone)) {
		return
	}
	t.Entries = append(t.Entries, *e)
}

// Delta says what next has beyond base, so that Apply(base, Delta(base, next)) is
// next. Contents are compared by the identity of their blobs.
func Delta(base, next *Tree) *Tree {
	d := new(Tree)
	gone := ""
	remove := func(path string) {
		if gone != "" && below(path, gone) {
			return
		}
		gone = path
		d.Removed = append(d.Removed, path)
	}
	i := 0
	for n := range next.Entries {
		e := &next.Entries[n]
		for i < len(base.Entries) && ComparePaths(base.Entries[i].Path, e.Path) < 0 {
			remove(base.Entries[i].Path)
			i++
		}
		if i < len(base.Entries) && base.Entries[i].Path == e.Path {
			i++
			if same(&base.Entries[i-1], e) {
				continue
			}
		}
		d.Entries = append(d.Entries, *e)
	}
	for ; i < len(base.Entries); i++ {
		remove(base.Entries[i].Path)
	}
	return d
}

func same(a, b *Entry) bool {
	return a.Kind == b.Kind && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		a.Size == b.Size && a.Mtime == b.Mtime && a.Link == b.Link && slices.Equal(a.Chunks, b.Chunks)
}

// Frames gives every frame that holds contents of t, each once, in the order in
// which the entries use them.
func (t *Tree) Frames() []*Frame {
	seen := map[*Frame]struct{}{}
	var all []*Frame
	for i := range t.Entries {
		for _, c := range t.Entries[i].Chunks {
			if c.Blob == nil {
				continue
			}
			if _, ok := seen[c.Blob.Frame]; !ok {
				seen[c.Blob.Frame] = struct{}{}
				all = append(all, c.Blob.Frame)
			}
		}
	}
	return all
}

func clip(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// capped converts a length that was checked before to what slices take.
func capped(n uint64) int { return int(min(n, math.MaxInt32)) }
