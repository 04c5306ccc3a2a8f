//go:build unix

package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// aheadSize is how much is read from a connection at once.
const aheadSize = 4 << 10

// ahead is what was read of a connection and not received yet. Positions count
// bytes from the first one on that was read ahead.
type ahead struct {
	buf  [aheadSize]byte
	rest []byte // of buf
	at   int64  // the position of rest
	fds  []arrival
}

// arrival are descriptors that one read brought. They went with the first byte of
// a message, and the kernel ends a read with the bytes that were sent with them:
// they belong to the last message that begins before end.
type arrival struct {
	end int64
	fds []int
}

func (c *Conn) receiveAhead() (body []byte, fds []int, err error) {
	a := c.ahead
	for len(a.rest) < 4 {
		if err := c.fill(); err != nil {
			if err == io.EOF && len(a.rest) > 0 {
				err = io.ErrUnexpectedEOF
			}
			a.drop()
			return nil, nil, err
		}
	}
	n := binary.LittleEndian.Uint32(a.rest)
	if n > maxFrame {
		a.drop()
		return nil, nil, fmt.Errorf("frame of %d bytes", n)
	}
	size := int(n)
	stop := a.at + 4 + int64(size)
	a.rest = a.rest[4:]
	start := a.rest[:min(len(a.rest), size)]
	a.rest = a.rest[len(start):]
	a.at = stop
	if body, err = readBody(c.quiet, start, size); err != nil {
		a.drop()
		return nil, nil, err
	}
	return body, a.take(stop), nil
}

// fill reads more into the buffer, of which less than a header is unread.
func (c *Conn) fill() error {
	a := c.ahead
	kept := copy(a.buf[:], a.rest)
	n, fds, err := c.read(a.buf[kept:])
	a.rest = a.buf[:kept+n]
	if len(fds) > 0 {
		a.fds = append(a.fds, arrival{end: a.at + int64(kept+n), fds: fds})
	}
	return err
}

// take gives the descriptors of the message that ends at stop.
func (a *ahead) take(stop int64) (fds []int) {
	for len(a.fds) > 0 && a.fds[0].end <= stop {
		fds = append(fds, a.fds[0].fds...)
		a.fds = a.fds[1:]
	}
	return fds
}

// drop closes the descriptors that nobody will receive.
func (a *ahead) drop() {
	for _, f := range a.fds {
		CloseFDs(f.fds)
	}
	a.fds = nil
}
