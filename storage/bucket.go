package storage

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
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
