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
	uc  *net.UnixConn
	wmu sync.Mutex
	oob []byte
}

// NewConn speaks over uc and closes it in the end.
func NewConn(uc *net.UnixConn) *Conn { return &Conn{uc: uc} }

// Close closes the connection.
func (c *Conn) Close() error { return c.uc.Close() }

// SetWriteDeadline bounds the sends.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.uc.SetWriteDeadline(t) }

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
	n, _, err := c.uc.WriteMsgUnix(frame, oob, nil)
	// The descriptors went with the first byte; what is left is bytes only.
	for err == nil && n < len(frame) {
		var more int
		more, err = c.uc.Write(frame[n:])
		n += more
	}
	return err
}

// Receive receives a message and the descriptors beside it, which the caller
// closes. It reads not one byte more than the message.
func (c *Conn) Receive(m Message) (fds []int, err error) {
	body, fds, err := c.receiveBytes()
	if err != nil {
		return nil, err
	}
	if err := Unmarshal(body, m); err != nil {
		CloseFDs(fds)
		return nil, err
	}
	return fds, nil
}

func (c *Conn) receiveBytes() (body []byte, fds []int, err error) {
	if c.oob == nil {
		c.oob = make([]byte, unix.CmsgSpace(4*253))
	}
	var head [4]byte
	for n := 0; n < len(head); {
		k, oobn, _, _, err := c.uc.ReadMsgUnix(head[n:], c.oob)
		if oobn > 0 {
			fds = append(fds, rights(c.oob[:oobn])...)
		}
		if k == 0 && err == nil {
			err = io.EOF
			if n > 0 {
				err = io.ErrUnexpectedEOF
			}
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
	body, err = readBody(c.uc, int(size))
	if err != nil {
		CloseFDs(fds)
		return nil, nil, err
	}
	return body, fds, nil
}

// readBody reads in steps, so that a peer that only claims a large frame costs
// no memory.
func readBody(r io.Reader, size int) ([]byte, error) {
	const step = 256 << 10
	body := make([]byte, 0, min(size, step))
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
