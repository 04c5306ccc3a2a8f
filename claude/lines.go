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
	if err != nil && len(l.buf) > 0 {
		l.lines = append(l.lines, l.buf)
		l.buf, l.scanned = nil, 0
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return l.lines, err
}

// take takes the line of that size off the buffer.
func (l *lineReader) take(size int) {
	switch {
	case l.skipping:
		l.skipping = false
	case l.tooLong(size):
		l.lines = append(l.lines, nil)
	default:
		l.lines = append(l.lines, l.buf[:size:size])
	}
	l.buf, l.scanned = l.buf[size:], 0
}

// skip lets go of what came of a line that is too long.
func (l *lineReader) skip() {
	if !l.skipping {
		l.skipping = true
		l.lines = append(l.lines, nil)
	}
	if cap(l.buf) > 2*chunkSize {
		l.buf = nil
	}
	// What is in the chunk before may be lines that were given away.
	l.buf, l.scanned = l.buf[len(l.buf):], 0
}

// makeRoom makes room for a read: not more than twice what there is, nor than
// shows that a line is too long.
func (l *lineReader) makeRoom() {
	if cap(l.buf)-len(l.buf) >= minRead {
		return
	}
	size := 2 * len(l.buf)
	if most := int64(size) - minRead; l.limit > 0 && most > l.limit {
		size = int(l.limit + minRead)
	}
	grown := make([]byte, len(l.buf), max(chunkSize, size))
	copy(grown, l.buf)
	l.buf = grown
}

func (l *lineReader) tooLong(size int) bool { return l.limit > 0 && int64(size) > l.limit }
