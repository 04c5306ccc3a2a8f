package outbound_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/authority"
	"github.com/vivarium-go/vivarium/internal/modalemu/internal/outbound"
)

// world is a proxy, a host at example.com and below it, and who trusts whom.
type world struct {
	t       *testing.T
	proxy   *outbound.Proxy
	address string
	inside  *x509.CertPool // what a client inside trusts
	host    *httptest.Server
	dialed  chan string // targets, and whether they are intercepted
}

// start makes a world whose host is handler. Without trust this side does not
// know who vouches for the host.
func start(t *testing.T, handler http.HandlerFunc, trust bool, rules ...outbound.Rule) *world {
	t.Helper()
	a, err := authority.New("test")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, inside: x509.NewCertPool(), host: httptest.NewUnstartedServer(handler), dialed: make(chan string, 100)}
	w.host.EnableHTTP2 = true
	w.host.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	w.host.StartTLS()
	t.Cleanup(w.host.Close)
	w.inside.AppendCertsFromPEM(a.PEM())
	roots := x509.NewCertPool()
	if trust {
		roots.AddCert(w.host.Certificate())
	}
	w.proxy = outbound.New(rules, &outbound.Options{Authority: a, Roots: roots, Dial: w.dial})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- w.proxy.Serve(l) }()
	t.Cleanup(func() {
		if err := w.proxy.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return w
}

func (w *world) dial(ctx context.Context, target string, intercepted bool) (net.Conn, error) {
	w.dialed <- fmt.Sprint(target, " ", intercepted)
	if strings.HasPrefix(target, "refused.") {
		return nil, &outbound.Refusal{Status: http.StatusForbidden, Header: http.Header{"Proxy-Status": {"p"}}, Body: []byte("not there")}
	}
	return new(net.Dialer).DialContext(ctx, "tcp", w.host.Listener.Addr().String())
}

// client is one inside; version is the HTTP that it speaks, 1 or 2.
func (w *world) client(version int, trust *x509.CertPool) *http.Client {
	tr := &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: w.address}),
		TLSClientConfig:   &tls.Config{RootCAs: trust},
		ForceAttemptHTTP2: version == 2,
	}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (w *world) get(c *http.Client, target string) (status int, body string) {
	w.t.Helper()
	resp, err := c.Get(target)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Error(err)
	}
	return resp.StatusCode, string(all)
}

func tell(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %v %s", r.Proto, r.Header.Values("Key"), r.Host)
}

var keyRule = outbound.Rule{Domain: "*.Example.com", Headers: map[string]string{"key": "secret"}}

func TestHeadersAreSet(t *testing.T) {
	w := start(t, tell, true, keyRule)
	for version, proto := range map[int]string{1: "HTTP/1.1", 2: "HTTP/2.0"} {
		c := w.client(version, w.inside)
		for _, host := range []string{"example.com", "a.example.com", "EXAMPLE.com"} {
			for range 2 { // on one connection
				status, body := w.get(c, "https://"+host+"/")
				if want := "HTTP/2.0 [secret] " + strings.ToLower(host); status != 200 || body != want {
					t.Errorf("%s by %s: %d %q, want %q", host, proto, status, body, want)
				}
			}
		}
	}
}

func TestOtherTunnelsAreCarriedOn(t *testing.T) {
	w := start(t, tell, true, keyRule)
	theirs := x509.NewCertPool()
	theirs.AddCert(w.host.Certificate())
	c := w.client(1, theirs)
	c.Transport.(*http.Transport).TLSClientConfig.ServerName = "example.com" // whoever it is called here
	for _, host := range []string{"example.org", "badexample.com", "example.com:8443"} {
		status, body := w.get(c, "https://"+host+"/")
		if want := "HTTP/1.1 [] " + host; status != 200 || body != want {
			t.Errorf("%d %q, want %q", status, body, want)
		}
	}
	if got := <-w.dialed; got != "example.org:443 false" {
		t.Errorf("dialled %s", got)
	}
}

func TestUpstreamIsVerified(t *testing.T) {
	reached := make(chan bool, 1)
	w := start(t, func(http.ResponseWriter, *http.Request) { reached <- true }, false, keyRule)
	status, body := w.get(w.client(2, w.inside), "https://example.com/")
	if status != http.StatusBadGateway || !strings.Contains(body, "no certificate that can be trusted") || strings.Contains(body, "secret") {
		t.Errorf("%d %q", status, body)
	}
	if len(reached) > 0 {
		t.Error("a host that cannot be trusted got the request")
	}
}

