package egress_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

var toExample = driver.Network{Mode: driver.NetworkAllowlist, Domains: []string{"example.com"}}

func exampleWorld() *world {
	return &world{names: map[string][]string{"example.com.": {"93.184.216.34"}}}
}

func TestPlainRequest(t *testing.T) {
	w := exampleWorld()
	got := make(chan *http.Request, 1)
	w.site(t, "93.184.216.34:80", func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- r
		rw.Header().Set("Connection", "X-Hop")
		rw.Header().Set("X-Hop", "1")
		rw.Header().Set("Proxy-Authenticate", "Basic")
		rw.Header().Set("X-End", "2")
		rw.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(rw, "%s %s", r.URL, b)
	})
	_, addr := start(t, toExample, w.options())
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST http://Example.COM.:80/a%2Fb?x=1;y=%zz HTTP/1.1\r\nHost: other.example\r\nContent-Length: 4\r\n"+
		"Connection: X-Mine, Upgrade\r\nX-Mine: 1\r\nUpgrade: h2c\r\nProxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\n"+
		"Proxy-Odd: 1\r\nX-Forwarded-For: 7.7.7.7\r\nX-Kept: 1\r\n\r\nbody")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if text := body(t, resp); resp.StatusCode != http.StatusTeapot || text != "/a%2Fb?x=1;y=%zz body" {
		t.Errorf("answered %d %q", resp.StatusCode, text)
	}
	if h := resp.Header; h.Get("X-Hop") != "" || h.Get("Proxy-Authenticate") != "" || h.Get("X-End") != "2" {
		t.Errorf("answer's fields: %v", h)
	}
	r := <-got
	if r.Host != "example.com" {
		t.Errorf("Host was %q", r.Host)
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "Proxy-") || name == "X-Mine" || name == "Upgrade" || name == "Via" || name == "User-Agent" || name == "Accept-Encoding" {
			t.Errorf("field %s reached the far side", name)
		}
	}
	if r.Header.Get("X-Kept") != "1" || strings.Join(r.Header["X-Forwarded-For"], "|") != "7.7.7.7" {
		t.Errorf("the client's own fields changed: %v", r.Header)
	}
}

func TestPlainAnswerArrivesAsItIsWritten(t *testing.T) {
	w := exampleWorld()
	release := make(chan struct{})
	w.site(t, "93.184.216.34:80", func(rw http.ResponseWriter, r *http.Request) {
		io.WriteString(rw, "first\n")
		rw.(http.Flusher).Flush()
		<-release
		io.WriteString(rw, "second\n")
	})
	_, addr := start(t, toExample, w.options())
	resp, err := client(t, addr).Get("http://example.com/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	br := bufio.NewReader(resp.Body)
	if line, err := br.ReadString('\n'); line != "first\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	close(release)
	if line, err := br.ReadString('\n'); line != "second\n" {
		t.Errorf("read %q, %v", line, err)
	}
}

func TestPlainRefusals(t *testing.T) {
	w := exampleWorld()
	_, addr := start(t, toExample, w.options())
	for target, want := range map[string]int{
		"/":                      400,
		"https://example.com/":   400,
		"ftp://example.com/":     400,
		"http://other.example/":  403,
		"http://127.0.0.1/":      403,
		"http://[::1]/":          403,
		"http://0x7f.1/":         400,
		"http://example.com:25/": 403,
		"http://example.com/":    502, // refuses the connection
	} {
		t.Run(target, func(t *testing.T) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			text := body(t, resp)
			if resp.StatusCode != want || !strings.HasPrefix(text, "vivarium: ") || resp.Header.Get("Proxy-Status") == "" {
				t.Errorf("answered %d %q %v", resp.StatusCode, text, resp.Header)
			}
		})
	}
}

func TestFarSideFailures(t *testing.T) {
	w := &world{names: map[string][]string{"refused.example.": {"1.1.1.1"}, "silent.example.": {"2.2.2.2"}, "empty.example.": {}},
		servers: map[string]string{"2.2.2.2:443": silent}}
	opts := w.options()
	opts.DialTimeout = 50 * time.Millisecond
	_, addr := start(t, full, opts)
	for to, want := range map[string]struct {
		status      int
		error, says string
	}{
		"refused.example:443": {502, "connection_refused", "refused.example:443 refused"},
		"silent.example:443":  {504, "connection_timeout", "silent.example:443 did not answer in time"},
		"nobody.example:443":  {502, "dns_error", "nobody.example is a name that nobody knows"},
		"empty.example:443":   {502, "dns_error", "empty.example is a name that nobody knows"},
	} {
		_, _, resp := connect(t, addr, to)
		text := body(t, resp)
		if resp.StatusCode != want.status || !strings.Contains(text, want.says) || !strings.Contains(resp.Header.Get("Proxy-Status"), "error="+want.error) {
			t.Errorf("%s: answered %d %q %v", to, resp.StatusCode, text, resp.Header)
		}
	}
}

