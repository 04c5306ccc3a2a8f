package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/vivarium-go/vivarium/storage"
)

// bodies are those of one request and those of several parts.
var bodies = sync.OnceValue(func() []string {
	return []string{"", "text", strings.Repeat("vivarium", 1<<14), strings.Repeat("0123456789abcdef", 6<<16) + "end"}
})

// disguises are the ways a body comes: a *bytes.Reader, and a stream of which
// nothing is known.
var disguises = map[string]func(string) io.Reader{
	"bytes.Reader": func(s string) io.Reader { return bytes.NewReader([]byte(s)) },
	"stream":       func(s string) io.Reader { return struct{ io.Reader }{strings.NewReader(s)} },
}

// announcements are what a caller can say of a body besides its size.
var announcements = map[string]func(string) *storage.PutOptions{
	"SHA-256": func(data string) *storage.PutOptions { return &storage.PutOptions{SHA256: sumOf(data)} },
	"CRC-32C": func(data string) *storage.PutOptions { return &storage.PutOptions{CRC32C: crcOf(data)} },
	"both": func(data string) *storage.PutOptions {
		return &storage.PutOptions{SHA256: sumOf(data), CRC32C: crcOf(data)}
	},
}

func sumOf(data string) []byte {
	sum := sha256.Sum256([]byte(data))
	return sum[:]
}

func crcOf(data string) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum([]byte(data), crc32.MakeTable(crc32.Castagnoli)))
}

func putDigest(t *testing.T, b storage.Bucket) {
	for what, announce := range announcements {
		for name, disguise := range disguises {
			for _, data := range bodies() {
				for _, ifAbsent := range []bool{false, true} {
					opts := announce(data)
					opts.Size = int64(len(data))
					if opts.IfAbsent = ifAbsent; ifAbsent {
						if err := b.Delete(t.Context(), "key"); err != nil {
							t.Fatal(err)
						}
					}
					if err := b.Put(t.Context(), "key", disguise(data), opts); err != nil {
						t.Fatalf("Put of %d bytes as %s with %s: %v", len(data), name, what, err)
					}
					want(t, b, "key", data)
				}
			}
		}
	}
	wantIs(t, "Put with half a digest", b.Put(t.Context(), "key", strings.NewReader("x"), &storage.PutOptions{SHA256: make([]byte, 16)}), fs.ErrInvalid)
	wantIs(t, "Put with a long checksum", b.Put(t.Context(), "key", strings.NewReader("x"), &storage.PutOptions{CRC32C: make([]byte, 8)}), fs.ErrInvalid)
	wantIs(t, "Put of negative size", b.Put(t.Context(), "key", strings.NewReader("x"), &storage.PutOptions{Size: -1}), fs.ErrInvalid)
}

func putOtherDigest(t *testing.T, b storage.Bucket) {
	for what, announce := range announcements {
		for name, disguise := range disguises {
			for _, data := range bodies() {
				for _, size := range []int64{0, int64(len(data))} {
					opts := announce(data + "x")
					opts.Size = size
					wantIs(t, "Put as "+name+" with "+what, b.Put(t.Context(), "key", disguise(data), opts), storage.ErrMismatch)
					_, err := b.Stat(t.Context(), "key")
					wantIs(t, "Stat after it", err, fs.ErrNotExist)
				}
			}
		}
		put(t, b, "kept", "old")
		wantIs(t, "Put over an object", b.Put(t.Context(), "kept", strings.NewReader("new"), announce("other")), storage.ErrMismatch)
		want(t, b, "kept", "old")
	}
}

func putOtherSize(t *testing.T, b storage.Bucket) {
	for name, disguise := range disguises {
		for _, data := range bodies() {
			for _, by := range []int{-1, 1, 20 << 20} {
				size := len(data) + by
				if size <= 0 {
					continue
				}
				err := b.Put(t.Context(), "key", disguise(data), &storage.PutOptions{Size: int64(size)})
				wantIs(t, "Put as "+name, err, storage.ErrMismatch)
				_, err = b.Stat(t.Context(), "key")
				wantIs(t, "Stat after it", err, fs.ErrNotExist)
			}
		}
	}
}

// putBytesReader puts readers that were read from before.
func putBytesReader(t *testing.T, b storage.Bucket) {
	for _, announce := range announcements {
		for _, data := range bodies() {
			r := bytes.NewReader([]byte("read before " + data))
			if _, err := io.CopyN(io.Discard, r, int64(len("read before "))); err != nil {
				t.Fatal(err)
			}
			if err := b.Put(t.Context(), "key", r, announce(data)); err != nil {
				t.Fatal(err)
			}
			want(t, b, "key", data)
		}
	}
}

