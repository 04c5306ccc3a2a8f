package boundlisten_test

import (
	"errors"
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/boundlisten"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counted is a listener whose connections are always there, and are counted.
type counted struct {
	net.Listener
	accepted chan net.Conn
}

func (l counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted <- c
	}
	return c, err
}

func listen(t *testing.T) (bounded net.Listener, accepted chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = make(chan net.Conn, 8)
	bounded = boundlisten.New(counted{l, accepted}, 2)
	t.Cleanup(func() { bounded.Close() })
	for range 4 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	return bounded, accepted
}

func TestTheNextWaitsForOneToBeClosed(t *testing.T) {
	l, accepted := listen(t)
	var open []net.Conn
	for range 2 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	third := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
		third <- err
	}()
	if n := len(accepted); n != 2 {
		t.Errorf("%d are open, want 2", n)
	}
	select {
	case err := <-third:
		t.Fatalf("a third was accepted: %v", err)
	default:
	}
	open[0].Close()
	open[0].Close() // gives back one slot, not two
	if err := <-third; err != nil {
		t.Error(err)
	}
	open[1].Close()
}

func TestCloseEndsAnAcceptThatWaits(t *testing.T) {
	l, _ := listen(t)
	for range 2 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		waiting <- err
	}()
	l.Close()
	l.Close()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}
