package tree

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// forest makes trees that share contents, as the versions of a volume do.
type forest struct {
	rng   *rand.Rand
	blobs []*Blob
	pack  *Pack
}

func newForest(seed uint64) *forest {
	return &forest{rng: rand.New(rand.NewPCG(seed, 1)), pack: &Pack{Name: "p0"}}
}

// blob gives one that is known, or a new one.
func (f *forest) blob() *Blob {
	if n := len(f.blobs); n > 0 && f.rng.IntN(3) == 0 {
		return f.blobs[f.rng.IntN(n)]
	}
	if f.rng.IntN(10) == 0 {
		f.pack = &Pack{Name: fmt.Sprint("p", len(f.blobs))}
	}
	b := &Blob{Len: 1 + uint32(f.rng.IntN(100))}
	for i := range b.Sum {
		b.Sum[i] = byte(f.rng.IntN(256))
	}
	if n := len(f.blobs); n > 0 && f.rng.IntN(2) == 0 { // in the same frame
		last := f.blobs[n-1]
		b.Frame, b.Off = last.Frame, last.Off+last.Len+uint32(f.rng.IntN(2))
		b.Frame.Size = max(b.Frame.Size, b.Off+b.Len)
	} else {
		b.Frame = &Frame{Pack: f.pack, Off: f.rng.Uint32N(1 << 20), Size: b.Len}
	}
	b.Frame.Stored = b.Frame.Size
	b.Frame.Raw = f.rng.IntN(2) == 0
	f.blobs = append(f.blobs, b)
	return b
}

func (f *forest) tree() *Tree {
	t := &Tree{Entries: []Entry{f.entry("", Dir)}}
	names := []string{"a", "b", "a.b", "a b", "\xff", "long-name-that-is-shared"}
	var fill func(dir string, depth int)
	fill = func(dir string, depth int) {
		for _, name := range names {
			if f.rng.IntN(3) == 0 {
				continue
			}
			path := strings.TrimPrefix(dir+"/"+name, "/")
			kind := []Kind{File, File, Dir, Symlink}[f.rng.IntN(4)]
			if depth == 3 && kind == Dir {
				kind = File
			}
			t.Entries = append(t.Entries, f.entry(path, kind))
			if kind == Dir {
				fill(path, depth+1)
			}
		}
	}
	fill("", 0)
	Sort(t.Entries)
	first := ""
	for i := range t.Entries {
		e := &t.Entries[i]
		if e.Kind == File && first == "" {
			first = e.Path
		} else if e.Kind == File && f.rng.IntN(10) == 0 {
			*e = Entry{Path: e.Path, Kind: Hardlink, Link: first, Mode: e.Mode, Mtime: e.Mtime}
		}
	}
	return t
}

func (f *forest) entry(path string, kind Kind) Entry {
	e := Entry{
		Path: path, Kind: kind, Mode: uint16(f.rng.IntN(0o2000)), UID: f.rng.Uint32() >> f.rng.IntN(32), GID: f.rng.Uint32() >> f.rng.IntN(32),
		Mtime: Time{Sec: f.rng.Int64()>>f.rng.IntN(64) - f.rng.Int64N(100), Nsec: int32(f.rng.IntN(1e9))},
	}
	switch kind {
	case Symlink:
		e.Link = "../target"
	case File:
		for range f.rng.IntN(4) {
			if f.rng.IntN(4) == 0 {
				e.Chunks = append(e.Chunks, Chunk{Size: 1 + f.rng.Int64N(1<<40)})
			} else {
				b := f.blob()
				e.Chunks = append(e.Chunks, Chunk{Blob: b, Size: int64(b.Len)})
			}
			e.Size += e.Chunks[len(e.Chunks)-1].Size
		}
	}
	return e
}

