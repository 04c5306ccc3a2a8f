package sandboxtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) setNetworkTests() []test {
	return []test{
		{"OnAndOff", s.testSetNetwork},
		{"Narrower", s.testSetNetworkNarrower},
		{"Invalid", s.testSetNetworkInvalid},
		{"AfterTheEnd", s.testSetNetworkEnded},
	}
}

// setNetwork changes the network, or skips the test where that cannot be.
func (s *suite) setNetwork(t *testing.T, sb *sandbox.Sandbox, n sandbox.Network) {
	t.Helper()
	s.needs(t, SettingNet, sb.SetNetwork(s.context(t), n))
}

// asked is a CONNECT through the way out that the environment names.
type asked struct {
	status string // of the answer; "" when the environment names none
	in     io.WriteCloser
	cmd    *sandbox.Cmd
}

// asks sends a CONNECT, and keeps sending open: a proxy may take the end of that
// for a client that is gone.
func (s *suite) asks(t *testing.T, sb *sandbox.Sandbox, target string) *asked {
	t.Helper()
	proxy := strings.TrimPrefix(s.sh(t, sb, `echo "${HTTPS_PROXY:-}"`), "http://")
	if proxy = strings.TrimSuffix(proxy, "/"); proxy == "" {
		return &asked{}
	}
	a := &asked{cmd: sb.Command(s.context(t), s.probe(t, sb), "talk", proxy)}
	in, err := a.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.in = in
	t.Cleanup(func() { _ = a.end() })
	if _, err := fmt.Fprintf(in, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("CONNECT %s: %v", target, err)
	}
	a.status = strings.TrimSpace(line)
	return a
}

// end ends the command.
func (a *asked) end() error {
	if a.cmd == nil {
		return nil
	}
	_ = a.in.Close()
	_ = a.cmd.Signal(sandbox.SIGKILL)
	return a.cmd.Wait()
}

// testSetNetwork gives a sandbox that was made without a network one, and takes
// it away again. This machine's own loopback serves as what is outside, by an
// address that is allowed by number.
func (s *suite) testSetNetwork(t *testing.T) {
	sb, l := s.create(t, func(c *sandbox.Config) { c.Network = sandbox.Network{} }), echo(t)
	target := l.Addr().String()
	allowed := sandbox.Network{Mode: sandbox.NetworkAllowlist, CIDRs: []string{netip.MustParseAddrPort(target).Addr().String() + "/32"}}
	for range 2 {
		s.setNetwork(t, sb, allowed)
		switch a := s.asks(t, sb, target); {
		case a.status == "":
			s.lacks(t, SettingNet, "the way out is no proxy; this test knows no other")
		case !strings.Contains(a.status, " 200 "):
			t.Errorf("what is allowed: %q", a.status)
		}
		s.setNetwork(t, sb, sandbox.Network{Mode: sandbox.NetworkFull})
		if a := s.asks(t, sb, target); !strings.Contains(a.status, " 403 ") {
			t.Errorf("this machine from the full network: %q", a.status)
		}
		s.setNetwork(t, sb, sandbox.Network{})
		// There is no way out, or one that refuses.
		if a := s.asks(t, sb, target); a.status != "" && !strings.Contains(a.status, " 403 ") {
			t.Errorf("without a network: %q", a.status)
		}
	}
}

// testSetNetworkNarrower cuts what is open and not allowed any more.
func (s *suite) testSetNetworkNarrower(t *testing.T) {
	l := echo(t)
	target := l.Addr().String()
	sb := s.createWith(t, Allowlist, func(c *sandbox.Config) {
		c.Network = sandbox.Network{Mode: sandbox.NetworkAllowlist, CIDRs: []string{"127.0.0.1/32"}}
	})
	open := s.asks(t, sb, target)
	if open.status == "" {
		s.lacks(t, SettingNet, "the way out is no proxy; this test knows no other")
	}
	if !strings.Contains(open.status, " 200 ") {
		t.Fatalf("what is allowed: %q", open.status)
	}
	s.setNetwork(t, sb, sandbox.Network{Mode: sandbox.NetworkAllowlist, Domains: []string{"allowed.example"}})
	// Its other side is gone, so what it sends fails in the end.
	var err error
	for err == nil {
		_, err = open.in.Write(bytes.Repeat([]byte("x"), 1<<16))
	}
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("send into a tunnel that was cut: %v", err)
	}
	if a := s.asks(t, sb, target); !strings.Contains(a.status, " 403 ") {
		t.Errorf("what is not allowed any more: %q", a.status)
	}
}

func (s *suite) testSetNetworkInvalid(t *testing.T) {
	sb := s.create(t, nil)
	s.setNetwork(t, sb, sandbox.Network{Mode: sandbox.NetworkFull})
	err := sb.SetNetwork(s.context(t), sandbox.Network{Mode: sandbox.NetworkAllowlist, Domains: []string{"not a name"}})
	isErr(t, "a domain that is none", err, sandbox.ErrInvalid)
}

func (s *suite) testSetNetworkEnded(t *testing.T) {
	sb := s.create(t, nil)
	s.setNetwork(t, sb, sandbox.Network{Mode: sandbox.NetworkFull})
	if err := sb.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	isErr(t, "after the end", sb.SetNetwork(s.context(t), sandbox.Network{Mode: sandbox.NetworkFull}), sandbox.ErrEnded)
}
