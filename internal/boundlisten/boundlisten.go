// Package boundlisten bounds how many connections a listener has open at once.
package boundlisten

import (
	"net"
	"sync"
)

// Connections is how many connections one sandbox is given. A CLI has a handful.
const Connections = 128

// New returns a listener with at most limit accepted connections that are not
// closed: the next Accept waits for one of them to be, and so the kernel's
// backlog holds the rest instead of this process's descriptors. Closing it
// closes l, and ends an Accept that waits, with net.ErrClosed.
func New(l net.Listener, limit int) net.Listener {
	return &listener{Listener: l, slots: make(chan struct{}, limit), done: make(chan struct{})}
}

type listener struct {
	net.Listener
	slots chan struct{}
	once  sync.Once
	done  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &Conn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// Conn is what Accept of such a listener returns. It gives its place back when
// it is closed.
type Conn struct {
	net.Conn
	release func()
}

func (c *Conn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// NetConn is the connection inside, which the kernel can splice.
func (c *Conn) NetConn() net.Conn { return c.Conn }