func putReplaces(t *testing.T, b storage.Bucket) {
	put(t, b, "key", "a long first text")
	put(t, b, "key", "second")
	want(t, b, "key", "second")
}

func putIfAbsent(t *testing.T, b storage.Bucket) {
	ifAbsent := &storage.PutOptions{IfAbsent: true}
	if err := b.Put(t.Context(), "key", strings.NewReader("first"), ifAbsent); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"second", "first"} {
		err := b.Put(t.Context(), "key", strings.NewReader(data), ifAbsent)
		wantIs(t, "second Put", err, fs.ErrExist)
	}
	want(t, b, "key", "first")
	if err := b.Delete(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "key", strings.NewReader("third"), ifAbsent); err != nil {
		t.Fatalf("Put after Delete: %v", err)
	}
	want(t, b, "key", "third")
}

func putRace(t *testing.T, b storage.Bucket) {
	const racers = 16
	errs := make([]error, racers)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range racers {
		wg.Go(func() {
			<-start
			errs[i] = b.Put(t.Context(), "prize", strings.NewReader(fmt.Sprint("racer ", i)), &storage.PutOptions{IfAbsent: true})
		})
	}
	close(start)
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("racers %d and %d both won", winner, i)
		case err == nil:
			winner = i
		default:
			wantIs(t, fmt.Sprint("racer ", i), err, fs.ErrExist)
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	want(t, b, "prize", fmt.Sprint("racer ", winner))
}

func putBroken(t *testing.T, b storage.Bucket) {
	own := errors.New("the source broke")
	for i, size := range []int{0, 100, 12 << 20, 12 << 20, 100} {
		for _, opts := range []*storage.PutOptions{nil, {IfAbsent: true}} {
			cause := own
			if i > 2 { // which is easily taken for an end
				cause = io.ErrUnexpectedEOF
			}
			r := io.MultiReader(io.LimitReader(zeros{}, int64(size)), iotest.ErrReader(cause))
			wantIs(t, "Put of a broken stream", b.Put(t.Context(), "broken", r, opts), cause)
			_, err := b.Stat(t.Context(), "broken")
			wantIs(t, "Stat after it", err, fs.ErrNotExist)
		}
	}
	put(t, b, "kept", "old")
	r := io.MultiReader(strings.NewReader("new"), iotest.ErrReader(own))
	wantIs(t, "Put over an object", b.Put(t.Context(), "kept", r, nil), own)
	want(t, b, "kept", "old")
	if all := keys(t, b, ""); len(all) != 1 {
		t.Fatalf("the bucket holds %q", all)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func putCancelled(t *testing.T, b storage.Bucket) {
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(strings.NewReader("text"), callback(cancel))
	wantIs(t, "Put", b.Put(ctx, "key", r, nil), context.Canceled)
	wantIs(t, "second Put", b.Put(ctx, "key", strings.NewReader("x"), nil), context.Canceled)
	if all := keys(t, b, ""); len(all) != 0 {
		t.Fatalf("the bucket holds %q", all)
	}
}

// callback is an empty reader that calls itself when it is read.
type callback func()

func (f callback) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

func putLarge(t *testing.T, b storage.Bucket) {
	data := bytes.Repeat(make([]byte, 1<<20), 12)
	for i := range 12 << 4 { // no two parts are alike
		copy(data[i<<16:], fmt.Sprintf("block %d", i))
	}
	data = append(data, "and a ragged end"...)
	for _, opts := range []*storage.PutOptions{nil, {IfAbsent: true}} {
		key := fmt.Sprint("large-", opts != nil)
		// In disguise: a reader with no Len and no Seek.
		if err := b.Put(t.Context(), key, struct{ io.Reader }{bytes.NewReader(data)}, opts); err != nil {
			t.Fatal(err)
		}
		got, err := read(t.Context(), b, key, 0, -1)
		if err != nil || got != string(data) {
			t.Fatalf("Get: %d bytes, %v; want the %d bytes that were put", len(got), err, len(data))
		}
	}
	err := b.Put(t.Context(), "large-true", io.LimitReader(zeros{}, int64(len(data))), &storage.PutOptions{IfAbsent: true})
	wantIs(t, "large Put over an object", err, fs.ErrExist)
	if got, err := read(t.Context(), b, "large-true", 11<<20, 9); err != nil || got != string(data[11<<20:11<<20+9]) {
		t.Fatalf("range of a large object: %q, %v", got, err)
	}
}
