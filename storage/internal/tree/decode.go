package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

var errShort = errors.New("it ends too early")

// reader takes a section apart. Its methods give zero values after an error.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) uvarint() uint64 {
	n, k := binary.Uvarint(r.b)
	if k <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[k:]
	return n
}

func (r *reader) varint() int64 {
	n, k := binary.Varint(r.b)
	if k <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[k:]
	return n
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail(errShort)
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

// count reads how many items of at least size bytes follow.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.fail(errShort)
		return 0
	}
	return capped(n)
}

func (r *reader) u32() uint32 {
	n := r.uvarint()
	if n > math.MaxUint32 {
		r.fail(errors.New("a number is too large"))
		return 0
	}
	return uint32(n)
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		return errors.New("a section is longer than what it says")
	}
	return r.err
}

// Decode reads the stored form. It checks that every reference is to something
// there, and each entry by itself; a whole tree is checked further by Check. It
// takes memory in proportion to data, whatever that says.
func Decode(data []byte) (*Tree, error) {
	t, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("bad listing: %w", err)
	}
	return t, nil
}

func decode(data []byte) (*Tree, error) {
	in := &reader{b: data}
	var s [sections]*reader
	for i := range s {
		s[i] = &reader{b: in.bytes(in.uvarint())}
	}
	if err := in.end(); err != nil {
		return nil, err
	}
	packs := decodePacks(s[0])
	frames := decodeFrames(s[1], packs)
	blobs := decodeBlobs(s[2], s[3], frames)
	paths := decodePaths(s[4])
	t := &Tree{Entries: make([]Entry, len(paths))}
	next := 0 // the blob that no chunk had before
	prev := Entry{}
	for i := range t.Entries {
		e := &t.Entries[i]
		e.Path = paths[i]
		if kind := s[5].bytes(1); kind != nil {
			e.Kind = Kind(kind[0])
		}
		e.Mode = uint16(min(s[6].uvarint(), math.MaxUint16))
		e.Mtime.Sec = prev.Mtime.Sec + s[7].varint()
		e.Mtime.Nsec = int32(min(s[7].uvarint(), math.MaxInt32))
		e.UID = uint32(int64(prev.UID) + s[8].varint())
		e.GID = uint32(int64(prev.GID) + s[8].varint())
		switch e.Kind {
		case Symlink, Hardlink:
			e.Link = string(s[9].bytes(s[9].uvarint()))
		case File:
			decodeContents(s[10], e, blobs, &next)
		}
		prev = *e
	}
	t.Removed = decodePaths(s[11])
	for _, part := range s {
		if err := part.end(); err != nil {
			return nil, err
		}
	}
	return t, t.checkParts(next == len(blobs))
}

// checkParts checks each entry by itself, and the orders.
func (t *Tree) checkParts(allUsed bool) error {
	if !allUsed {
		return errors.New("contents that no file has")
	}
	for i := range t.Entries {
		if err := t.Entries[i].check(); err != nil {
			return err
		}
		if i > 0 && ComparePaths(t.Entries[i-1].Path, t.Entries[i].Path) >= 0 {
			return fmt.Errorf("%q is out of order", clip(t.Entries[i].Path))
		}
	}
	for i, path := range t.Removed {
		if why := CheckPath(path); why != "" || path == "" {
			return fmt.Errorf("removed path %q %s", clip(path), why)
		}
		if i > 0 && ComparePaths(t.Removed[i-1], path) >= 0 {
			return fmt.Errorf("removed %q is out of order", clip(path))
		}
	}
	return nil
}

func decodePacks(r *reader) []Pack {
	packs := make([]Pack, r.count(1))
	for i := range packs {
		packs[i].Name = string(r.bytes(r.uvarint()))
	}
	return packs
}

