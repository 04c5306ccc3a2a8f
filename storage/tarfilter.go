package storage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"slices"
	"strings"
)

// errHostile marks an archive that an honest tar of one directory cannot have
// written.
var errHostile = errors.New("unsafe archive")

// errEnd tells that an archive's end mark was read. It is not io.EOF, which a runner's
// own error may wrap.
var errEnd = errors.New("end of archive")

// stagingPrefix starts the names of the directories, inside the one being
// restored, in which a restore is prepared.
const stagingPrefix = ".vivarium-restore-"

// tarFilter copies a tar stream and makes it safe to unpack: every header is
// checked and written anew in one form. Names stay below the root and never pass
// through a symbolic link of the same archive; setuid and setgid bits, owners,
// extended attributes and devices are left out, and so is what a broken-off
// restore left behind.
type tarFilter struct {
	in      *bufio.Reader
	out     io.Writer
	dialect dialect
	noRoot  bool // keep the entry of the directory itself out of the copy

	root    *member // that entry, once seen
	files   int64
	size    int64
	written int64

	seed  maphash.Seed
	links map[uint64]struct{} // hashes of the names of symbolic links
	head  []byte              // reused for headers
	dirs  []*member           // for busybox, see writeDirs
}

func newTarFilter(in *bufio.Reader, out io.Writer) *tarFilter {
	return &tarFilter{in: in, out: out, seed: maphash.MakeSeed(), links: map[uint64]struct{}{}}
}

// copy copies up to and including the end-of-archive mark. A stream that ends
// before it gives an error that matches io.ErrUnexpectedEOF.
func (f *tarFilter) copy() error {
	for {
		m, err := f.next()
		if errors.Is(err, errEnd) {
			return f.end()
		}
		if err != nil {
			return err
		}
		if err := f.forward(m); err != nil {
			return err
		}
	}
}

// next reads headers up to the next member that counts; errEnd is the
// end-of-archive mark.
func (f *tarFilter) next() (*member, error) {
	over := overrides{size: -1}
	for {
		block, err := f.in.Peek(blockSize)
		if err != nil {
			return nil, cutShort(err)
		}
		if bytes.Equal(block, zeroBlock) {
			return nil, f.endMark(over.set)
		}
		m, err := parseHeader(block)
		if err != nil {
			return nil, err // the block stays unread, in case it is words
		}
		_, _ = f.in.Discard(blockSize) // it is in the buffer
		switch m.kind {
		case kindPax, kindGNUName, kindGNULink:
			if err := f.extend(&over, &m); err != nil {
				return nil, err
			}
			continue
		}
		if err := over.applyTo(&m); err != nil {
			return nil, err
		}
		over = overrides{size: -1}
		keep, err := f.admit(&m)
		if err != nil {
			return nil, err
		}
		if keep {
			return &m, nil
		}
		if err := f.discard(m.size); err != nil {
			return nil, err
		}
	}
}

// endMark reads the two zero blocks.
func (f *tarFilter) endMark(dangling bool) error {
	var blocks [2 * blockSize]byte
	if _, err := io.ReadFull(f.in, blocks[:]); err != nil {
		return cutShort(err)
	}
	if dangling || !bytes.Equal(blocks[blockSize:], zeroBlock) {
		return fmt.Errorf("%w: bad end mark", errNotTar)
	}
	return errEnd
}

// extend reads the body of an extended header.
func (f *tarFilter) extend(over *overrides, m *member) error {
	limit := int64(maxPax)
	if m.kind != kindPax {
		limit = maxPath
	}
	if m.size > limit {
		return fmt.Errorf("%w: extended header of %d bytes", errNotTar, m.size)
	}
	data := make([]byte, m.size+padding(m.size))
	if _, err := io.ReadFull(f.in, data); err != nil {
		return cutShort(err)
	}
	data = data[:m.size]
	over.set = true
	switch m.kind {
	case kindGNUName:
		over.path = cString(data)
	case kindGNULink:
		over.linkpath = cString(data)
	default:
		return over.parsePax(data)
	}
	return nil
}

// admit checks m and brings it into the one form; false means to leave it out.
func (f *tarFilter) admit(m *member) (keep bool, err error) {
	m.mode &= 0o1777
	if m.name, err = cleanName(m.name); err != nil {
		return false, err
	}
	switch m.kind {
	case kindChar, kindBlock:
		return false, f.mustBeEmpty(m)
	case kindContig:
		m.kind = kindRegular
	case kindRegular:
	case kindHard, kindSymlink, kindDir, kindFIFO:
		if err := f.mustBeEmpty(m); err != nil {
			return false, err
		}
	default:
		return false, fmt.Errorf("%w: member of kind %q", errNotTar, m.kind)
	}
	if m.name == "" {
		if m.kind != kindDir {
			return false, fmt.Errorf("%w: the root is not a directory", errHostile)
		}
		f.root = m
		return !f.noRoot, nil
	}
	if first, _, _ := strings.Cut(m.name, "/"); strings.HasPrefix(first, stagingPrefix) {
		return false, nil
	}
	return true, f.checkLinks(m)
}

func (f *tarFilter) mustBeEmpty(m *member) error {
	if m.size != 0 {
		return fmt.Errorf("%w: member of kind %q with %d bytes", errNotTar, m.kind, m.size)
	}
	return nil
}

