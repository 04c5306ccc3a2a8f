//go:build unix

package keeper

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// stubListener accepts what accept makes, until it is closed.
type stubListener struct {
	accept   func() (net.Conn, error)
	accepted atomic.Int64
	closed   chan struct{}
}

func (l *stubListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	l.accepted.Add(1)
	return l.accept()
}

func (l *stubListener) Close() error   { close(l.closed); return nil }
func (l *stubListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestForwardWithoutDescriptors: a listener that only fails costs no processor.
func TestForwardWithoutDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &stubListener{accept: func() (net.Conn, error) { return nil, errors.New("too many open files") }, closed: make(chan struct{})}
		f := newForward(l)
		served := make(chan struct{})
		go func() { f.serve(nil); close(served) }()
		time.Sleep(time.Second)
		if n := l.accepted.Load(); n > 200 {
			t.Errorf("%d attempts in a second", n)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
}

// TestForwardBounded: however many connect, so many are served at once.
func TestForwardBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &stubListener{accept: func() (net.Conn, error) { c, _ := net.Pipe(); return c, nil }, closed: make(chan struct{})}
		f := newForward(l)
		var dialled atomic.Int64
		served := make(chan struct{})
		go func() {
			defer close(served)
			f.serve(func() (net.Conn, error) {
				dialled.Add(1)
				c, _ := net.Pipe()
				return c, nil
			})
		}()
		synctest.Wait()
		if n := dialled.Load(); n != maxForwarded {
			t.Errorf("%d at once, want %d", n, maxForwarded)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
}
