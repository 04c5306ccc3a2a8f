package egress_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/egress"
)

// world is an internet for tests: names, and servers at addresses, all of which
// are listeners on loopback.
type world struct {
	mu      sync.Mutex
	names   map[string][]string // with the final dot where a name has a dot
	servers map[string]string   // "IP:port" to the real listener
	own     []net.Addr
	asked   []string // names that were looked up
	dialed  []string // addresses that were dialed
}

func (w *world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, host)
	list, ok := w.names[host]
	if !ok {
		return nil, &net.DNSError{Name: host, Err: "no such host", IsNotFound: true}
	}
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, nil
}

const silent = "answers nothing"

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dialed = append(w.dialed, address)
	actual, ok := w.servers[address]
	w.mu.Unlock()
	switch {
	case actual == silent:
		<-ctx.Done()
		return nil, ctx.Err()
	case !ok:
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	return new(net.Dialer).DialContext(ctx, network, actual)
}

func (w *world) calls() (asked, dialed []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.asked...), append([]string(nil), w.dialed...)
}

func (w *world) options() *egress.Options {
	return &egress.Options{Resolver: w, Dial: w.dial, InterfaceAddrs: func() ([]net.Addr, error) { return w.own, nil }}
}

// start runs a proxy and gives its address.
func start(t *testing.T, policy driver.Network, opts *egress.Options) (*egress.Proxy, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := egress.New(policy, opts)
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() {
		p.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return p, l.Addr().String()
}

// site is an HTTP server of the world at "1.2.3.4:80".
func (w *world) site(t *testing.T, at string, h http.HandlerFunc) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.servers == nil {
		w.servers = make(map[string]string)
	}
	w.servers[at] = strings.TrimPrefix(srv.URL, "http://")
}

// echo is a server of the world that sends back what it gets, then its end.
func (w *world) echo(t *testing.T, at string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var busy sync.WaitGroup
	busy.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			busy.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); busy.Wait() })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.servers == nil {
		w.servers = make(map[string]string)
	}
	w.servers[at] = l.Addr().String()
}

// connect asks the proxy for a tunnel and gives the connection and the answer.
func connect(t *testing.T, proxy, to string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatalf("CONNECT %s: %v", to, err)
	}
	return c, br, resp
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func client(t *testing.T, proxy string) *http.Client {
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy})}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func cidrs(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