func decoded(t *testing.T, tree *Tree) *Tree {
	t.Helper()
	out, err := Decode(tree.Encode())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEncodeAndDecode(t *testing.T) {
	for seed := range uint64(300) {
		tree := newForest(seed).tree()
		if err := tree.Check(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		data := tree.Encode()
		got := decoded(t, tree)
		if !reflect.DeepEqual(got.Entries, tree.Entries) || len(got.Removed) != 0 {
			t.Fatalf("seed %d: another tree came back", seed)
		}
		if again := got.Encode(); !bytes.Equal(again, data) {
			t.Fatalf("seed %d: it is encoded in another way the second time", seed)
		}
	}
	if got := decoded(t, new(Tree)); len(got.Entries) != 0 {
		t.Errorf("%+v", got)
	}
}

// What a delta says beyond a base makes the next tree of it, files that became
// directories and back among it.
func TestDelta(t *testing.T) {
	for seed := range uint64(500) {
		f := newForest(seed)
		base, next := f.tree(), f.tree()
		if seed%5 == 0 { // little changed
			next = &Tree{Entries: append([]Entry{}, base.Entries...)}
			next.Entries[len(next.Entries)/2].Mtime.Sec++
		}
		d := Delta(base, next)
		if got := Apply(base, d); !reflect.DeepEqual(got.Entries, next.Entries) {
			t.Fatalf("seed %d: the delta does not make the next tree", seed)
		}
		if got := Apply(base, decoded(t, d)); !reflect.DeepEqual(got.Entries, next.Entries) {
			t.Fatalf("seed %d: the delta as stored does not make the next tree", seed)
		}
		if same := Delta(base, base); len(same.Entries)+len(same.Removed) > 0 {
			t.Fatalf("seed %d: a tree differs from itself by %+v", seed, same)
		}
		if seed%5 == 0 && len(d.Entries)+len(d.Removed) != 1 {
			t.Errorf("seed %d: one change makes a delta of %d and %d", seed, len(d.Entries), len(d.Removed))
		}
	}
}

func TestComparePaths(t *testing.T) {
	order := []string{"", "a", "a/b", "a/b/c", "a/b.c", "a\x01", "a b", "a-b", "a.b", "ab", "b", "\xff"}
	for i, a := range order {
		for k, b := range order {
			if got := ComparePaths(a, b); got < 0 != (i < k) || got > 0 != (i > k) {
				t.Errorf("%q and %q: %d", a, b, got)
			}
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	dir := func(path string) Entry { return Entry{Path: path, Kind: Dir} }
	frame := &Frame{Pack: &Pack{Name: "p"}, Size: 10, Stored: 10}
	for name, entries := range map[string][]Entry{
		"nothing":               {},
		"no root":               {dir("a")},
		"a root that is a file": {{Kind: File}},
		"no parent":             {dir(""), {Path: "a/b", Kind: File}},
		"below a file":          {dir(""), {Path: "a", Kind: File}, {Path: "a/b", Kind: File}},
		"below a link":          {dir(""), {Path: "a", Kind: Symlink, Link: "/etc"}, {Path: "a/passwd", Kind: File}},
		"up":                    {dir(""), {Path: "..", Kind: File}},
		"up later":              {dir(""), dir("a"), {Path: "a/../b", Kind: File}},
		"absolute":              {dir(""), {Path: "/a", Kind: File}},
		"doubled slash":         {dir(""), dir("a"), {Path: "a//b", Kind: File}},
		"NUL":                   {dir(""), {Path: "a\x00", Kind: File}},
		"twice":                 {dir(""), dir("a"), dir("a")},
		"out of order":          {dir(""), dir("b"), dir("a")},
		"setuid":                {dir(""), {Path: "a", Kind: File, Mode: 0o4755}},
		"bad time":              {dir(""), {Path: "a", Kind: File, Mtime: Time{Nsec: 1e9}}},
		"unknown kind":          {dir(""), {Path: "a", Kind: 9}},
		"a link to nothing":     {dir(""), {Path: "a", Kind: Symlink}},
		"a link with NUL":       {dir(""), {Path: "a", Kind: Symlink, Link: "x\x00"}},
		"a hard link to a link": {dir(""), {Path: "a", Kind: Symlink, Link: "x"}, {Path: "b", Kind: Hardlink, Link: "a"}},
		"a hard link up":        {dir(""), {Path: "b", Kind: Hardlink, Link: "../x"}},
		"size without contents": {dir(""), {Path: "a", Kind: File, Size: 1}},
		"contents beyond":       {dir(""), {Path: "a", Kind: File, Size: 5, Chunks: []Chunk{{&Blob{Frame: frame, Off: 8, Len: 5}, 5}}}},
		"negative hole":         {dir(""), {Path: "a", Kind: File, Size: 5, Chunks: []Chunk{{nil, -5}, {nil, 10}}}},
		"sum overflows":         {dir(""), {Path: "a", Kind: File, Size: 5, Chunks: []Chunk{{nil, math.MaxInt64}, {nil, math.MaxInt64}}}},
		"a long path":           {dir(""), {Path: strings.Repeat("a", MaxPath+1), Kind: File}},
	} {
		if err := (&Tree{Entries: entries}).Check(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// Few bytes must not ask for much memory.
func TestHostileSizes(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}
	var before, after runtime.MemStats
	for at := range sections {
		var data []byte
		for i := range sections {
			if i == at {
				data = append(append(data, byte(len(huge))), huge...)
			} else {
				data = append(data, 1, 0)
			}
		}
		if _, err := Decode(data); err == nil {
			t.Errorf("section %d: accepted", at)
		}
	}
	// A long path that each of many entries shares: they stand for 600 MB.
	long := &Tree{}
	prefix := strings.Repeat("d/", 30_000)
	for i := range 10_000 {
		long.Entries = append(long.Entries, Entry{Path: prefix + fmt.Sprintf("%05d", i), Kind: File})
	}
	data := long.Encode()
	clear(long.Entries)
	runtime.ReadMemStats(&before)
	if _, err := Decode(data); err == nil {
		t.Error("they are accepted")
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 400<<20 {
		t.Errorf("%d bytes took %d bytes of memory", len(data), got)
	}
	if _, err := Decode(huge); err == nil {
		t.Error("accepted")
	}
}

func FuzzDecode(f *testing.F) {
	for seed := range uint64(20) {
		trees := newForest(seed)
		base := trees.tree()
		f.Add(base.Encode())
		f.Add(Delta(base, trees.tree()).Encode())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tree, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Decode(tree.Encode())
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if !reflect.DeepEqual(tree.Entries, again.Entries) || !reflect.DeepEqual(tree.Removed, again.Removed) {
			t.Fatal("another tree came back")
		}
		if tree.Check() == nil {
			if whole := Apply(tree, new(Tree)); whole.Check() != nil {
				t.Fatal("a tree with nothing changed is another")
			}
		}
		for _, e := range tree.Entries {
			if CheckPath(e.Path) != "" || strings.HasPrefix(e.Path, "/") || strings.Contains("/"+e.Path+"/", "/../") {
				t.Fatalf("path %q", e.Path)
			}
		}
	})
}
