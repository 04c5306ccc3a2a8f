package relay

import (
	"net"
	"sync"
)

// maxWaiting is how many connections may wait to be accepted.
const maxWaiting = 128

// listener is a listening socket inside.
type listener struct {
	r     *Relay
	id    uint32
	addr  inside
	ready chan struct{} // something has changed

	mu      sync.Mutex
	waiting []*conn
	err     error
}

// add hands a new connection to Accept, or refuses it when too many wait.
func (l *listener) add(c *conn) {
	l.mu.Lock()
	full := l.err != nil || len(l.waiting) >= maxWaiting
	if !full {
		l.waiting = append(l.waiting, c)
	}
	l.mu.Unlock()
	if full {
		_ = c.Close()
		return
	}
	l.nudge()
}

func (l *listener) nudge() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		var c *conn
		err := l.err
		if len(l.waiting) > 0 {
			c, l.waiting = l.waiting[0], l.waiting[1:]
		}
		more := len(l.waiting) > 0 || err != nil
		l.mu.Unlock()
		if more {
			l.nudge() // for whoever else waits
		}
		switch {
		case c != nil:
			return c, nil
		case err != nil:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: err}
		}
		<-l.ready
	}
}

// end makes Accept fail; connections that were not accepted are refused.
func (l *listener) end(why error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = why
	}
	waiting := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	for _, c := range waiting {
		_ = c.Close()
	}
	l.nudge()
}

// Close implements net.Listener. Connections that were accepted go on.
func (l *listener) Close() error {
	l.r.out.send(kindReset, l.id, nil)
	l.end(net.ErrClosed)
	l.r.forget(l.id)
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }
