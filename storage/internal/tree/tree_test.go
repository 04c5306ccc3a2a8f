package tree

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// random makes the listing of a directory that some edits ago was another.
func random(rng *rand.Rand, blobs []*Blob) *Tree {
	t := &Tree{Entries: []Entry{{Kind: Dir, Mode: 0o755}}}
	var fill func(at string, depth int)
	fill = func(at string, depth int) {
		for i := range 5 {
			e := Entry{Path: fmt.Sprint(at, "n", i), Mode: uint16(rng.IntN(0o2000)), UID: rng.Uint32(), Mtime: Time{rng.Int64N(1 << 40), rng.Int32N(1e9)}}
			switch rng.IntN(6) {
			case 0, 1:
				e.Kind = File
				for range rng.IntN(3) {
					b := blobs[rng.IntN(len(blobs))]
					e.Chunks = append(e.Chunks, Chunk{b, int64(b.Len)})
					e.Size += int64(b.Len)
				}
				if rng.IntN(4) == 0 {
					e.Chunks = append(e.Chunks, Chunk{nil, 4096})
					e.Size += 4096
				}
			case 2:
				e.Kind, e.Link = Symlink, "../somewhere"
			case 3, 4:
				e.Kind = Dir
			default:
				continue
			}
			t.Entries = append(t.Entries, e)
			if e.Kind == Dir && depth < 3 {
				fill(e.Path+"/", depth+1)
			}
		}
	}
	fill("", 0)
	for i := range t.Entries {
		if e := &t.Entries[i]; e.Kind == File && i%7 == 0 {
			t.Entries = append(t.Entries, Entry{Path: "zz-hard" + fmt.Sprint(i), Kind: Hardlink, Link: e.Path})
		}
	}
	Sort(t.Entries)
	return t
}

func someBlobs() (all []*Blob) {
	for p := range 3 {
		pack := &Pack{Name: fmt.Sprint("pack", p)}
		for f := range 3 {
			frame := &Frame{Pack: pack, Off: uint32(f * 1000), Stored: 900, Size: 3000, Raw: false}
			for b := range 3 {
				all = append(all, &Blob{Sum: [32]byte{byte(p), byte(f), byte(b)}, Frame: frame, Off: uint32(b * 1000), Len: 1000})
			}
		}
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	blobs := someBlobs()
	for range 30 {
		base, next := random(rng, blobs), random(rng, blobs)
		for name, tree := range map[string]*Tree{"whole": base, "delta": Delta(base, next)} {
			got, err := Decode(tree.Encode())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(tree, got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("%s: decoded otherwise (-want +got):\n%s", name, diff)
			}
		}
		if err := base.Check(); err != nil {
			t.Fatal(err)
		}
		got := Apply(base, Delta(base, next))
		if diff := cmp.Diff(next.Entries, got.Entries, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("a delta applied gives otherwise (-want +got):\n%s", diff)
		}
		if err := got.Check(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestComparePaths(t *testing.T) {
	inOrder := []string{"", "a", "a/b", "a/b/c", "a/c", "a b", "a-b", "a.b", "ab", "b"}
	for i, a := range inOrder {
		for j, b := range inOrder {
			if got, want := ComparePaths(a, b), i-j; got < 0 != (want < 0) || got > 0 != (want > 0) {
				t.Errorf("ComparePaths(%q, %q) = %d", a, b, got)
			}
		}
	}
}

// What a hostile listing names must not be believed.
func TestCheckRefuses(t *testing.T) {
	root := Entry{Kind: Dir}
	file := func(path string) Entry { return Entry{Path: path, Kind: File} }
	for name, entries := range map[string][]Entry{
		"no root":              {file("a")},
		"parent missing":       {root, file("a/b")},
		"below a file":         {root, file("a"), file("a/b")},
		"below a link":         {root, {Path: "a", Kind: Symlink, Link: "/etc"}, file("a/b")},
		"up":                   {root, file("../a")},
		"absolute":             {root, file("/a")},
		"dot":                  {root, file("./a")},
		"twice":                {root, file("a"), file("a")},
		"out of order":         {root, file("b"), file("a")},
		"link to nothing":      {root, {Path: "a", Kind: Hardlink, Link: "b"}},
		"link to a directory":  {root, {Path: "a", Kind: Dir}, {Path: "b", Kind: Hardlink, Link: "a"}},
		"size without content": {root, {Path: "a", Kind: File, Size: 1}},
		"setuid":               {root, {Path: "a", Kind: File, Mode: 0o4755}},
		"unknown kind":         {root, {Path: "a", Kind: 9}},
		"NUL":                  {root, file("a\x00b")},
	} {
		if err := (&Tree{Entries: entries}).Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	blobs := someBlobs()
	a, b := random(rng, blobs), random(rng, blobs)
	f.Add(a.Encode())
	f.Add(Delta(a, b).Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		tree, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Decode(tree.Encode())
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded and decoded: %v", err)
		}
		if len(again.Entries) != len(tree.Entries) || len(again.Removed) != len(tree.Removed) {
			t.Fatal("entries were lost")
		}
		_ = tree.Check()
		_ = Apply(a, tree)
	})
}
