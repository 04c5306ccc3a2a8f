package tunnel_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/tunnel"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// inside listens as a server in a sandbox does, and gives its port.
func inside(t *testing.T, serve func(net.Conn)) int {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		lis.Close()
		wg.Wait()
	})
	return lis.Addr().(*net.TCPAddr).Port
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

func authority(t *testing.T) (*tunnel.Authority, *tls.Config) {
	t.Helper()
	a, err := tunnel.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(a.PEM()) {
		t.Fatal("the authority's certificate cannot be read")
	}
	return a, &tls.Config{RootCAs: pool}
}

func open(t *testing.T, opts tunnel.Options, ports ...tunnel.Port) []string {
	t.Helper()
	if opts.Dial == nil {
		opts.Dial = dial
	}
	s, err := tunnel.Open(ports, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	var at []string
	for _, tun := range s.Tunnels() {
		at = append(at, net.JoinHostPort(tun.Host, fmt.Sprint(tun.Public)))
	}
	return at
}

// echo answers with everything that was said, once the client has no more to say.
func echo(c net.Conn) {
	all, err := io.ReadAll(c)
	if err == nil {
		_, _ = c.Write(all)
	}
}

func TestTunnelsCarryBothWays(t *testing.T) {
	a, trust := authority(t)
	port := inside(t, echo)
	at := open(t, tunnel.Options{Authority: a}, tunnel.Port{Number: port, Kind: tunnel.Unencrypted},
		tunnel.Port{Number: port}, tunnel.Port{Number: port, Kind: tunnel.HTTP2})
	sent := make([]byte, 8<<20)
	_, _ = rand.Read(sent)
	for i, address := range at {
		var c net.Conn
		var err error
		if i == 0 {
			c, err = net.Dial("tcp", address)
		} else {
			c, err = tls.Dial("tcp", address, trust)
		}
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = c.Write(sent)
			_ = c.(interface{ CloseWrite() error }).CloseWrite() // half of it: the answer comes after
		}()
		got, err := io.ReadAll(c)
		if err != nil || sha256.Sum256(got) != sha256.Sum256(sent) {
			t.Errorf("tunnel %d: %d bytes came back, %v", i, len(got), err)
		}
		c.Close()
	}
}

func TestHTTPThroughTunnels(t *testing.T) {
	a, trust := authority(t)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	})}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(lis)
	t.Cleanup(func() { srv.Close() })
	port := lis.Addr().(*net.TCPAddr).Port
	at := open(t, tunnel.Options{Authority: a}, tunnel.Port{Number: port}, tunnel.Port{Number: port, Kind: tunnel.HTTP2})
	for i, want := range []string{"HTTP/1.1", "HTTP/2.0"} {
		transport := &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: true}
		resp, err := (&http.Client{Transport: transport}).Get("https://" + at[i])
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != want {
			t.Errorf("the server inside was spoken to in %s, want %s", got, want)
		}
		transport.CloseIdleConnections()
	}
}

func TestCertificateIsTheAuthoritys(t *testing.T) {
	a, _ := authority(t)
	_, other := authority(t)
	at := open(t, tunnel.Options{Authority: a}, tunnel.Port{Number: inside(t, echo)})
	var unknown x509.UnknownAuthorityError
	if _, err := tls.Dial("tcp", at[0], other); !errors.As(err, &unknown) {
		t.Errorf("with another authority: %v", err)
	}
}

