package storage_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

const (
	sealHead    = 48
	sealSegment = 64 << 10
	sealStored  = sealSegment + 16
)

func sealKey(fill byte) []byte { return bytes.Repeat([]byte{fill}, storage.SealKeySize) }

func seal(t testing.TB, b storage.Bucket, key []byte, old ...[]byte) storage.Bucket {
	t.Helper()
	s, err := storage.Sealed(b, key, &storage.SealOptions{OldKeys: old})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealedBucket(t *testing.T) {
	storagetest.Exercise(t, func(t *testing.T) storage.Bucket { return seal(t, new(storagetest.Memory), sealKey(1)) })
}

func getAll(ctx context.Context, b storage.Bucket, key string, offset, length int64) ([]byte, error) {
	r, err := b.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func putBytes(t testing.TB, b storage.Bucket, key string, data []byte) {
	t.Helper()
	if err := b.Put(t.Context(), key, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
}

// noise is text in which no two places are alike.
func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
	return data
}

var sealSizes = []int{0, 1, sealSegment - 1, sealSegment, sealSegment + 1, 2 * sealSegment, 3*sealSegment + 17}

func TestSealedSizesAndRanges(t *testing.T) {
	memory := new(storagetest.Memory)
	s := seal(t, memory, sealKey(1))
	for _, size := range sealSizes {
		data := noise(size)
		putBytes(t, s, "key", data)
		if o, err := s.Stat(t.Context(), "key"); err != nil || o.Size != int64(size) {
			t.Fatalf("Stat of %d bytes: %+v, %v", size, o, err)
		}
		stored, err := memory.Stat(t.Context(), "key")
		if want := int64(sealHead + size + 16*max(1, (size+sealSegment-1)/sealSegment)); err != nil || stored.Size != want {
			t.Fatalf("%d bytes take %d, not %d", size, stored.Size, want)
		}
		for _, offset := range sealSizes {
			for _, length := range append(sealSizes, -1, 1<<62) {
				got, err := getAll(t.Context(), s, "key", int64(offset), int64(length))
				from := min(offset, size)
				to := size
				if length >= 0 && length < size-from {
					to = from + length
				}
				if err != nil || !bytes.Equal(got, data[from:to]) {
					t.Fatalf("%d bytes from %d of %d: got %d, %v", length, offset, size, len(got), err)
				}
			}
		}
	}
}

func TestSealedRangeReadsOnlyItsSegments(t *testing.T) {
	memory := new(storagetest.Memory)
	data := noise(10 * sealSegment)
	putBytes(t, seal(t, memory, sealKey(1)), "key", data)
	counted := &counting{Faulty: storagetest.Faulty{Bucket: memory}}
	s := seal(t, counted, sealKey(1))
	for i, requests := range []int{2, 1} { // the head is read once
		counted.requests, counted.bytes = 0, 0
		got, err := getAll(t.Context(), s, "key", 5*sealSegment+100, sealSegment)
		if err != nil || !bytes.Equal(got, data[5*sealSegment+100:6*sealSegment+100]) {
			t.Fatal(err)
		}
		if counted.requests != requests || counted.bytes > 2*sealStored+sealHead {
			t.Errorf("read %d: %d requests, %d bytes", i, counted.requests, counted.bytes)
		}
	}
}

// counting counts gets and what they give.
type counting struct {
	storagetest.Faulty
	requests int
	bytes    int64
}

func (c *counting) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c.requests++
	r, err := c.Faulty.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return &countingStream{r, &c.bytes}, nil
}

type countingStream struct {
	io.ReadCloser
	n *int64
}

func (c *countingStream) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	*c.n += int64(n)
	return n, err
}

