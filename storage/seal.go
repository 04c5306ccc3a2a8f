package storage

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"sync"
)

// ErrSealBroken is matched by the error of a sealed bucket when an object is not
// what was put under its key: it was never sealed, or it was changed, cut short,
// put together anew, or moved here from another key. No byte of such a part is
// given out.
var ErrSealBroken = errors.New("sealed object is damaged")

// ErrSealKey is matched by the error of a sealed bucket when an object was sealed
// with a key that is not among those given.
var ErrSealKey = errors.New("object is sealed with another key")

// SealKeySize is the length of a key for [Sealed], in bytes.
const SealKeySize = 32

// SealOptions change what a sealed bucket can read. The zero value, like nil,
// means the defaults given with each field.
type SealOptions struct {
	// OldKeys are further keys, of SealKeySize bytes, that objects may have been
	// sealed with. Nothing is sealed with them. Zero: none.
	OldKeys [][]byte
}

// Sealed gives a bucket that encrypts what goes into b and decrypts what comes out,
// so that whoever has b can read nothing of it, and change nothing unnoticed. Keys
// of objects, their sizes and times stay in the clear; a whole object can still be
// deleted, or replaced by an older one of the same key. The form is in
// docs/storage-format.md, under "Sealed objects".
//
// key has SealKeySize random bytes; a key of another length gives an error that
// matches fs.ErrInvalid. What was not sealed, where b holds such, gives errors that
// match ErrSealBroken, in lists too. opts may be nil. The bucket is safe for
// concurrent use and keeps no reference to key. Sizes are those of the contents. A
// Get that begins in an object's first 64 KiB takes one request of b; any other
// takes two, or one when the object was read before. It is no [Presigner]: what
// goes past it is not sealed.
func Sealed(b Bucket, key []byte, opts *SealOptions) (Bucket, error) {
	if opts == nil {
		opts = &SealOptions{}
	}
	s := &sealed{b: b, heads: map[string][sealHeadSize]byte{}}
	for _, k := range append([][]byte{key}, opts.OldKeys...) {
		if len(k) != SealKeySize {
			return nil, fmt.Errorf("storage: a key of %d bytes, not %d, to seal with: %w", len(k), SealKeySize, fs.ErrInvalid)
		}
		master := sealMaster{key: bytes.Clone(k)}
		id, err := hkdf.Key(sha256.New, k, nil, sealIDInfo, len(master.id))
		if err != nil {
			return nil, fmt.Errorf("storage: %w", err)
		}
		copy(master.id[:], id)
		s.masters = append(s.masters, master)
	}
	return s, nil
}

// The form of a sealed object; see docs/storage-format.md.
const (
	sealMagic    = "vivseal1"
	sealIDInfo   = "vivarium seal key id"
	sealKeyInfo  = "vivarium seal object key"
	sealIDSize   = 8
	sealSaltSize = 32
	sealHeadSize = len(sealMagic) + sealIDSize + sealSaltSize
	sealSegment  = 64 << 10 // of contents
	sealTag      = 16
	sealStored   = sealSegment + sealTag
	maxSegments  = 1 << 32 // the counter's range
)

type sealMaster struct {
	key []byte
	id  [sealIDSize]byte
}

// sealed is the bucket of Sealed.
type sealed struct {
	b       Bucket
	masters []sealMaster // the first seals

	mu    sync.Mutex
	heads map[string][sealHeadSize]byte // of objects read of late; they may be out of date
}

// maxHeads bounds what is remembered of heads.
const maxHeads = 8192

func (s *sealed) remembered(key string) ([sealHeadSize]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	head, ok := s.heads[key]
	return head, ok
}

func (s *sealed) remember(key string, head [sealHeadSize]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.heads) >= maxHeads {
		clear(s.heads)
	}
	s.heads[key] = head
}

func (s *sealed) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.heads, key)
}

// opener gives the cipher of an object, by its head.
func (s *sealed) opener(key string, head [sealHeadSize]byte) (*segments, error) {
	if string(head[:len(sealMagic)]) != sealMagic {
		return nil, sealError(key, ErrSealBroken, "it is not a sealed object")
	}
	id := head[len(sealMagic):][:sealIDSize]
	for _, m := range s.masters {
		if bytes.Equal(m.id[:], id) {
			return newSegments(m, key, head)
		}
	}
	return nil, sealError(key, ErrSealKey, "give the right key, or the old one in SealOptions.OldKeys")
}

