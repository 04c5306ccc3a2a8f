package claude

import (
	"bytes"
	"errors"
	"io"
)

const (
	// chunkSize is how much is read at once: what a pipe holds by default.
	chunkSize = 64 << 10
	// minRead is the least room worth a read.
	minRead = 4 << 10
)

// lineReader cuts a stream into lines. The lines are parts of chunks that are
// not used again, so they cost no copy and are the receiver's to keep.
type lineReader struct {
	r        io.Reader
	limit    int64  // of a line's bytes with its newline; 0 means none
	buf      []byte // what was read and is not yet part of a line
	scanned  int    // so much of buf has no newline
	skipping bool   // the line that goes on is too long
	lines    [][]byte

	parts   [][]byte // the begin of a line that is long, in parts of longPart bytes
	inParts int64    // their bytes
	spare   [][]byte // parts to use again
}

// next blocks until something can be read and returns the whole lines that
// came with it, each with its newline; there may be none. In the place of a line
// beyond the limit there is nil, as soon as it is too long; it is not kept. With
// the error, io.EOF at the end, next returns what is left, which has no newline.
// The slice of lines is good until the next call, the lines for ever.
func (l *lineReader) next() ([][]byte, error) {
	l.lines = l.lines[:0]
	l.makeRoom()
	n, err := l.r.Read(l.buf[len(l.buf):cap(l.buf)])
	l.buf = l.buf[:len(l.buf)+n]
	for {
		i := bytes.IndexByte(l.buf[l.scanned:], '\n')
		if i < 0 {
			l.scanned = len(l.buf)
			break
		}
		l.take(l.scanned + i + 1)
	}
	if l.skipping || l.tooLong(len(l.buf)) {
		l.skip()
	}
	if err != nil && l.size(len(l.buf)) > 0 {
		l.lines = append(l.lines, l.join(l.buf))
		l.buf, l.scanned = nil, 0
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return l.lines, err
}

// take takes the line whose last size bytes are in the buffer off it.
func (l *lineReader) take(size int) {
	switch {
	case l.skipping:
		l.skipping = false
	case l.tooLong(size):
		l.dropParts()
		l.lines = append(l.lines, nil)
	default:
		l.lines = append(l.lines, l.join(l.buf[:size:size]))
	}
	l.buf, l.scanned = l.buf[size:], 0
}

// skip lets go of what came of a line that is too long.
func (l *lineReader) skip() {
	if !l.skipping {
		l.skipping = true
		l.lines = append(l.lines, nil)
	}
	l.dropParts()
	// What is in the chunk before may be lines that were given away.
	l.buf, l.scanned = l.buf[len(l.buf):], 0
}

const (
	// longPart is the size of the parts in which a line is read that does not
	// fit in a chunk: a buffer that grew with it would be copied again and again.
	longPart = 1 << 20
	// maxSpare is how many such parts are kept to be used again.
	maxSpare = 16
)

// makeRoom makes room for a read.
func (l *lineReader) makeRoom() {
	if cap(l.buf)-len(l.buf) >= minRead {
		return
	}
	if len(l.buf) < chunkSize-minRead {
		grown := make([]byte, len(l.buf), chunkSize)
		copy(grown, l.buf)
		l.buf = grown
		return
	}
	l.parts, l.inParts = append(l.parts, l.buf), l.inParts+int64(len(l.buf))
	l.buf, l.scanned = nil, 0
	if n := len(l.spare); n > 0 {
		l.buf, l.spare = l.spare[n-1], l.spare[:n-1]
		return
	}
	l.buf = make([]byte, 0, longPart)
}

// join is the line that ends with end, which is not copied if that is all of it.
func (l *lineReader) join(end []byte) []byte {
	if len(l.parts) == 0 {
		return end
	}
	line := bytes.Join(append(l.parts, end), nil)
	for _, part := range l.parts {
		// One with less room has lines at its begin that were given away.
		if cap(part) == longPart && len(l.spare) < maxSpare {
			l.spare = append(l.spare, part[:0])
		}
	}
	l.dropParts()
	return line
}

func (l *lineReader) dropParts() { l.parts, l.inParts = nil, 0 }

// size is how long the line is so far, of which so much is in the buffer.
func (l *lineReader) size(buffered int) int64 { return l.inParts + int64(buffered) }

func (l *lineReader) tooLong(buffered int) bool { return l.limit > 0 && l.size(buffered) > l.limit }
