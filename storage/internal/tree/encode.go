package tree

import "encoding/binary"

// The stored form is a row of sections, each a uvarint of its length in bytes and
// the bytes. Numbers in them are uvarints, signed ones zigzag as in
// encoding/binary.
//
//	packs    a count; for each the length of its name, and the name
//	frames   a count; for each: pack, offset less the end of the frame before in the same pack (signed), stored bytes, bytes of contents*2 + raw
//	blobs    a count; for each: length; then 0 where it follows the blob before it in its frame, else frame+1 and offset
//	sums     32 bytes for each blob
//	paths    a count of entries; for each the number of bytes shared with the path before, the number of those that follow, and these
//	kinds    a byte for each entry
//	modes    a number for each entry
//	times    seconds less those of the entry before (signed), nanoseconds
//	owners   uid and gid, each less that of the entry before (signed)
//	links    for each link its length, and the target
//	contents for each file: size, number of chunks; for each chunk: 0 is the next blob that no chunk had before, 1 a hole and its size, else blob+2
//	removed  like paths
type section = []byte

const sections = 12

// encoder gives numbers to what entries refer to, in the order of first use.
type encoder struct {
	packs  map[*Pack]uint64
	frames map[*Frame]uint64
	blobs  map[*Blob]uint64

	out      [sections]section
	lastPack *Pack // of the frame before
	lastEnd  int64
	last     *Blob
}

// Encode gives the stored form of t, with those packs, frames and blobs that its
// entries refer to.
func (t *Tree) Encode() []byte {
	e := &encoder{packs: map[*Pack]uint64{}, frames: map[*Frame]uint64{}, blobs: map[*Blob]uint64{}}
	var contents, paths, kinds, modes, times, owners, links section
	prev := Entry{}
	for i := range t.Entries {
		entry := &t.Entries[i]
		paths = appendPath(paths, prev.Path, entry.Path)
		kinds = append(kinds, byte(entry.Kind))
		modes = binary.AppendUvarint(modes, uint64(entry.Mode))
		times = binary.AppendVarint(times, entry.Mtime.Sec-prev.Mtime.Sec)
		times = binary.AppendUvarint(times, uint64(entry.Mtime.Nsec))
		owners = binary.AppendVarint(owners, int64(entry.UID)-int64(prev.UID))
		owners = binary.AppendVarint(owners, int64(entry.GID)-int64(prev.GID))
		switch entry.Kind {
		case Symlink, Hardlink:
			links = binary.AppendUvarint(links, uint64(len(entry.Link)))
			links = append(links, entry.Link...)
		case File:
			contents = e.contents(contents, entry)
		}
		prev = *entry
	}
	var removed section
	before := ""
	for _, path := range t.Removed {
		removed = appendPath(removed, before, path)
		before = path
	}
	packs, frames, blobs, sums := e.out[0], e.out[1], e.out[2], e.out[3]
	var all []byte
	put := func(s section, count int) {
		var head []byte
		if count >= 0 {
			head = binary.AppendUvarint(nil, uint64(count))
		}
		all = binary.AppendUvarint(all, uint64(len(head)+len(s)))
		all = append(append(all, head...), s...)
	}
	put(packs, len(e.packs))
	put(frames, len(e.frames))
	put(blobs, len(e.blobs))
	put(sums, -1)
	put(paths, len(t.Entries))
	for _, s := range []section{kinds, modes, times, owners, links, contents} {
		put(s, -1)
	}
	put(removed, len(t.Removed))
	return all
}

func appendPath(b []byte, prev, path string) []byte {
	shared := 0
	for shared < min(len(prev), len(path)) && prev[shared] == path[shared] {
		shared++
	}
	b = binary.AppendUvarint(b, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(path)-shared))
	return append(b, path[shared:]...)
}

func (e *encoder) contents(b []byte, entry *Entry) []byte {
	b = binary.AppendUvarint(b, uint64(entry.Size))
	b = binary.AppendUvarint(b, uint64(len(entry.Chunks)))
	for _, c := range entry.Chunks {
		if c.Blob == nil {
			b = binary.AppendUvarint(b, 1)
			b = binary.AppendUvarint(b, uint64(c.Size))
			continue
		}
		if n, ok := e.blobs[c.Blob]; ok {
			b = binary.AppendUvarint(b, n+2)
			continue
		}
		b = append(b, 0)
		e.blob(c.Blob)
	}
	return b
}

func (e *encoder) blob(b *Blob) {
	e.blobs[b] = uint64(len(e.blobs))
	out := binary.AppendUvarint(e.out[2], uint64(b.Len))
	if last := e.last; last != nil && last.Frame == b.Frame && last.Off+last.Len == b.Off {
		out = append(out, 0)
	} else {
		out = binary.AppendUvarint(out, e.frame(b.Frame)+1)
		out = binary.AppendUvarint(out, uint64(b.Off))
	}
	e.out[2], e.last = out, b
	e.out[3] = append(e.out[3], b.Sum[:]...)
}

func (e *encoder) frame(f *Frame) uint64 {
	if n, ok := e.frames[f]; ok {
		return n
	}
	n := uint64(len(e.frames))
	e.frames[f] = n
	pack := e.pack(f.Pack)
	if f.Pack != e.lastPack {
		e.lastEnd = 0
	}
	out := binary.AppendUvarint(e.out[1], pack)
	out = binary.AppendVarint(out, int64(f.Off)-e.lastEnd)
	out = binary.AppendUvarint(out, uint64(f.Stored))
	raw := uint64(0)
	if f.Raw {
		raw = 1
	}
	e.out[1] = binary.AppendUvarint(out, uint64(f.Size)<<1|raw)
	e.lastPack, e.lastEnd = f.Pack, int64(f.Off)+int64(f.Stored)
	return n
}

func (e *encoder) pack(p *Pack) uint64 {
	if n, ok := e.packs[p]; ok {
		return n
	}
	n := uint64(len(e.packs))
	e.packs[p] = n
	e.out[0] = binary.AppendUvarint(e.out[0], uint64(len(p.Name)))
	e.out[0] = append(e.out[0], p.Name...)
	return n
}
