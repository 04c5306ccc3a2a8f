package cut

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(b) // never fails
	return b
}

func chunks(p []byte) (all [][]byte) {
	for len(p) > 0 {
		n := Next(p)
		all = append(all, p[:n])
		p = p[n:]
	}
	return all
}

func TestSizes(t *testing.T) {
	data := noise(64 << 20)
	all := chunks(data)
	for i, c := range all {
		if len(c) > Max || len(c) < Min && i < len(all)-1 {
			t.Errorf("chunk %d has %d bytes", i, len(c))
		}
	}
	if mean := len(data) / len(all); mean < Min*2 || mean > Min*4 {
		t.Errorf("chunks have %d bytes in the mean, want about %d", mean, 3*Min)
	}
	if !bytes.Equal(bytes.Join(all, nil), data) {
		t.Error("the chunks are not the data")
	}
}

// An edit may touch only the chunks that hold it and the next few.
func TestEditsMoveOnlyTheCutsNearby(t *testing.T) {
	data := noise(64 << 20)
	known := map[string]bool{}
	for _, c := range chunks(data) {
		known[string(c)] = true
	}
	edits := map[string][]byte{
		"overwritten": bytes.Join([][]byte{data[:20<<20], noise(100 << 20)[99<<20:], data[21<<20:]}, nil),
		"inserted":    bytes.Join([][]byte{data[:20<<20], []byte("x"), data[20<<20:]}, nil),
		"removed":     bytes.Join([][]byte{data[:20<<20], data[20<<20+7:]}, nil),
		"prefixed":    append([]byte("prefix"), data...),
	}
	for name, edited := range edits {
		fresh := 0
		for _, c := range chunks(edited) {
			if !known[string(c)] {
				fresh += len(c)
			}
		}
		if fresh > 1<<20+3*Max {
			t.Errorf("%s: %d bytes in new chunks", name, fresh)
		}
	}
}

func TestZerosAreOfOneSize(t *testing.T) {
	if n := Next(make([]byte, 3*Max)); n != Max {
		t.Errorf("a chunk of zeros has %d bytes", n)
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte("short"), uint16(3))
	f.Fuzz(func(t *testing.T, seed []byte, repeat uint16) {
		p := bytes.Repeat(seed, int(repeat))
		n := Next(p)
		if n > len(p) || n == 0 && len(p) > 0 || n > Max {
			t.Errorf("a chunk of %d of %d bytes", n, len(p))
		}
		if again := Next(p[:min(len(p), Max)]); again != n {
			t.Errorf("%d bytes, but %d when only what counts is given", n, again)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	data := noise(16 << 20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		chunks(data)
	}
}