// checkLinks refuses names that lead through a symbolic link, and remembers the
// names that are one.
func (f *tarFilter) checkLinks(m *member) (err error) {
	if f.crosses(m.name) || f.isLink(m.name) {
		return fmt.Errorf("%w: %q lies behind a symbolic link", errHostile, clip(m.name))
	}
	switch m.kind {
	case kindSymlink:
		if m.link == "" || len(m.link) > maxPath || strings.IndexByte(m.link, 0) >= 0 {
			return fmt.Errorf("%w: symbolic link %q without a usable target", errHostile, clip(m.name))
		}
		f.links[f.hash(m.name)] = struct{}{}
	case kindHard:
		if m.link, err = cleanName(m.link); err != nil {
			return err
		}
		if m.link == "" || f.crosses(m.link) {
			return fmt.Errorf("%w: hard link %q to %q", errHostile, clip(m.name), clip(m.link))
		}
		if f.isLink(m.link) {
			f.links[f.hash(m.name)] = struct{}{}
		}
	}
	return nil
}

// hash stands for a name, so that a million links cost little memory. Two names
// that meet in one of 2^64 random hashes would make an honest archive refused,
// never a hostile one accepted.
func (f *tarFilter) hash(name string) uint64 { return maphash.String(f.seed, name) }

func (f *tarFilter) isLink(name string) bool {
	_, is := f.links[f.hash(name)]
	return is
}

func (f *tarFilter) crosses(name string) bool {
	if len(f.links) == 0 {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' && f.isLink(name[:i]) {
			return true
		}
	}
	return false
}

// cleanName gives a member's name without "./", doubled and trailing slashes.
func cleanName(name string) (string, error) {
	if strings.HasPrefix(name, "/") || strings.IndexByte(name, 0) >= 0 || len(name) > maxPath {
		return "", fmt.Errorf("%w: name %q", errHostile, clip(name))
	}
	parts := strings.Split(name, "/")
	kept := parts[:0]
	for _, part := range parts {
		switch part {
		case "", ".":
		case "..":
			return "", fmt.Errorf("%w: name %q", errHostile, clip(name))
		default:
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "/"), nil
}

// forward writes m and its contents.
func (f *tarFilter) forward(m *member) error {
	length := m.size
	if m.sparse {
		length = m.real
	}
	if m.kind == kindRegular || m.kind == kindHard {
		f.files++
		f.size = min(f.size, math.MaxInt64-length) + length
	}
	if m.sparse && f.dialect == busybox {
		return f.expand(m)
	}
	if m.kind == kindDir && f.dialect == busybox {
		return f.openDir(m)
	}
	if err := f.write(m.appendHeader(f.head[:0], f.dialect)); err != nil {
		return err
	}
	return f.copyN(m.size + padding(m.size))
}

// maxDirs bounds the memory that directories to repeat can take here.
const maxDirs = 1 << 20

// openDir writes a directory in which the owner can make files. busybox tar sets
// mode and time of a directory at once, and would then shut itself out.
func (f *tarFilter) openDir(m *member) error {
	if len(f.dirs) == maxDirs {
		return fmt.Errorf("more than %d directories: %w", maxDirs, errors.ErrUnsupported)
	}
	f.dirs = append(f.dirs, m)
	open := *m
	open.mode |= 0o700
	return f.write(open.appendHeader(f.head[:0], f.dialect))
}

// writeDirs writes an archive of the directories alone, from the last to the
// first. It makes busybox tar give each its time, and as root its mode, when
// nothing in it will change: some links are made only after everything else.
func (f *tarFilter) writeDirs(w io.Writer) error {
	f.out = w
	for _, m := range slices.Backward(f.dirs) {
		if f.isLink(m.name) || f.crosses(m.name) {
			return fmt.Errorf("%w: directory %q became a symbolic link", errHostile, clip(m.name))
		}
		if err := f.write(m.appendHeader(f.head[:0], f.dialect)); err != nil {
			return err
		}
	}
	return f.end()
}

func (f *tarFilter) end() error { return f.write(append(f.head[:0], make([]byte, 2*blockSize)...)) }

func (f *tarFilter) write(b []byte) error {
	f.head = b
	n, err := f.out.Write(b)
	f.written += int64(n)
	return err
}

// copyN passes n bytes on straight from the reader's buffer. (io.CopyN would
// make a buffer for each file, and let a compressor end a block at each.)
func (f *tarFilter) copyN(n int64) error {
	for n > 0 {
		if _, err := f.in.Peek(1); err != nil {
			return cutShort(err)
		}
		chunk, _ := f.in.Peek(int(min(n, int64(f.in.Buffered()))))
		done, err := f.out.Write(chunk)
		f.written += int64(done)
		n -= int64(done)
		if err != nil {
			return err
		}
		_, _ = f.in.Discard(done) // they are in the buffer
	}
	return nil
}

func (f *tarFilter) discard(n int64) error {
	_, err := io.CopyN(io.Discard, f.in, n+padding(n))
	return cutShort(err)
}

// cutShort tells a stream that ended too early from one that ended.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// closed lists the directories that were written with more rights for their owner
// than they have, children before parents, as closeScript reads them.
func (f *tarFilter) closed() []byte {
	var list []byte
	for _, m := range slices.Backward(f.dirs) {
		if m.mode&0o700 != 0o700 {
			list = fmt.Appendf(list, "%o\x00%s\x00", m.mode, m.name)
		}
	}
	return list
}