func sealError(key string, kind error, why string) error {
	return fmt.Errorf("storage: %s: %w: %s", clip(key), kind, why)
}

// segments seals and opens the segments of one object.
type segments struct {
	key  string // of the object
	aead cipher.AEAD
	ad   []byte
}

func newSegments(m sealMaster, key string, head [sealHeadSize]byte) (*segments, error) {
	salt := head[sealHeadSize-sealSaltSize:]
	secret, err := hkdf.Key(sha256.New, m.key, salt, sealKeyInfo, SealKeySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &segments{key: key, aead: aead, ad: append([]byte(sealMagic), key...)}, nil
}

// nonce is seven zero bytes, the segment's number, and whether it is the last.
// The key is the object's alone, so no nonce is used twice with it.
func nonce(n int64, last bool) []byte {
	out := make([]byte, 12)
	binary.BigEndian.PutUint32(out[7:], uint32(n))
	if last {
		out[11] = 1
	}
	return out
}

func (s *segments) seal(dst, plain []byte, n int64, last bool) []byte {
	return s.aead.Seal(dst, nonce(n, last), plain, s.ad)
}

// open appends the contents of segment n to dst.
func (s *segments) open(dst, stored []byte, n int64, last bool) ([]byte, error) {
	out, err := s.aead.Open(dst, nonce(n, last), stored, s.ad)
	if err != nil {
		return nil, sealError(s.key, ErrSealBroken, fmt.Sprintf("segment %d is not what was put", n))
	}
	return out, nil
}

// sealedSize is how long an object of size bytes is when sealed.
func sealedSize(size int64) int64 {
	n := max(1, (size+sealSegment-1)/sealSegment)
	return int64(sealHeadSize) + size + n*sealTag
}

// plainSize is the inverse; false means that no object is so long.
func plainSize(stored int64) (int64, bool) {
	body := stored - int64(sealHeadSize)
	if body < sealTag {
		return 0, false
	}
	n := (body + sealStored - 1) / sealStored
	size := body - n*sealTag
	return size, size >= 0 && sealedSize(size) == stored
}

// Put implements Bucket.
func (s *sealed) Put(ctx context.Context, key string, r io.Reader, opts *PutOptions) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if err := opts.Check(); err != nil {
		return err
	}
	with := PutOptions{}
	if opts != nil {
		with.IfAbsent, with.Size = opts.IfAbsent, opts.Size
	}
	whole, isBytes := r.(*bytes.Reader)
	if isBytes && (with.Size == 0 || with.Size == int64(whole.Len())) {
		with.Size = sealedSize(int64(whole.Len()))
	} else if with.Size > 0 {
		with.Size = sealedSize(with.Size)
	}
	sealing, err := s.sealing(key, opts.Body(r))
	if err != nil {
		return err
	}
	return s.b.Put(ctx, key, sealing, &with)
}

// sealing gives r sealed, under a key of its own.
func (s *sealed) sealing(key string, r io.Reader) (io.Reader, error) {
	var head [sealHeadSize]byte
	copy(head[:], sealMagic)
	copy(head[len(sealMagic):], s.masters[0].id[:])
	if _, err := rand.Read(head[sealHeadSize-sealSaltSize:]); err != nil {
		return nil, err
	}
	segments, err := newSegments(s.masters[0], key, head)
	if err != nil {
		return nil, err
	}
	return &sealing{r: r, segments: segments, out: head[:], plain: make([]byte, 0, sealSegment+1)}, nil
}

// Stat implements Bucket.
func (s *sealed) Stat(ctx context.Context, key string) (Object, error) {
	o, err := s.b.Stat(ctx, key)
	if err != nil {
		return Object{}, err
	}
	return unsealedObject(o)
}

func unsealedObject(o Object) (Object, error) {
	size, ok := plainSize(o.Size)
	if !ok {
		return Object{}, sealError(o.Key, ErrSealBroken, fmt.Sprintf("no sealed object has %d bytes", o.Size))
	}
	o.Size = size
	return o, nil
}

// List implements Bucket.
func (s *sealed) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for o, err := range s.b.List(ctx, prefix) {
			if err == nil {
				o, err = unsealedObject(o)
			}
			if !yield(o, err) || err != nil {
				return
			}
		}
	}
}

// Delete implements Bucket.
func (s *sealed) Delete(ctx context.Context, key string) error {
	s.forget(key)
	return s.b.Delete(ctx, key)
}
