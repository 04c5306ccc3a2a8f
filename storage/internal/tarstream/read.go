package tarstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Reader reads the members of one archive, or of several behind each other.
type Reader struct {
	in   *bufio.Reader
	mark []byte
	left int64 // of the member's bytes
	pad  int64 // after them
}

// NewReader reads from in, whose buffer must hold at least 512 bytes, up to the
// text that stands behind the last archive and begins with mark.
func NewReader(in *bufio.Reader, mark string) *Reader {
	return &Reader{in: in, mark: []byte(mark)}
}

// Next goes to the next member. io.EOF is the mark, which stays unread; a
// stream that ends before it is io.ErrUnexpectedEOF.
func (r *Reader) Next() (*Member, error) {
	if err := r.skip(r.left + r.pad); err != nil {
		return nil, err
	}
	r.left, r.pad = 0, 0
	over := overrides{size: -1}
	for {
		block, err := r.in.Peek(blockSize)
		if bytes.HasPrefix(block, r.mark) {
			return nil, io.EOF
		}
		if err != nil {
			return nil, cutShort(err)
		}
		if bytes.Equal(block, zeroBlock) {
			_, _ = r.in.Discard(blockSize) // it is in the buffer
			continue
		}
		m, err := parseHeader(block)
		if err != nil {
			return nil, err // the block stays unread, in case it is words
		}
		_, _ = r.in.Discard(blockSize)
		switch m.Kind {
		case paxNext, gnuName, gnuLink:
			if err := r.extend(&over, &m); err != nil {
				return nil, err
			}
			continue
		case paxAll:
			if err := r.skip(m.Size + padding(m.Size)); err != nil {
				return nil, err
			}
			continue
		}
		if err := over.applyTo(&m); err != nil {
			return nil, err
		}
		r.left, r.pad = m.Size, padding(m.Size)
		return &m, nil
	}
}

// extend reads the body of an extended header.
func (r *Reader) extend(over *overrides, m *Member) error {
	limit := int64(maxPax)
	if m.Kind != paxNext {
		limit = maxPath
	}
	if m.Size > limit {
		return fmt.Errorf("%w: extended header of %d bytes", ErrFormat, m.Size)
	}
	data := make([]byte, m.Size+padding(m.Size))
	if _, err := io.ReadFull(r.in, data); err != nil {
		return cutShort(err)
	}
	data = data[:m.Size]
	switch m.Kind {
	case gnuName:
		over.path = cString(data)
	case gnuLink:
		over.linkpath = cString(data)
	default:
		return over.parsePax(data)
	}
	return nil
}

// Read reads the member's bytes: of a sparse one those behind its map, which
// Runs reads first.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.in.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if err != nil {
		err = cutShort(err)
	}
	return n, err
}

func (r *Reader) skip(n int64) error {
	for n > 0 {
		k, err := r.in.Discard(int(min(n, 1<<30)))
		n -= int64(k)
		if err != nil {
			return cutShort(err)
		}
	}
	return nil
}

// cutShort tells a stream that ended too early from one that ended.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func padding(size int64) int64 { return -size & (blockSize - 1) }

// Run is a stretch of data in a sparse file.
type Run struct{ Off, Len int64 }

// maxRuns bounds the memory that a sparse map can take here.
const maxRuns = 1 << 20

// Runs reads the map that starts a sparse member's bytes: decimal lines, first
// the number of runs, then an offset and a length for each, padded to a block. The
// runs are in order, do not overlap, and are the bytes that follow.
func (r *Reader) Runs(m *Member) ([]Run, error) {
	start := r.left
	count, err := r.mapLine()
	if err != nil {
		return nil, err
	}
	if count > maxRuns {
		return nil, fmt.Errorf("%w: sparse map of %d runs", ErrFormat, count)
	}
	var runs []Run
	var end, sum int64
	for range count {
		off, err := r.mapLine()
		if err != nil {
			return nil, err
		}
		n, err := r.mapLine()
		if err != nil {
			return nil, err
		}
		if off < end || off > m.Real || n > m.Real-off {
			return nil, fmt.Errorf("%w: bad sparse map", ErrFormat)
		}
		end, sum = off+n, sum+n
		if n > 0 {
			runs = append(runs, Run{off, n})
		}
	}
	pad := padding(start - r.left)
	if pad > r.left || sum != r.left-pad {
		return nil, fmt.Errorf("%w: bad sparse map", ErrFormat)
	}
	r.left -= pad
	return runs, r.skip(pad)
}

func (r *Reader) mapLine() (int64, error) {
	var digits [20]byte
	for n := range digits {
		if r.left == 0 {
			break
		}
		c, err := r.in.ReadByte()
		if err != nil {
			return 0, cutShort(err)
		}
		r.left--
		if c == '\n' {
			return parseLength(string(digits[:n]))
		}
		digits[n] = c
	}
	return 0, fmt.Errorf("%w: bad sparse map", ErrFormat)
}
