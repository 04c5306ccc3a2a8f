package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bucket stores whole objects by key: a flat name space that is shared by every
// volume in it. storagetest.Exercise checks an implementation against the
// promises below. All methods are safe for concurrent use.
//
// A key that [CheckKey] refuses gives an error that matches fs.ErrInvalid.
// Whether "a" and "a/b" can both be objects is up to the store; a Volume never
// needs it.
type Bucket interface {
	// Get opens length bytes of an object from offset on; a negative length
	// means all that follow. A range that reaches past the end is cut there, and
	// may thus be empty; a negative offset matches fs.ErrInvalid. An absent
	// object matches fs.ErrNotExist. The caller closes the reader, which stops
	// working when ctx is cancelled. A stream that is cut short returns an error
	// other than io.EOF.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// Put stores everything r gives as one object. The object becomes visible
	// whole, at the end, or not at all: when r returns an error, Put returns that
	// error (errors.Is) and stores nothing. After any other error the object may
	// or may not be there. opts may be nil. Put does not close r.
	Put(ctx context.Context, key string, r io.Reader, opts *PutOptions) error

	// Stat describes an object; an absent one matches fs.ErrNotExist.
	Stat(ctx context.Context, key string) (Object, error)

	// List gives every object whose key starts with prefix, in ascending byte
	// order of keys, however many there are. The prefix is a plain string and
	// need not end at a slash; "" means all. The first error ends the sequence.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]

	// Delete removes an object. Deleting an absent one is no error.
	Delete(ctx context.Context, key string) error
}

// PutOptions change what Put does. The zero value overwrites.
type PutOptions struct {
	// IfAbsent makes Put fail, with an error that matches fs.ErrExist, when the
	// key already has an object. Of several racing creators one wins. A Put that
	// repeats its own request after a lost answer still reports success.
	IfAbsent bool
	// SHA256 is the digest, of 32 bytes, of everything r gives, for a caller who
	// knows it: the bucket need not compute it again, and a body that differs is
	// refused with an error that matches ErrMismatch and never stored. Zero: not
	// known. Another length matches fs.ErrInvalid.
	SHA256 []byte
	// CRC32C is the CRC-32 with Castagnoli's polynomial, 4 bytes in big-endian order,
	// of everything r gives, for a caller who has a digest of the contents elsewhere
	// and only wants to be sure that they arrive: it costs a tenth of a SHA-256. A body
	// that differs is refused likewise. Zero: not known. Another length matches
	// fs.ErrInvalid.
	CRC32C []byte
	// Size is how many bytes r gives, for a caller who knows it: the bucket then
	// makes no guess about its buffers. A body of another size is refused as one
	// of another digest is. Zero: not known, or none. A negative one matches
	// fs.ErrInvalid.
	Size int64
}

// ErrMismatch is matched by the error of a Put whose body is not of the size, the
// SHA-256 or the CRC-32C that its options gave. Nothing was stored.
var ErrMismatch = errors.New("the body differs from its announced size or checksum")

// Check returns an error that matches fs.ErrInvalid when o contradicts itself.
// Nil is good. It is for those who write a Bucket.
func (o *PutOptions) Check() error {
	switch {
	case o == nil:
	case o.Size < 0:
		return fmt.Errorf("storage: put of %d bytes: %w", o.Size, fs.ErrInvalid)
	case o.SHA256 != nil && len(o.SHA256) != sha256.Size:
		return fmt.Errorf("storage: put with a SHA-256 of %d bytes, not %d: %w", len(o.SHA256), sha256.Size, fs.ErrInvalid)
	case o.CRC32C != nil && len(o.CRC32C) != crc32.Size:
		return fmt.Errorf("storage: put with a CRC-32C of %d bytes, not %d: %w", len(o.CRC32C), crc32.Size, fs.ErrInvalid)
	}
	return nil
}

// Body gives r as o announces it: at its end a body of another size or checksum
// returns an error that matches ErrMismatch, in place of io.EOF. It computes
// checksums only where o has them. Nil o gives r itself. It is for those who write a
// Bucket.
func (o *PutOptions) Body(r io.Reader) io.Reader {
	if o == nil || o.Size <= 0 && o.SHA256 == nil && o.CRC32C == nil {
		return r
	}
	b := &announcedBody{r: r, size: -1}
	if o.Size > 0 {
		b.size = o.Size
	}
	if o.SHA256 != nil {
		b.sums = append(b.sums, checksum{sha256.New(), o.SHA256})
	}
	if o.CRC32C != nil {
		b.sums = append(b.sums, checksum{crc32.New(castagnoli), o.CRC32C})
	}
	return b
}

