package egress_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/egress"
)

// pipes is a listener whose connections are pipes in memory, for synctest.
type pipes chan net.Conn

func (l pipes) Accept() (net.Conn, error) {
	c, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l pipes) Close() error   { close(l); return nil }
func (l pipes) Addr() net.Addr { return &net.TCPAddr{} }

// idleTunnel opens a tunnel through a proxy with an idle limit of one minute.
func idleTunnel(t *testing.T) (near net.Conn, far net.Conn, done func()) {
	fars := make(chan net.Conn, 1)
	p := egress.New(driver.Network{Mode: driver.NetworkFull}, &egress.Options{
		IdleTimeout:    time.Minute,
		InterfaceAddrs: func() ([]net.Addr, error) { return nil, nil },
		Dial: func(context.Context, string, string) (net.Conn, error) {
			a, b := net.Pipe()
			fars <- b
			return a, nil
		},
		Resolver: resolver{},
	})
	l := make(pipes)
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	near, theirs := net.Pipe()
	l <- theirs
	io.WriteString(near, "CONNECT 1.1.1.1:443 HTTP/1.1\r\nHost: 1.1.1.1:443\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReaderSize(near, 16), &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	far = <-fars
	return near, far, func() {
		near.Close()
		far.Close()
		p.Close()
		<-served
	}
}

type resolver struct{}

func (resolver) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, &net.DNSError{IsNotFound: true}
}

func TestIdleTunnelEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, _, done := idleTunnel(t)
		defer done()
		begin := time.Now()
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Fatal("read a byte that nobody sent")
		}
		if took := time.Since(begin); took < time.Minute || took > 2*time.Minute {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestBusyTunnelStays(t *testing.T) {
	for _, way := range []string{"out", "in"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far, done := idleTunnel(t)
				defer done()
				from, to := near, far
				if way == "in" {
					from, to = far, near
				}
				for range 30 { // a byte every 40 s, in one direction only
					time.Sleep(40 * time.Second)
					go from.Write([]byte("x"))
					if _, err := to.Read(make([]byte, 1)); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

func TestStuckReaderEndsTheTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, _, done := idleTunnel(t)
		defer done()
		near.Write(make([]byte, 10)) // far never reads
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Fatal("read a byte that nobody sent")
		}
	})
}