func TestNobodyListensInside(t *testing.T) {
	a, _ := authority(t)
	at := open(t, tunnel.Options{Authority: a}, tunnel.Port{Number: 1, Kind: tunnel.Unencrypted})
	c, err := net.Dial("tcp", at[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := io.Copy(io.Discard, c); n != 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// A server that is just being started is waited for; a sandbox that has ended is not.
func TestServerStarts(t *testing.T) {
	a, _ := authority(t)
	for name, tt := range map[string]struct {
		err  error
		want int
	}{"starting": {syscall.ECONNREFUSED, 4}, "ended": {driver.ErrEnded, 1}} {
		t.Run(name, func(t *testing.T) {
			port := inside(t, echo)
			var tries atomic.Int32
			opts := tunnel.Options{Authority: a, Starting: time.Now().Add(time.Minute), Dial: func(ctx context.Context, address string) (net.Conn, error) {
				if tries.Add(1) < 4 {
					return nil, tt.err
				}
				return dial(ctx, address)
			}}
			at := open(t, opts, tunnel.Port{Number: port, Kind: tunnel.Unencrypted})
			c, err := net.Dial("tcp", at[0])
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			if got := int(tries.Load()); got != tt.want {
				t.Errorf("tried %d times, want %d", got, tt.want)
			}
		})
	}
}

func TestAllow(t *testing.T) {
	a, _ := authority(t)
	port := tunnel.Port{Number: inside(t, echo), Kind: tunnel.Unencrypted}
	for prefix, allowed := range map[string]bool{"127.0.0.0/8": true, "203.0.113.0/24": false, "::/0": false, "0.0.0.0/0": true} {
		at := open(t, tunnel.Options{Authority: a, Allow: []netip.Prefix{netip.MustParsePrefix(prefix)}}, port)
		c, err := net.Dial("tcp", at[0])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("x"))
		_ = c.(*net.TCPConn).CloseWrite()
		got, _ := io.ReadAll(c)
		if (string(got) == "x") != allowed {
			t.Errorf("from %s: got %q", prefix, got)
		}
		c.Close()
	}
}

// A server inside that does not read must stop the client, not fill this process.
func TestBackPressure(t *testing.T) {
	a, trust := authority(t)
	release := make(chan struct{})
	port := inside(t, func(c net.Conn) {
		<-release
		_, _ = io.Copy(io.Discard, c)
	})
	at := open(t, tunnel.Options{Authority: a}, tunnel.Port{Number: port})
	c, err := tls.Dial("tcp", at[0], trust)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	var sent int64
	block := make([]byte, 1<<20)
	for err = nil; err == nil && sent < 1<<30; sent += int64(len(block)) {
		_, err = c.Write(block)
	}
	close(release)
	if err == nil || sent > 100<<20 {
		t.Errorf("%d bytes were taken although nobody read, %v", sent, err)
	}
}

func TestCloseEndsConnections(t *testing.T) {
	a, _ := authority(t)
	started := make(chan struct{})
	port := inside(t, func(c net.Conn) {
		close(started)
		_, _ = io.Copy(io.Discard, c)
	})
	var busy atomic.Int32
	s, err := tunnel.Open([]tunnel.Port{{Number: port, Kind: tunnel.Unencrypted}, {Number: port}}, tunnel.Options{
		Authority: a, Dial: dial, Busy: func() func() { busy.Add(1); return func() { busy.Add(-1) } },
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", s.Tunnels()[0].Public))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	silent, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", s.Tunnels()[1].Public)) // never shakes hands
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	<-started
	if busy.Load() == 0 {
		t.Error("an open connection does not count as use")
	}
	s.Close()
	s.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection goes on")
	}
	if busy.Load() != 0 {
		t.Error("a closed connection counts as use")
	}
}

var errToken = errors.New("bad token")

// gateway opens one whose token "good" is good for the port, with metadata.
func gateway(t *testing.T, a *tunnel.Authority, port int) *tunnel.Gateway {
	t.Helper()
	g, err := tunnel.OpenGateway(tunnel.Options{Authority: a, Dial: dial}, func(token string) (tunnel.Grant, error) {
		switch token {
		case "good":
			return tunnel.Grant{Port: port, Metadata: `{"user":"u"}`}, nil
		case "plain":
			return tunnel.Grant{Port: port}, nil
		case "closed":
			return tunnel.Grant{Port: 1}, nil
		}
		return tunnel.Grant{}, errToken
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func httpInside(t *testing.T, h http.HandlerFunc) int {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(lis)
	t.Cleanup(func() { srv.Close() })
	return lis.Addr().(*net.TCPAddr).Port
}

func TestGateway(t *testing.T) {
	a, trust := authority(t)
	g := gateway(t, a, httpInside(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s auth=%s cookie=%s user=%v host=%t", r.RequestURI, r.Header.Get("Authorization"),
			r.Header.Get("Cookie"), r.Header.Values("X-Verified-User-Data"), strings.HasPrefix(r.Host, "127.0.0.1:"))
	}))
	tests := []struct {
		name, path string
		header     map[string]string
		status     int
		body       string
	}{
		{"header", "/a%2Fb?x=1&y=%20", map[string]string{"Authorization": "Bearer good"}, 200, `/a%2Fb?x=1&y=%20 auth= cookie= user=[{"user":"u"}] host=true`},
		{"query", "/?z=2&_modal_connect_token=good&a=1", nil, 200, `/?z=2&a=1 auth= cookie= user=[{"user":"u"}] host=true`},
		{"cookie", "/p", map[string]string{"Cookie": "a=1; _modal_connect_token=good; b=2"}, 200, `/p auth= cookie=a=1; b=2 user=[{"user":"u"}] host=true`},
		{"own authorization", "/?_modal_connect_token=good", map[string]string{"Authorization": "Bearer mine"}, 200, `/ auth=Bearer mine cookie= user=[{"user":"u"}] host=true`},
		{"forged user", "/", map[string]string{"Authorization": "Bearer plain", "X-Verified-User-Data": "root"}, 200, `/ auth= cookie= user=[] host=true`},
		{"forged user and dropped", "/", map[string]string{"Authorization": "Bearer good", "X-Verified-User-Data": "root", "Connection": "X-Verified-User-Data"}, 200, `/ auth= cookie= user=[{"user":"u"}] host=true`},
		{"no token", "/", nil, 401, "connect token"},
		{"bad token", "/?_modal_connect_token=bad", nil, 401, "connect token"},
		{"empty token", "/", map[string]string{"Authorization": "Bearer "}, 401, "connect token"},
		{"nobody listens", "/", map[string]string{"Authorization": "Bearer closed"}, 502, "does not answer"},
	}
	secure := &http.Transport{TLSClientConfig: trust}
	defer secure.CloseIdleConnections()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for _, tt := range tests {
		for _, scheme := range []string{"http", "https"} {
			req, err := http.NewRequest("GET", strings.Replace(g.URL(), "http", scheme, 1)+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range tt.header {
				req.Header.Set(k, v)
			}
			client := http.DefaultClient
			if scheme == "https" {
				client = &http.Client{Transport: secure}
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.body) {
				t.Errorf("%s, %s: %d %s, want %d %s", tt.name, scheme, resp.StatusCode, body, tt.status, tt.body)
			}
			cookies := resp.Cookies()
			if set := len(cookies) == 1 && cookies[0].Name == "_modal_connect_token" && cookies[0].Value == "good"; set != (tt.status == 200 && strings.Contains(tt.path, "token=")) {
				t.Errorf("%s: cookies %v", tt.name, cookies)
			}
		}
	}
}

// A WebSocket goes through until the gateway is closed.
func TestGatewayUpgrade(t *testing.T) {
	a, _ := authority(t)
	g := gateway(t, a, httpInside(t, func(w http.ResponseWriter, r *http.Request) {
		c, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + r.Header.Get("Upgrade") + "\r\n\r\n")
		_ = buf.Flush()
		_, _ = io.Copy(c, buf)
	}))
	c, err := net.Dial("tcp", strings.TrimPrefix(g.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /ws?_modal_connect_token=good HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	want := []byte("HTTP/1.1 101 Switching Protocols\r\n")
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := readUntil(c, "\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "ping!")
	if err := readUntil(c, "ping!"); err != nil {
		t.Fatal(err)
	}
	g.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the WebSocket goes on")
	}
}

func readUntil(r io.Reader, end string) error {
	var got []byte
	b := make([]byte, 1)
	for !strings.HasSuffix(string(got), end) {
		if _, err := io.ReadFull(r, b); err != nil {
			return fmt.Errorf("after %q: %w", got, err)
		}
		got = append(got, b[0])
	}
	return nil
}

// Events arrive as they are sent.
func TestGatewayStreams(t *testing.T) {
	a, _ := authority(t)
	next := make(chan struct{})
	g := gateway(t, a, httpInside(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			_, _ = io.WriteString(w, "event\n")
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	}))
	resp, err := http.Get(g.URL() + "/?_modal_connect_token=plain")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	defer resp.Body.Close()
	for range 3 {
		if err := readUntil(resp.Body, "event\n"); err != nil {
			t.Fatal(err)
		}
		next <- struct{}{}
	}
}

// Closing does not wait for who says nothing.
func TestGatewayCloses(t *testing.T) {
	a, _ := authority(t)
	g := gateway(t, a, 1)
	for _, said := range []string{"", "\x16\x03\x01", "GET / HTTP"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(g.URL(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, said)
	}
	g.Close()
	g.Close()
}