// castagnoli is the polynomial of CRC-32C.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type announcedBody struct {
	r    io.Reader
	n    int64
	size int64 // -1: not announced
	sums []checksum
}

// checksum is one that is being computed, and what it is to be.
type checksum struct {
	hash.Hash
	want []byte
}

func (b *announcedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	for _, sum := range b.sums {
		_, _ = sum.Write(p[:n]) // of a hash; it never fails
	}
	differs := func(sum checksum) bool { return !bytes.Equal(sum.Sum(nil), sum.want) }
	switch {
	case b.size >= 0 && (b.n > b.size || err == io.EOF && b.n != b.size):
		return n, fmt.Errorf("storage: put of %d bytes that were to be %d: %w", b.n, b.size, ErrMismatch)
	case err == io.EOF && slices.ContainsFunc(b.sums, differs):
		return n, fmt.Errorf("storage: put of other bytes than announced: %w", ErrMismatch)
	}
	return n, err
}

// Presigner is what a Bucket may implement beside its own methods: it makes out
// requests that whoever has them can do, without credentials, until they expire.
// A sandbox can so move large objects itself. All methods are safe for concurrent
// use. A bucket that wraps another may pass it on, and then gives an error that
// matches errors.ErrUnsupported where the other cannot. Find it by [PresignerOf].
type Presigner interface {
	// PresignGet makes out a request for length bytes of an object from offset on;
	// a negative length means all that follow, and zero is not allowed. It does
	// not look whether the object exists.
	PresignGet(ctx context.Context, key string, offset, length int64, expires time.Duration) (*PresignedRequest, error)

	// PresignPut makes out a request that stores an object of exactly size bytes
	// with that SHA-256, of 32 bytes, in place of the one that was there. The server
	// refuses any other body.
	PresignPut(ctx context.Context, key string, size int64, sha256 []byte, expires time.Duration) (*PresignedRequest, error)
}

// PresignedRequest is one HTTP request that is allowed to whoever has it. Its URL
// is as secret as what it gives access to.
type PresignedRequest struct {
	// Method is "GET" or "PUT".
	Method string
	// URL is where to send it.
	URL string
	// Header is to be sent with it, as it is: the signature covers it. A PUT has to
	// have a Content-Length too, which HTTP clients send when they know the body's
	// size, and must not be chunked.
	Header http.Header
	// Expires is when the server begins to refuse it, if the clocks agree. The
	// credentials that signed it may end earlier.
	Expires time.Time
}

// PresignerOf gives b as a Presigner. Where it is none, the error matches
// errors.ErrUnsupported.
func PresignerOf(b Bucket) (Presigner, error) {
	if p, ok := b.(Presigner); ok {
		return p, nil
	}
	return nil, fmt.Errorf("storage: this bucket (%T) cannot presign requests; move the bytes through Get and Put: %w", b, errors.ErrUnsupported)
}

// Object describes a stored object.
type Object struct {
	// Key is the object's whole key.
	Key string
	// Size is in bytes.
	Size int64
	// Modified is when the object was stored, by the store's own clock. Only
	// times from the same bucket can be compared.
	Modified time.Time
}

// Limits of a key, so that every store can hold every key. S3 allows 1024 bytes
// in all; file names are commonly limited to 255, and dirbucket writes up to three
// bytes for one.
const (
	maxKey     = 800
	maxSegment = 80
)

// CheckKey returns nil when key can name an object in every bucket: UTF-8 without
// control characters, at most 800 bytes, made of slash-separated segments of 1 to
// 80 bytes, none of which is "." or "..". Otherwise it returns an error that
// matches fs.ErrInvalid.
func CheckKey(key string) error {
	if why := keyFault(key); why != "" {
		return fmt.Errorf("storage: key %q %s: %w", clip(key), why, fs.ErrInvalid)
	}
	return nil
}

func keyFault(key string) string {
	switch {
	case key == "":
		return "is empty"
	case len(key) > maxKey:
		return fmt.Sprintf("is longer than %d bytes", maxKey)
	case !utf8.ValidString(key):
		return "is not UTF-8"
	case strings.ContainsFunc(key, unstorable):
		return "holds a control character"
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == "":
			return "has an empty segment"
		case segment == "." || segment == "..":
			return "has a segment " + segment
		case len(segment) > maxSegment:
			return fmt.Sprintf("has a segment longer than %d bytes", maxSegment)
		}
	}
	return ""
}

// unstorable reports runes that XML, in which S3 lists keys, cannot carry.
func unstorable(r rune) bool {
	return unicode.IsControl(r) || r == 0xFFFE || r == 0xFFFF
}

// clip keeps error texts short when what they quote came from outside.
func clip(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
