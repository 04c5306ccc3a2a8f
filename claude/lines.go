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
	r       io.Reader
	limit   int64  // of a line's bytes with its newline; 0 means none
	buf     []byte // what was read and is not yet part of a line
	scanned int    // so much of buf has no newline
	lines   [][]byte
}

// next blocks until something can be read and returns the whole lines that
// came with it, each with its newline; there may be none. With the error, io.EOF
// at the end, it returns what is left, which has no newline. A line beyond the
// limit is a *LineTooLongError as soon as it is, and nothing is read after it.
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
		end := l.scanned + i + 1
		if l.tooLong(end) {
			return l.giveUp()
		}
		l.lines = append(l.lines, l.buf[:end:end])
		l.buf, l.scanned = l.buf[end:], 0
	}
	if l.tooLong(len(l.buf)) {
		return l.giveUp()
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

// giveUp gives the lines before one that is too long, and lets go of that.
func (l *lineReader) giveUp() ([][]byte, error) {
	l.buf, l.scanned = nil, 0
	return l.lines, &LineTooLongError{Limit: l.limit}
}
