package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/vivarium-go/vivarium/internal/boundlisten"
)

// chunk is how much is copied before a tunnel's deadlines are set anew. Within
// it the kernel moves the bytes by itself where both ends are sockets.
const chunk = 1 << 20

// tunnel carries bytes both ways until both have ended, one has failed, nothing
// has moved for idle, or ctx is done. It closes both connections. An end that
// stops sending is passed on as such, and the other way stays open.
func tunnel(ctx context.Context, near, far net.Conn, early []byte, idle time.Duration) {
	near, far = bare(near), bare(far)
	end := func() {
		near.Close()
		far.Close()
	}
	defer context.AfterFunc(ctx, end)()
	if writeEarly(far, early, idle) != nil {
		end()
		return
	}
	var moved atomic.Int64 // when, in nanoseconds since start
	start := time.Now()
	back := make(chan struct{})
	carry := func(dst, src net.Conn) {
		if copyUntilEOF(dst, src, idle, start, &moved) != nil || closeWrite(dst) != nil {
			end()
		}
	}
	go func() {
		defer close(back)
		carry(near, far)
	}()
	carry(far, near)
	<-back
	end()
}

// writeEarly writes nothing when there is nothing: a connection may hold an
// empty write until its peer reads.
func writeEarly(far net.Conn, early []byte, idle time.Duration) error {
	if len(early) == 0 {
		return nil
	}
	if err := far.SetWriteDeadline(time.Now().Add(idle)); err != nil {
		return err
	}
	_, err := far.Write(early)
	return err
}

// copyUntilEOF copies in pieces, each with deadlines half of idle away, so that
// the other direction has noted by then what it moved. A piece that ran into its
// deadline when nothing has moved for idle in either direction ends the copy.
func copyUntilEOF(dst, src net.Conn, idle time.Duration, start time.Time, moved *atomic.Int64) error {
	for {
		now := time.Now()
		if err := errors.Join(src.SetReadDeadline(now.Add(idle/2)), dst.SetWriteDeadline(now.Add(idle))); err != nil {
			return err
		}
		n, err := io.Copy(dst, &io.LimitedReader{R: src, N: chunk})
		if n > 0 {
			moved.Store(int64(time.Since(start)))
		}
		switch {
		case err == nil && n < chunk:
			return nil // the end of src
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(now) >= idle:
			return err // failed, or dst takes nothing
		case time.Since(start)-time.Duration(moved.Load()) >= idle+idle/2: // the note may be half of idle old
			return err
		}
	}
}

// bare is the socket inside a connection that this package has wrapped; only on sockets
// themselves does io.Copy let the kernel do the work.
func bare(c net.Conn) net.Conn {
	switch c := c.(type) {
	case *boundlisten.Conn:
		return c.NetConn()
	case *farConn:
		return c.NetConn()
	}
	return c
}

// closeWrite tells the far end that no more comes. A connection that cannot say
// that is closed whole.
func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// idleConn ends a plain request's connection on which nothing moves.
type idleConn struct {
	net.Conn
	idle time.Duration
}

func (c *idleConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *idleConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