// TestSealedDamageIsFound does to a stored object what a store or a thief could.
func TestSealedDamageIsFound(t *testing.T) {
	memory := new(storagetest.Memory)
	s := seal(t, memory, sealKey(1))
	data := noise(3*sealSegment + 100)
	putBytes(t, s, "key", data)
	putBytes(t, s, "other", noise(3*sealSegment+100))
	whole, err := getAll(t.Context(), memory, "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	other, err := getAll(t.Context(), memory, "other", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	segment := func(from []byte, n int) []byte {
		return from[sealHead+n*sealStored : min(len(from), sealHead+(n+1)*sealStored)]
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	head := whole[:sealHead]
	damaged := map[string][]byte{
		"empty":             nil,
		"half a head":       whole[:20],
		"only a head":       head,
		"cut in a segment":  whole[:sealHead+1000],
		"one segment":       join(head, segment(whole, 0)),
		"without the last":  join(head, segment(whole, 0), segment(whole, 1), segment(whole, 2)),
		"less than a tag":   whole[:sealHead+3*sealStored+10],
		"one byte less":     whole[:len(whole)-1],
		"one byte more":     join(whole, []byte{0}),
		"a segment more":    join(whole, segment(whole, 0)),
		"swapped segments":  join(head, segment(whole, 1), segment(whole, 0), segment(whole, 2), segment(whole, 3)),
		"segment left out":  join(head, segment(whole, 0), segment(whole, 2), segment(whole, 3)),
		"last comes first":  join(head, segment(whole, 3)),
		"another's segment": join(head, segment(whole, 0), segment(other, 1), segment(whole, 2), segment(whole, 3)),
		"another's head":    join(other[:sealHead], whole[sealHead:]),
		"another's object":  other,
		"not sealed":        noise(5 * sealSegment),
	}
	for i := range whole {
		if i < sealHead+20 || i%9973 == 0 || i > len(whole)-20 {
			flipped := bytes.Clone(whole)
			flipped[i] ^= 1
			damaged[fmt.Sprint("bit of byte ", i)] = flipped
		}
	}
	for name, stored := range damaged {
		putBytes(t, memory, "key", stored)
		for _, reader := range []storage.Bucket{s, seal(t, memory, sealKey(1))} {
			got, err := getAll(t.Context(), reader, "key", 0, -1)
			if !errors.Is(err, storage.ErrSealBroken) && !errors.Is(err, storage.ErrSealKey) || !bytes.HasPrefix(data, got) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
			for _, offset := range []int64{sealSegment, 2*sealSegment + 5, 3*sealSegment + 99, 5 * sealSegment} {
				got, err := getAll(t.Context(), reader, "key", offset, 1000)
				end := int64(len(data))
				moved := offset >= end && len(stored) != len(whole) // the end is elsewhere
				if err == nil && (moved || !bytes.Equal(got, data[min(offset, end):min(offset+1000, end)])) {
					t.Errorf("%s: from %d: %d other bytes", name, offset, len(got))
				}
			}
		}
	}
}

func TestSealedReplacedObjectIsReadAnew(t *testing.T) {
	memory := new(storagetest.Memory)
	reader, writer := seal(t, memory, sealKey(1)), seal(t, memory, sealKey(1))
	for i := range 3 {
		data := noise((5 - i) * sealSegment)
		data[0] = byte(i)
		putBytes(t, writer, "key", data[i:])
		got, err := getAll(t.Context(), reader, "key", sealSegment+7, 1000)
		if err != nil || !bytes.Equal(got, data[i:][sealSegment+7:][:1000]) {
			t.Fatal(err)
		}
		if got, err := getAll(t.Context(), reader, "key", 4*sealSegment+1<<20, 10); err != nil || len(got) != 0 {
			t.Fatalf("past the end: %d bytes, %v", len(got), err)
		}
	}
}

func TestSealedKeys(t *testing.T) {
	memory := new(storagetest.Memory)
	putBytes(t, seal(t, memory, sealKey(1)), "old", []byte("text"))
	rotated := seal(t, memory, sealKey(2), sealKey(3), sealKey(1))
	if got, err := getAll(t.Context(), rotated, "old", 0, -1); err != nil || string(got) != "text" {
		t.Fatalf("%q, %v", got, err)
	}
	putBytes(t, rotated, "new", noise(2*sealSegment))
	for _, offset := range []int64{0, sealSegment} {
		_, err := getAll(t.Context(), seal(t, memory, sealKey(1)), "new", offset, -1)
		if !errors.Is(err, storage.ErrSealKey) || errors.Is(err, storage.ErrSealBroken) {
			t.Errorf("from %d with the old key: %v", offset, err)
		}
	}
	for _, key := range [][]byte{nil, make([]byte, 16), make([]byte, 33)} {
		if _, err := storage.Sealed(memory, key, nil); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("a key of %d bytes: %v", len(key), err)
		}
	}
	if _, err := storage.Sealed(memory, sealKey(1), &storage.SealOptions{OldKeys: [][]byte{nil}}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("an old key of no bytes: %v", err)
	}
}

