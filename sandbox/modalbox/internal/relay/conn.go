package relay

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// conn is one connection. It implements net.Conn, and CloseWrite.
type conn struct {
	r    *Relay
	id   uint32
	addr inside

	mu   sync.Mutex
	wake *sync.Cond // anything below has changed

	in     bytes.Buffer // received and not read
	used   int          // read since the last credit
	inEOF  bool
	credit int // bytes that may be sent
	outEOF bool
	err    error // it failed, or was closed

	readBy, writeBy deadline
}

func newConn(r *Relay, id uint32, addr inside) *conn {
	c := &conn{r: r, id: id, addr: addr, credit: Window}
	c.wake = sync.NewCond(&c.mu)
	return c
}

// handle takes a frame of this connection.
func (c *conn) handle(f frame) error {
	switch f.kind {
	case kindReset:
		c.fail(net.ErrClosed)
		c.r.forget(c.id)
		return nil
	case kindData, kindEOF, kindCredit:
	default:
		return errProtocol
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.wake.Broadcast()
	switch f.kind {
	case kindData:
		if c.in.Len()+len(f.payload) > 2*Window || c.inEOF {
			return errProtocol
		}
		if c.err == nil {
			c.in.Write(f.payload)
		}
	case kindEOF:
		c.inEOF = true
	case kindCredit:
		if len(f.payload) != 4 {
			return errProtocol
		}
		c.credit += int(binary.BigEndian.Uint32(f.payload))
		if c.credit > Window {
			return errProtocol
		}
	}
	return nil
}

// fail ends the connection; what was received can still be read.
func (c *conn) fail(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = why
	}
	c.readBy.stop()
	c.writeBy.stop()
	c.wake.Broadcast()
}

func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.in.Len() == 0 {
		switch {
		case len(p) == 0:
			return 0, nil
		case c.readBy.passed:
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case c.inEOF:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.opError("read", c.err)
		}
		c.wake.Wait()
	}
	if c.readBy.passed {
		return 0, c.opError("read", os.ErrDeadlineExceeded)
	}
	n, _ := c.in.Read(p)
	if c.used += n; c.used >= Window/2 {
		c.r.out.send(kindCredit, c.id, binary.BigEndian.AppendUint32(nil, uint32(c.used)))
		c.used = 0
	}
	return n, nil
}

func (c *conn) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		k, err := c.reserve(min(len(p), maxPayload))
		if err != nil {
			return n, err
		}
		c.r.out.send(kindData, c.id, p[:k])
		n, p = n+k, p[k:]
	}
	return n, nil
}

// reserve waits until something may be sent, and says how much.
func (c *conn) reserve(want int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.err != nil:
			return 0, c.opError("write", c.err)
		case c.outEOF:
			return 0, c.opError("write", net.ErrClosed)
		case c.writeBy.passed:
			return 0, c.opError("write", os.ErrDeadlineExceeded)
		case c.credit > 0:
			k := min(want, c.credit)
			c.credit -= k
			return k, nil
		}
		c.wake.Wait()
	}
}

// CloseWrite says that nothing more will be written.
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.opError("close", c.err)
	}
	if !c.outEOF {
		c.outEOF = true
		c.r.out.send(kindEOF, c.id, nil)
		c.wake.Broadcast()
	}
	return nil
}

// Close ends the connection. What was written before it still arrives.
func (c *conn) Close() error {
	c.mu.Lock()
	stands := c.err == nil && (!c.outEOF || !c.inEOF)
	c.mu.Unlock()
	if stands {
		c.r.out.send(kindReset, c.id, nil)
	}
	c.fail(net.ErrClosed)
	c.r.forget(c.id)
	return nil
}

func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: c.addr, Err: err}
}

func (c *conn) LocalAddr() net.Addr  { return c.addr }
func (c *conn) RemoteAddr() net.Addr { return c.addr }

func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.readBy, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeBy, t) }

func (c *conn) setDeadline(d *deadline, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		d.set(c, t)
		c.wake.Broadcast()
		return nil
	}
	return c.opError("set deadline", c.err)
}

// deadline is a time after which an operation fails. Its connection's lock
// guards it.
type deadline struct {
	passed bool
	timer  *time.Timer
	turn   int // makes a timer that was too late to stop do nothing
}

func (d *deadline) stop() {
	d.turn++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func (d *deadline) set(c *conn, t time.Time) {
	d.stop()
	d.passed = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.passed = true
		return
	}
	turn := d.turn
	d.timer = time.AfterFunc(left, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if d.turn == turn {
			d.passed = true
			c.wake.Broadcast()
		}
	})
}
