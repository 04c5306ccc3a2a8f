package sandboxtest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) networkTests() []test {
	return []test{
		{"NoneReachesNothing", s.testNoNetwork},
		{"LoopbackInside", s.testLoopback},
		{"AllowlistRefuses", s.testAllowlist},
		{"Listen", s.testListen},
		{"ListenCloses", s.testListenCloses},
		{"Dial", s.testDial},
		{"DialNothing", s.testDialNothing},
		{"Ports", s.testPorts},
	}
}

// echo serves on this machine's loopback, which no sandbox may reach.
func echo(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skipf("this machine has no loopback to listen on: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go serveEcho(l)
	return l
}

// serveEcho answers every connection with what it sent, until l is closed.
func serveEcho(l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		})
	}
}

func (s *suite) testNoNetwork(t *testing.T) {
	info, err := s.shared.Info(s.context(t))
	if err != nil {
		t.Fatal(err)
	}
	if reason, not := info.Unenforced["Network"]; not {
		s.lacks(t, NoNetwork, "not enforced: "+reason)
	}
	probe, l := s.probe(t, s.shared), echo(t)
	for _, address := range []string{l.Addr().String(), "169.254.169.254:80", "192.0.2.1:80", "[2001:db8::1]:80"} {
		cmd := s.shared.Command(s.context(t), probe, "dial", address)
		cmd.Stdin = strings.NewReader("hello")
		if out, err := cmd.Output(); err == nil {
			t.Errorf("dial %s from a sandbox without network: %q", address, out)
		}
	}
}

// listening starts the probe's echo server inside.
func (s *suite) listening(t *testing.T, sb *sandbox.Sandbox, address string) (port string) {
	t.Helper()
	cmd := sb.Command(s.context(t), s.probe(t, sb), "listen", address)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Signal(sandbox.SIGKILL)
		_ = cmd.Wait()
	})
	port, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(port)
}

func (s *suite) testLoopback(t *testing.T) {
	port := s.listening(t, s.shared, "127.0.0.1:0")
	cmd := s.shared.Command(s.context(t), s.probe(t, s.shared), "dial", "127.0.0.1:"+port)
	cmd.Stdin = strings.NewReader("around")
	out, err := cmd.Output()
	if err != nil || string(out) != "around" {
		t.Errorf("loopback inside: %q, %v", out, err)
	}
}

func (s *suite) testAllowlist(t *testing.T) {
	sb := s.createWith(t, Allowlist, func(c *sandbox.Config) {
		c.Network = sandbox.Network{Mode: sandbox.NetworkAllowlist, Domains: []string{"allowed.example"}}
	})
	probe, l := s.probe(t, sb), echo(t)
	cmd := sb.Command(s.context(t), probe, "dial", l.Addr().String())
	cmd.Stdin = strings.NewReader("hello")
	if out, err := cmd.Output(); err == nil {
		t.Errorf("dial this machine from behind an allowlist: %q", out)
	}
	// Where the allowlist is a proxy, the environment says so, and it refuses.
	proxy := strings.TrimPrefix(s.sh(t, sb, `echo "${HTTPS_PROXY:-${https_proxy:-}}"`), "http://")
	if proxy = strings.TrimSuffix(proxy, "/"); proxy == "" {
		return
	}
	for _, target := range []string{"refused.example:443", l.Addr().String(), "169.254.169.254:80", "localhost:80"} {
		cmd := sb.Command(s.context(t), probe, "dial", proxy)
		cmd.Stdin = strings.NewReader(fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", target, target))
		out, err := cmd.Output()
		status, _, _ := bytes.Cut(out, []byte("\r\n"))
		if err != nil || bytes.Contains(status, []byte(" 200")) {
			t.Errorf("CONNECT %s through the proxy: %q, %v; want a refusal", target, status, err)
		}
	}
}

func (s *suite) testListen(t *testing.T) {
	l, err := s.shared.Listen(s.context(t), "127.0.0.1:0")
	s.needs(t, Listening, err)
	served := make(chan struct{})
	go func() { defer close(served); serveEcho(l) }()
	probe := s.probe(t, s.shared)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			want := strings.Repeat(fmt.Sprintf("%d", i), 200_000)
			cmd := s.shared.Command(s.context(t), probe, "dial", l.Addr().String())
			cmd.Stdin = strings.NewReader(want)
			out, err := cmd.Output()
			if err != nil || string(out) != want {
				t.Errorf("dial out to this process: %d bytes of %d, %v", len(out), len(want), err)
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-served
}

func (s *suite) testListenCloses(t *testing.T) {
	l, err := s.shared.Listen(s.context(t), "127.0.0.1:0")
	s.needs(t, Listening, err)
	accepted := make(chan error, 1)
	go func() { _, err := l.Accept(); accepted <- err }()
	address := l.Addr().String()
	_, err = s.shared.Listen(s.context(t), address)
	isErr(t, "Listen where one listens", err, syscall.EADDRINUSE)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	isErr(t, "Accept after Close", <-accepted, net.ErrClosed)
	cmd := s.shared.Command(s.context(t), s.probe(t, s.shared), "dial", address)
	if err := cmd.Run(); err == nil {
		t.Error("a closed listener still answers inside")
	}
	again, err := s.shared.Listen(s.context(t), address)
	if err != nil {
		t.Errorf("Listen where one listened: %v", err)
	} else if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.shared.Listen(s.context(t), "not an address"); err == nil {
		t.Error("Listen accepted an address that is none")
	}
	if l, err := s.shared.Listen(s.context(t), "192.0.2.1:1"); err == nil {
		_ = l.Close()
		t.Error("Listen accepted an address that is not loopback")
	}
}

func (s *suite) testDial(t *testing.T) {
	port := s.listening(t, s.shared, "127.0.0.1:0")
	conn, err := s.shared.Dial(s.context(t), "127.0.0.1:"+port)
	s.needs(t, Dialing, err)
	checkEcho(t, conn)
}

// checkEcho sends more than a socket buffers, so that both ways work at once.
func checkEcho(t *testing.T, conn net.Conn) {
	t.Helper()
	defer conn.Close()
	want := bytes.Repeat([]byte("echo\x00\xff"), 1<<18)
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(want)
		sent <- err
	}()
	got := make([]byte, len(want))
	_, err := io.ReadFull(conn, got)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("echo from inside: %v", err)
	}
	if err := <-sent; err != nil {
		t.Errorf("send: %v", err)
	}
}

func (s *suite) testDialNothing(t *testing.T) {
	conn, err := s.shared.Dial(s.context(t), "127.0.0.1:1")
	if err == nil {
		_ = conn.Close()
		t.Fatal("dialled a port at which nobody listens")
	}
	for _, address := range []string{"192.0.2.1:80", "nonsense"} {
		if conn, err := s.shared.Dial(s.context(t), address); err == nil {
			_ = conn.Close()
			t.Errorf("dialled %s, which is not inside", address)
		}
	}
}

func (s *suite) testPorts(t *testing.T) {
	sb := s.createWith(t, Ports, func(c *sandbox.Config) { c.Ports = []int{8123} })
	s.listening(t, sb, "127.0.0.1:8123")
	info, err := sb.Info(s.context(t))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(s.context(t), "tcp", info.Ports[8123])
	if err != nil {
		t.Fatalf("dial port 8123 at %q: %v", info.Ports[8123], err)
	}
	checkEcho(t, conn)
}