func TestSecondAddressWhenTheFirstIsSilentOrRefuses(t *testing.T) {
	w := &world{names: map[string][]string{"a.example.": {"2606:4700::1", "1.1.1.1"}, "b.example.": {"2.2.2.2", "1.1.1.1"}},
		servers: map[string]string{"[2606:4700::1]:443": silent}}
	w.echo(t, "1.1.1.1:443")
	_, addr := start(t, full, w.options())
	for _, to := range []string{"a.example:443", "b.example:443"} {
		if _, _, resp := connect(t, addr, to); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: answered %d", to, resp.StatusCode)
		}
	}
}

func TestTunnelHalfClose(t *testing.T) {
	w := exampleWorld()
	w.echo(t, "93.184.216.34:443")
	_, addr := start(t, toExample, w.options())
	c, br, resp := connect(t, addr, "example.com:443")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("answered %d", resp.StatusCode)
	}
	const size = 5<<20 + 3
	sum := sha256.New()
	sent := make(chan error, 1)
	go func() {
		out := io.MultiWriter(c, sum)
		block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
		for left := size; left > 0; left -= min(left, len(block)) {
			if _, err := out.Write(block[:min(left, len(block))]); err != nil {
				sent <- err
				return
			}
		}
		sent <- c.(*net.TCPConn).CloseWrite()
	}()
	back := sha256.New()
	n, err := io.Copy(back, br) // ends when the far side ended, after our end
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if n != size || err != nil || !bytes.Equal(back.Sum(nil), sum.Sum(nil)) {
		t.Errorf("%d bytes came back of %d, error %v", n, size, err)
	}
}

func TestTunnelBytesBeforeTheAnswer(t *testing.T) {
	w := exampleWorld()
	w.echo(t, "93.184.216.34:443")
	_, addr := start(t, toExample, w.options())
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\nearly")
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(br, got); string(got) != "early" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestCloseEndsTunnelsAndRequests(t *testing.T) {
	w := exampleWorld()
	w.echo(t, "93.184.216.34:443")
	w.site(t, "93.184.216.34:80", func(rw http.ResponseWriter, r *http.Request) {
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	p, addr := start(t, toExample, w.options())
	_, br, resp := connect(t, addr, "example.com:443")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("answered %d", resp.StatusCode)
	}
	plain, err := client(t, addr).Get("http://example.com/")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Body.Close()
	p.Close()
	if _, err := br.ReadByte(); err == nil {
		t.Error("the tunnel goes on")
	}
	if _, err := io.ReadAll(plain.Body); err == nil {
		t.Error("the answer came to its end")
	}
	p.Close()
	rec := httptest.NewRecorder()
	p.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "http://example.com/", nil))
	if rec.Code != http.StatusServiceUnavailable {
		t.Errorf("after Close: %d", rec.Code)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve after Close: %v", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("Serve after Close left the listener open")
	}
}

func TestHandlerInAnotherServer(t *testing.T) {
	w := exampleWorld()
	w.echo(t, "93.184.216.34:443")
	opts := w.options()
	opts.MaxConns = 1
	p, _ := start(t, toExample, opts)
	srv := httptest.NewServer(p)
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	c, _, resp := connect(t, addr, "example.com:443")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("answered %d", resp.StatusCode)
	}
	if _, _, resp := connect(t, addr, "example.com:443"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one too many: answered %d", resp.StatusCode)
	}
	c.Close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, _, resp := connect(t, addr, "example.com:443"); resp.StatusCode == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a closed tunnel keeps its place")
		}
	}
	p.Close() // ends the last tunnel before the server waits for it
}

func TestServeHoldsConnectionsBack(t *testing.T) {
	w := exampleWorld()
	w.echo(t, "93.184.216.34:443")
	opts := w.options()
	opts.MaxConns = 2
	_, addr := start(t, toExample, opts)
	first, _, _ := connect(t, addr, "example.com:443")
	connect(t, addr, "example.com:443")
	third := make(chan int, 1)
	go func() {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			third <- 0
			return
		}
		defer c.Close()
		io.WriteString(c, "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
		if err != nil {
			third <- 0
			return
		}
		third <- resp.StatusCode
	}()
	select {
	case code := <-third:
		t.Fatalf("the third connection was answered %d beside two others", code)
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	if code := <-third; code != 200 {
		t.Errorf("after one was closed: %d", code)
	}
}

func TestHeaderLimit(t *testing.T) {
	w := exampleWorld()
	opts := w.options()
	opts.MaxHeaderBytes = 1 << 10
	_, addr := start(t, toExample, opts)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nX-Long: %s\r\n\r\n", strings.Repeat("a", 64<<10))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answered %d", resp.StatusCode)
	}
}

func TestLogNamesHostAndNoSecret(t *testing.T) {
	w := exampleWorld()
	var out bytes.Buffer
	opts := w.options()
	opts.Log = slog.New(slog.NewTextHandler(&out, nil))
	p, addr := start(t, toExample, opts)
	req, _ := http.NewRequest(http.MethodGet, "http://other.example/path?token=hunter2", nil)
	req.Header.Set("Authorization", "Bearer hunter2")
	resp, err := client(t, addr).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	p.Close()
	if s := out.String(); !strings.Contains(s, "other.example") || strings.Contains(s, "hunter2") || strings.Contains(s, "path") {
		t.Errorf("logged %q", s)
	}
}
