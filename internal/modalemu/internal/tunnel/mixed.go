package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// mixedListener gives connections that speak TLS decrypted, and others as they
// are. A connection is given once its client has said something.
type mixedListener struct {
	net.Listener
	opts    Options
	config  *tls.Config
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	ready   chan net.Conn
	conns   tracker
	running sync.WaitGroup
}

func newMixedListener(lis net.Listener, opts Options) *mixedListener {
	l := &mixedListener{Listener: lis, opts: opts, config: opts.Authority.config("http/1.1"), ready: make(chan net.Conn)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.running.Go(l.accept)
	return l
}

// Accept implements net.Listener.
func (l *mixedListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *mixedListener) Close() error {
	l.stop()
	return l.Listener.Close()
}

// shut closes the connections, and waits until nothing runs any more.
func (l *mixedListener) shut() {
	_ = l.Close() // again: all of it is closed in any case
	l.conns.close()
	l.running.Wait()
}

func (l *mixedListener) accept() {
	for l.ctx.Err() == nil {
		conn, err := l.Listener.Accept()
		if err != nil {
			pause(l.ctx, acceptAfter)
			continue
		}
		if !l.opts.allows(conn) || !l.conns.add(conn) {
			conn.Close()
			continue
		}
		l.running.Go(func() { l.sort(conn) })
	}
}

// sort gives conn to Accept as what it is.
func (l *mixedListener) sort(conn net.Conn) {
	const recordTypeHandshake = 0x16 // how TLS begins, and HTTP never does
	read := bufio.NewReader(conn)
	_ = conn.SetReadDeadline(time.Now().Add(handshakeTime)) // an error shows in the read
	first, err := read.Peek(1)
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		l.conns.remove(conn)
		return
	}
	var c net.Conn = &peeked{Conn: conn, read: read, conns: &l.conns}
	if first[0] == recordTypeHandshake {
		c = tls.Server(c, l.config)
	}
	select {
	case l.ready <- c:
	case <-l.ctx.Done():
		l.conns.remove(conn)
	}
}

// peeked is a connection of which something has been read already.
type peeked struct {
	net.Conn
	read  *bufio.Reader
	conns *tracker
}

func (p *peeked) Read(b []byte) (int, error) { return p.read.Read(b) }

func (p *peeked) Close() error {
	p.conns.remove(p.Conn)
	return nil
}

// CloseWrite lets a WebSocket's proxy end one way only.
func (p *peeked) CloseWrite() error {
	if c, ok := p.Conn.(*net.TCPConn); ok {
		return c.CloseWrite()
	}
	return nil
}