func TestSealedHidesContents(t *testing.T) {
	memory := new(storagetest.Memory)
	s := seal(t, memory, sealKey(1))
	text := []byte(strings.Repeat("the same text ", 1000))
	putBytes(t, s, "one", text)
	putBytes(t, s, "two", text)
	one, err := getAll(t.Context(), memory, "one", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	two, err := getAll(t.Context(), memory, "two", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(one, []byte("same")) || bytes.Equal(one[sealHead:], two[sealHead:]) {
		t.Error("the stored bytes tell something of the contents")
	}
	if _, err := storage.PresignerOf(s); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a sealed bucket presigns: %v", err)
	}
}

func TestSealedListReportsWhatIsNotSealed(t *testing.T) {
	memory := new(storagetest.Memory)
	putBytes(t, memory, "plain", []byte("short"))
	for _, err := range seal(t, memory, sealKey(1)).List(t.Context(), "") {
		if !errors.Is(err, storage.ErrSealBroken) || !strings.Contains(err.Error(), "plain") {
			t.Error(err)
		}
	}
}

// sealVector is the one of docs/storage-format.md: "hello" under the key
// acme/notes, sealed with 32 bytes of value 1.
const sealVector = "7669767365616c31" +
	"6cfdc9958035c5da" +
	"ce76fcdbd0b5463f45af55a952b79f67f43f3b19df8dd512507554620a8a140e" +
	"a127b336e1d8cad6316e76901ba6d07295c15e013e"

func TestSealedVector(t *testing.T) {
	memory := new(storagetest.Memory)
	stored, err := hex.DecodeString(sealVector)
	if err != nil {
		t.Fatal(err)
	}
	putBytes(t, memory, "acme/notes", stored)
	if got, err := getAll(t.Context(), seal(t, memory, sealKey(1)), "acme/notes", 0, -1); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
}

// FuzzSealed changes a stored object and reads it: what comes out is what was put,
// or an error.
func FuzzSealed(f *testing.F) {
	f.Add(uint32(100), uint32(50), []byte{1}, uint32(1000), int64(0), int64(-1))
	f.Add(uint32(70_000), uint32(65_600), []byte{0, 0, 0}, uint32(1<<20), int64(66_000), int64(10))
	f.Add(uint32(131_072), uint32(0), []byte("vivseal1"), uint32(131_000), int64(131_072), int64(5))
	f.Fuzz(func(t *testing.T, size, at uint32, change []byte, keep uint32, offset, length int64) {
		data := noise(int(size % (4 * sealSegment)))
		memory := new(storagetest.Memory)
		s := seal(t, memory, sealKey(1))
		putBytes(t, s, "key", data)
		stored, err := getAll(t.Context(), memory, "key", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(stored[:min(len(stored), int(keep))])
		for i, c := range change {
			if len(changed) > 0 {
				changed[(int(at)+i)%len(changed)] ^= c
			}
		}
		putBytes(t, memory, "key", changed)
		offset = max(0, offset)
		got, err := getAll(t.Context(), s, "key", offset, length)
		want := data[min(offset, int64(len(data))):]
		if length >= 0 {
			want = want[:min(length, int64(len(want)))]
		}
		switch {
		case err == nil && !bytes.Equal(got, want):
			t.Fatalf("%d bytes that were not put", len(got))
		case err != nil && !bytes.HasPrefix(want, got):
			t.Fatalf("%d bytes that were not put, before %v", len(got), err)
		case err != nil && bytes.Equal(changed, stored):
			t.Fatalf("what was put: %v", err)
		case err != nil && !errors.Is(err, storage.ErrSealBroken) && !errors.Is(err, storage.ErrSealKey):
			t.Fatal(err)
		case err == nil && offset == 0 && length < 0 && !bytes.Equal(changed, stored):
			t.Fatal("a change was not found")
		}
	})
}

func ExampleSealed() {
	ctx := context.Background()
	key := []byte("0123456789abcdef0123456789abcdef") // 32 random bytes, kept elsewhere
	inner := new(storagetest.Memory)
	bucket, err := storage.Sealed(inner, key, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := bucket.Put(ctx, "notes", strings.NewReader("the content"), nil); err != nil {
		fmt.Println(err)
		return
	}
	r, err := bucket.Get(ctx, "notes", 4, -1)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	fmt.Printf("%s %v\n", text, err)

	_ = storagetest.FlipByte(ctx, inner, "notes", -1)
	_, err = bucket.Get(ctx, "notes", 0, -1)
	fmt.Println(errors.Is(err, storage.ErrSealBroken))
	// Output:
	// content <nil>
	// true
}

func ExamplePresignerOf() {
	_, err := storage.PresignerOf(new(storagetest.Memory))
	fmt.Println(errors.Is(err, errors.ErrUnsupported))
	// Output: true
}