func decodeFrames(r *reader, packs []Pack) []Frame {
	frames := make([]Frame, r.count(4))
	var last uint64
	var end int64
	for i := range frames {
		n, gap := r.uvarint(), r.varint()
		stored, size := r.u32(), r.uvarint()
		if i == 0 || n != last {
			end = 0
		}
		off := end + gap
		if r.err == nil && (n >= uint64(len(packs)) || off < 0 || off > math.MaxUint32 || size>>1 > math.MaxUint32) {
			r.fail(errors.New("bad frame"))
		}
		if r.err != nil {
			return nil
		}
		frames[i] = Frame{Pack: &packs[n], Off: uint32(off), Stored: stored, Size: uint32(size >> 1), Raw: size&1 == 1}
		if frames[i].Raw && frames[i].Stored != frames[i].Size {
			r.fail(errors.New("bad frame"))
		}
		last, end = n, off+int64(stored)
	}
	return frames
}

func decodeBlobs(r, sums *reader, frames []Frame) []Blob {
	blobs := make([]Blob, r.count(2))
	for i := range blobs {
		b := &blobs[i]
		b.Len = r.u32()
		switch n := r.uvarint(); {
		case n > uint64(len(frames)) || n == 0 && i == 0:
			r.fail(errors.New("bad blob"))
		case n > 0:
			b.Frame, b.Off = &frames[n-1], r.u32()
		default:
			b.Frame, b.Off = blobs[i-1].Frame, blobs[i-1].Off+blobs[i-1].Len
		}
		if r.err != nil {
			return nil
		}
		copy(b.Sum[:], sums.bytes(uint64(len(b.Sum))))
	}
	return blobs
}

// mostPaths bounds what the paths of a section of n bytes take together, as a few
// bytes can stand for a long path. Of a small section they may take more for each
// byte.
func mostPaths(n int) int { return max(min(1<<20+1024*n, 128<<20), 64*n) }

func decodePaths(r *reader) []string {
	most := mostPaths(len(r.b))
	n := r.count(2)
	ends := make([]int, 0, n)
	var all strings.Builder
	if sum := pathBytes(*r, n, most); sum <= most {
		all.Grow(sum)
	} else {
		r.fail(errors.New("paths that are too long"))
	}
	var path []byte
	for range n {
		shared := r.uvarint()
		rest := r.bytes(r.uvarint())
		if shared > uint64(len(path)) || len(rest) > MaxPath || all.Len() > most {
			r.fail(errors.New("bad path"))
		}
		if r.err != nil {
			return nil
		}
		path = append(path[:shared], rest...)
		all.Write(path)
		ends = append(ends, all.Len())
	}
	text := all.String()
	paths := make([]string, len(ends))
	start := 0
	for i, end := range ends {
		paths[i] = text[start:end]
		start = end
	}
	return paths
}

// pathBytes gives how long n paths are together, or more than most where that is
// passed.
func pathBytes(r reader, n, most int) (sum int) {
	for range n {
		shared, more := r.uvarint(), r.uvarint()
		r.bytes(more)
		if r.err != nil || shared > MaxPath {
			return 0 // the caller finds out
		}
		if sum += int(shared) + int(more); sum > most {
			break
		}
	}
	return sum
}

func decodeContents(r *reader, e *Entry, blobs []Blob, next *int) {
	size := r.uvarint()
	n := r.count(1)
	if size > math.MaxInt64 || n > maxChunks {
		r.fail(errors.New("bad size"))
		return
	}
	e.Size = int64(size)
	if n == 0 {
		return
	}
	e.Chunks = slices.Grow(e.Chunks, n)
	for range n {
		switch ref := r.uvarint(); {
		case ref == 1:
			e.Chunks = append(e.Chunks, Chunk{Size: int64(min(r.uvarint(), math.MaxInt64))})
			continue
		case ref == 0 && *next < len(blobs):
			b := &blobs[*next]
			*next++
			e.Chunks = append(e.Chunks, Chunk{Blob: b, Size: int64(b.Len)})
		case ref > 1 && ref-2 < uint64(*next):
			b := &blobs[ref-2]
			e.Chunks = append(e.Chunks, Chunk{Blob: b, Size: int64(b.Len)})
		default:
			r.fail(errors.New("contents that are not there"))
			return
		}
	}
}
