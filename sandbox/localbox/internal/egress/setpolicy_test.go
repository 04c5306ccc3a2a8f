package egress_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// twoNames is a world in which example.com and other.example answer.
func twoNames(t *testing.T) *world {
	w := &world{names: map[string][]string{
		"example.com.": {"93.184.216.34"}, "other.example.": {"93.184.216.35"}, "moved.example.": {"93.184.216.34"},
	}}
	w.echo(t, "93.184.216.34:443")
	w.echo(t, "93.184.216.35:443")
	return w
}

// alive reports whether a tunnel to an echo server still carries.
func alive(c net.Conn, br *bufio.Reader) bool {
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		return false
	}
	line, err := br.ReadString('\n')
	return err == nil && line == "ping\n"
}

func TestSetPolicyCutsTunnels(t *testing.T) {
	w := twoNames(t)
	p, addr := start(t, full, w.options())
	kept, keptReader, _ := connect(t, addr, "example.com:443")
	cut, cutReader, _ := connect(t, addr, "other.example:443")
	byNumber, byNumberReader, _ := connect(t, addr, "93.184.216.34:443")
	if !alive(kept, keptReader) || !alive(cut, cutReader) || !alive(byNumber, byNumberReader) {
		t.Fatal("the tunnels do not carry")
	}
	p.SetPolicy(list)
	if _, err := cutReader.ReadByte(); err == nil {
		t.Error("a tunnel to what is not allowed any more gives bytes")
	}
	if _, err := byNumberReader.ReadByte(); err == nil {
		t.Error("a tunnel to a number that is not allowed any more gives bytes")
	}
	if !alive(kept, keptReader) {
		t.Error("a tunnel to what is still allowed was cut")
	}
	if _, _, resp := connect(t, addr, "other.example:443"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a new tunnel: %s", resp.Status)
	}
	p.SetPolicy(driver.Network{})
	if _, err := keptReader.ReadByte(); err == nil {
		t.Error("a tunnel is left without a network")
	}
	p.SetPolicy(full)
	if c, br, resp := connect(t, addr, "other.example:443"); resp.StatusCode != http.StatusOK || !alive(c, br) {
		t.Errorf("a tunnel once allowed again: %s", resp.Status)
	}
}

// A connection that is kept for the next request is none that is allowed.
func TestSetPolicyAndKeptConnections(t *testing.T) {
	w := &world{names: map[string][]string{"example.com.": {"93.184.216.34"}}}
	w.site(t, "93.184.216.34:80", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	p, addr := start(t, list, w.options())
	c := client(t, addr)
	get := func() (int, string) {
		resp, err := c.Get("http://example.com/")
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body(t, resp)
	}
	for range 2 {
		if status, text := get(); status != 200 || text != "hello" {
			t.Fatalf("%d %q", status, text)
		}
	}
	p.SetPolicy(driver.Network{Mode: driver.NetworkAllowlist, Domains: []string{"other.example"}})
	if status, text := get(); status != http.StatusForbidden || !strings.Contains(text, "Network.Domains") {
		t.Errorf("not allowed any more: %d %q", status, text)
	}
	p.SetPolicy(list)
	if status, _ := get(); status != 200 {
		t.Errorf("allowed again: %d", status)
	}
}

// A connection that is being made while the policy changes is held against the
// new one.
func TestSetPolicyWhileDialing(t *testing.T) {
	for _, tc := range []struct {
		name   string
		next   driver.Network
		status int
	}{
		{"to none", driver.Network{}, http.StatusForbidden},
		{"to a list without it", driver.Network{Mode: driver.NetworkAllowlist, Domains: []string{"other.example"}}, http.StatusForbidden},
		{"to a list with it", list, http.StatusOK},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := twoNames(t)
			opts := w.options()
			dialing, goOn := make(chan struct{}), make(chan struct{})
			var made net.Conn
			opts.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				close(dialing)
				<-goOn
				c, err := w.dial(ctx, network, address)
				made = c
				return c, err
			}
			p, addr := start(t, full, opts)
			go func() {
				<-dialing
				p.SetPolicy(tc.next)
				close(goOn)
			}()
			c, br, resp := connect(t, addr, "example.com:443")
			if resp.StatusCode != tc.status {
				t.Fatalf("answered %s, want %d", resp.Status, tc.status)
			}
			if tc.status == http.StatusOK {
				if !alive(c, br) {
					t.Error("it does not carry")
				}
				return
			}
			if _, err := made.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the connection is left open: %v", err)
			}
		})
	}
}