func TestRefusals(t *testing.T) {
	w := start(t, tell, true, keyRule)
	for request, want := range map[string]int{
		"GET http://example.com/ HTTP/1.1\r\nHost: example.com":     http.StatusMethodNotAllowed,
		"CONNECT example.com HTTP/1.1\r\nHost: example.com":         http.StatusBadRequest,
		"CONNECT :443 HTTP/1.1\r\nHost: :443":                       http.StatusBadRequest,
		"CONNECT refused.example.com:443 HTTP/1.1\r\nHost: refused": http.StatusForbidden,
		"CONNECT refused.example.org:443 HTTP/1.1\r\nHost: refused": http.StatusForbidden,
	} {
		conn, r := w.send(request)
		resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || want == http.StatusForbidden && (string(body) != "not there" || resp.Header.Get("Proxy-Status") != "p") {
			t.Errorf("%q: %d %q", request, resp.StatusCode, body)
		}
		conn.Close()
	}
}

// send sends the head of a request to the proxy.
func (w *world) send(head string) (net.Conn, *bufio.Reader) {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, head+"\r\nConnection: close\r\n\r\n"); err != nil {
		w.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// tunnel opens one, and gives what comes out of it.
func (w *world) tunnel(host string) (net.Conn, *bufio.Reader) {
	w.t.Helper()
	conn, r := w.send("CONNECT " + host + ":443 HTTP/1.1\r\nHost: " + host + ":443")
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatalf("%v, %v", resp, err)
	}
	return conn, r
}

func TestSetRules(t *testing.T) {
	w := start(t, tell, true, keyRule)
	c := w.client(2, w.inside)
	w.get(c, "https://example.com/")
	later, others := "later.example.com", x509.NewCertPool()
	others.AddCert(w.host.Certificate())
	_, r := w.tunnel("example.org")
	w.proxy.SetRules([]outbound.Rule{{Domain: later, Headers: map[string]string{"Key": "2"}}, {Domain: "example.org", Headers: map[string]string{"A": "b"}}})
	// On the connection that there is already.
	if _, body := w.get(c, "https://example.com/"); body != "HTTP/2.0 [] example.com" {
		t.Errorf("after the rule has gone: %q", body)
	}
	if _, body := w.get(c, "https://"+later); body != "HTTP/2.0 [2] "+later {
		t.Errorf("by the new rule: %q", body)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("a tunnel to a host that is named now goes on")
	}
}

// TestStreams: what the host sends comes at once, and a connection that becomes
// something else goes on both ways.
func TestStreams(t *testing.T) {
	more := make(chan bool)
	w := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n%s:", r.Header.Get("Key"))
			_, _ = io.Copy(conn, buffered)
			return
		}
		io.WriteString(w, "first ")
		http.NewResponseController(w).Flush()
		<-more
		io.WriteString(w, "second")
	}, true, keyRule)

	resp, err := w.client(2, w.inside).Get("https://example.com/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 6)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first " {
		t.Fatalf("%q, %v", first, err)
	}
	close(more)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "second" {
		t.Errorf("%q, %v", rest, err)
	}

	conn, _ := w.tunnel("example.com")
	secure := tls.Client(conn, &tls.Config{RootCAs: w.inside, ServerName: "example.com"})
	io.WriteString(secure, "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(secure)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	io.WriteString(secure, "hello\n")
	if line, err := r.ReadString('\n'); err != nil || line != "secret:hello\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// TestClose ends tunnels of both kinds, in whatever they are about.
func TestClose(t *testing.T) {
	entered := make(chan bool)
	w := start(t, func(_ http.ResponseWriter, r *http.Request) {
		entered <- true
		<-r.Context().Done()
	}, true, keyRule)
	_, plain := w.tunnel("example.org")
	_, silent := w.tunnel("example.com")
	answered := make(chan string, 1)
	go func() {
		_, body := w.get(w.client(2, w.inside), "https://example.com/")
		answered <- body
	}()
	<-entered
	if err := w.proxy.Close(); err != nil {
		t.Fatal(err)
	}
	<-answered
	for _, r := range []*bufio.Reader{plain, silent} {
		if _, err := r.ReadByte(); err == nil {
			t.Error("a tunnel outlives the proxy")
		}
	}
}
