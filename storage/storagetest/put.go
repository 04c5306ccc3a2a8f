package storagetest

import (
	"bytes"
	"crypto/sha256"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
)

// bodies are those of one request and those of several parts.
func bodies() []string {
	return []string{"", "text", strings.Repeat("vivarium", 1<<14), strings.Repeat("0123456789abcdef", 6<<16) + "end"}
}

// disguises are the ways a body comes: a *bytes.Reader, and a stream of which
// nothing is known.
var disguises = map[string]func(string) io.Reader{
	"bytes.Reader": func(s string) io.Reader { return bytes.NewReader([]byte(s)) },
	"stream":       func(s string) io.Reader { return struct{ io.Reader }{strings.NewReader(s)} },
}

func announce(data string) *storage.PutOptions {
	sum := sha256.Sum256([]byte(data))
	return &storage.PutOptions{SHA256: sum[:], Size: int64(len(data))}
}

func putDigest(t *testing.T, b storage.Bucket) {
	for name, disguise := range disguises {
		for _, data := range bodies() {
			for _, ifAbsent := range []bool{false, true} {
				opts := announce(data)
				if opts.IfAbsent = ifAbsent; ifAbsent {
					if err := b.Delete(t.Context(), "key"); err != nil {
						t.Fatal(err)
					}
				}
				if err := b.Put(t.Context(), "key", disguise(data), opts); err != nil {
					t.Fatalf("Put of %d bytes as %s: %v", len(data), name, err)
				}
				want(t, b, "key", data)
			}
		}
	}
	wantIs(t, "Put with half a digest", b.Put(t.Context(), "key", strings.NewReader("x"), &storage.PutOptions{SHA256: make([]byte, 16)}), fs.ErrInvalid)
	wantIs(t, "Put of negative size", b.Put(t.Context(), "key", strings.NewReader("x"), &storage.PutOptions{Size: -1}), fs.ErrInvalid)
}

func putOtherDigest(t *testing.T, b storage.Bucket) {
	for name, disguise := range disguises {
		for _, data := range bodies() {
			for _, size := range []int64{0, int64(len(data))} {
				opts := announce(data + "x")
				opts.Size = size
				wantIs(t, "Put as "+name, b.Put(t.Context(), "key", disguise(data), opts), storage.ErrMismatch)
				_, err := b.Stat(t.Context(), "key")
				wantIs(t, "Stat after it", err, fs.ErrNotExist)
			}
		}
	}
	put(t, b, "kept", "old")
	wantIs(t, "Put over an object", b.Put(t.Context(), "kept", strings.NewReader("new"), announce("other")), storage.ErrMismatch)
	want(t, b, "kept", "old")
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
