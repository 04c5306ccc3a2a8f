//go:build unix

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxFrame bounds a message. A command's arguments and environment are
	// 2 MiB at the most (execve(2)); the rest is room.
	maxFrame = 16 << 20
	// MaxFDs is how many descriptors fit beside one message (SCM_MAX_FD is 253).
	MaxFDs = 250
)

// Conn sends and receives messages. Send may be called from several goroutines,
// Receive from one at a time.
type Conn struct {
	uc    *net.UnixConn
	wmu   sync.Mutex
	oob   []byte
	quiet *quiet // nil: uc is used
	ahead *ahead // nil: Receive reads not one byte more than its message
}

// NewConn speaks over uc and closes it in the end.
func NewConn(uc *net.UnixConn) *Conn { return &Conn{uc: uc} }

// Claim takes the connection for this Conn alone, before its first use by two
// goroutines: Receive reads as much as there is, with one call into the system
// instead of two or three, and the process is not woken each time the other side
// has read something. It does nothing but on Linux. Read deadlines do not count
// any more, nor does Unix.
func (c *Conn) Claim() {
	if c.ahead != nil {
		return
	}
	if c.quiet = newQuiet(c.uc); c.quiet != nil {
		c.ahead = &ahead{}
	}
}

// Close closes the connection.
func (c *Conn) Close() error {
	if c.quiet != nil {
		return c.quiet.close()
	}
	return c.uc.Close()
}

// SetWriteDeadline bounds the sends.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.quiet != nil {
		return c.quiet.setWriteDeadline(t)
	}
	return c.uc.SetWriteDeadline(t)
}

// SetReadDeadline bounds the receives.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.uc.SetReadDeadline(t) }

// Unix is the connection below.
func (c *Conn) Unix() *net.UnixConn { return c.uc }

// Send sends a message with descriptors, which stay the caller's.
func (c *Conn) Send(m Message, fds ...int) error { return c.sendBytes(Marshal(m), fds) }

func (c *Conn) sendBytes(body []byte, fds []int) error {
	if len(body) > maxFrame {
		return fmt.Errorf("message of %d bytes is too large: %w", len(body), unix.E2BIG)
	}
	if len(fds) > MaxFDs {
		return fmt.Errorf("%d descriptors are too many for one message", len(fds))
	}
	frame := make([]byte, 4, 4+len(body))
	binary.LittleEndian.PutUint32(frame, uint32(len(body)))
	frame = append(frame, body...)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	n, err := c.write(frame, oob)
	// The descriptors went with the first byte; what is left is bytes only.
	for err == nil && n < len(frame) {
		var more int
		more, err = c.write(frame[n:], nil)
		n += more
	}
	return err
}

func (c *Conn) write(p, oob []byte) (int, error) {
	if c.quiet != nil {
		return c.quiet.write(p, oob)
	}
	n, _, err := c.uc.WriteMsgUnix(p, oob, nil)
	return n, err
}

// Receive receives a message and the descriptors beside it, which the caller
// closes. It reads not one byte more than the message, or after Claim no
// descriptor that belongs to another.
func (c *Conn) Receive(m Message) (fds []int, err error) {
	receive := c.receiveBytes
	if c.ahead != nil {
		receive = c.receiveAhead
	}
	body, fds, err := receive()
	if err != nil {
		return nil, err
	}
	if err := Unmarshal(body, m); err != nil {
		CloseFDs(fds)
		if c.ahead != nil {
			c.ahead.drop()
		}
		return nil, err
	}
	return fds, nil
}

func (c *Conn) receiveBytes() (body []byte, fds []int, err error) {
	var head [4]byte
	for n := 0; n < len(head); {
		k, more, err := c.read(head[n:])
		fds = append(fds, more...)
		if err == io.EOF && n > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			CloseFDs(fds)
			return nil, nil, err
		}
		n += k
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxFrame {
		CloseFDs(fds)
		return nil, nil, fmt.Errorf("frame of %d bytes", size)
	}
	body, err = readBody(c.uc, nil, int(size))
	if err != nil {
		CloseFDs(fds)
		return nil, nil, err
	}
	return body, fds, nil
}

// read reads what there is, with the descriptors beside it.
func (c *Conn) read(p []byte) (n int, fds []int, err error) {
	if c.oob == nil {
		c.oob = make([]byte, unix.CmsgSpace(4*253))
	}
	var oobn int
	if c.quiet != nil {
		n, oobn, err = c.quiet.read(p, c.oob)
	} else {
		n, oobn, _, _, err = c.uc.ReadMsgUnix(p, c.oob)
	}
	if oobn > 0 {
		fds = rights(c.oob[:oobn])
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), fds, err
}

// readBody reads what follows start, in steps, so that a peer that only claims a
// large frame costs no memory.
func readBody(r io.Reader, start []byte, size int) ([]byte, error) {
	const step = 256 << 10
	body := make([]byte, 0, max(len(start), min(size, step)))
	body = append(body, start...)
	for len(body) < size {
		n := min(size-len(body), step)
		body = append(body, make([]byte, n)...)
		if _, err := io.ReadFull(r, body[len(body)-n:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return body, nil
}

func rights(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// CloseFDs closes descriptors.
func CloseFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
