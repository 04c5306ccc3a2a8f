package egress_test

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/egress"
)

var (
	list = driver.Network{Mode: driver.NetworkAllowlist, Domains: []string{"example.com", "*.sub.example.com"}}
	full = driver.Network{Mode: driver.NetworkFull}
)

// attempt says whether a CONNECT got a tunnel to the echo server.
func attempt(t *testing.T, w *world, policy driver.Network, to string) (status int, text string) {
	t.Helper()
	p, addr := start(t, policy, w.options())
	c, _, resp := connect(t, addr, to)
	defer p.Close()
	defer c.Close()
	if resp.StatusCode == http.StatusOK {
		return resp.StatusCode, ""
	}
	return resp.StatusCode, body(t, resp)
}

func TestNames(t *testing.T) {
	for _, tc := range []struct {
		to     string
		status int
		says   string
	}{
		{"example.com:443", 200, ""},
		{"EXAMPLE.com:443", 200, ""},
		{"example.com.:443", 200, ""},
		{"a.sub.example.com:443", 200, ""},
		{"a.b.sub.example.com:443", 200, ""},
		{"sub.example.com:443", 403, `add "sub.example.com" to Network.Domains`},
		{"xsub.example.com:443", 403, "Network.Domains"},
		{"evilexample.com:443", 403, "Network.Domains"},
		{"example.com.evil.net:443", 403, "Network.Domains"},
		{"www.example.com:443", 403, "Network.Domains"},
		{"localhost:443", 403, "Network.Domains"},
		{"example.com:25", 403, "port 25"},
		{"example.com:0", 400, "not in 1 to 65535"},
		{"example.com:65536", 400, "not in 1 to 65535"},
		{"example.com", 400, "no port"},
		{"93.184.216.34:443", 403, `add "93.184.216.34/32" to Network.CIDRs`},
		{"[2606:2800:220:1::1]:443", 403, `add "2606:2800:220:1::1/128" to Network.CIDRs`},
		{"2130706433:443", 400, "plain form"},
		{"0x7f000001:443", 400, "plain form"},
		{"0x7f.1:443", 400, "plain form"},
		{"127.1:443", 400, "plain form"},
		{"0177.0.0.1:443", 400, "plain form"},
		{"example.com..:443", 400, "63 characters"},
		{".example.com:443", 400, "63 characters"},
		{"exam%70le.com:443", 400, ""},
		{"user@example.com:443", 400, ""},
		{"[example.com]:443", 400, ""},
		{"[fe80::1%25eth0]:443", 400, "zone"},
		{"::1:443", 400, ""},
		{"exam!ple.com:443", 400, "character"},
	} {
		t.Run(tc.to, func(t *testing.T) {
			w := &world{names: map[string][]string{
				"example.com.": {"93.184.216.34"}, "a.sub.example.com.": {"93.184.216.34"}, "a.b.sub.example.com.": {"93.184.216.34"},
			}}
			w.echo(t, "93.184.216.34:443")
			status, text := attempt(t, w, list, tc.to)
			if status != tc.status || !strings.Contains(text, tc.says) {
				t.Errorf("answered %d %q, want %d with %q", status, text, tc.status, tc.says)
			}
			if asked, dialed := w.calls(); status != 200 && (len(asked) > 0 || len(dialed) > 0) {
				t.Errorf("a refused host was looked up (%v) or dialed (%v)", asked, dialed)
			}
		})
	}
}

// notPublic are addresses that no sandbox reaches unless one is named.
var notPublic = []string{
	"0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.9.9.9",
	"168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1",
	"192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.7", "224.0.0.1",
	"239.255.255.255", "240.0.0.1", "255.255.255.255",
	"::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:7f00:1",
	"64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1",
	"100::1", "2001::1", "2001:2::1", "2001:db8::1", "2002:7f00:1::1", "2002:a00:1::1", "3fff::1", "4000::1",
	"5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
}

func hostPort(addr string) string { return net.JoinHostPort(addr, "443") }

func TestFullReachesNothingPrivate(t *testing.T) {
	for _, addr := range notPublic {
		t.Run(addr, func(t *testing.T) {
			w := &world{names: map[string][]string{"rebind.example.": {addr}, "mixed.example.": {"93.184.216.34", addr}}}
			for _, to := range []string{hostPort(addr), "rebind.example:443", "mixed.example:443"} {
				if status, text := attempt(t, w, full, to); status != 403 {
					t.Errorf("%s: answered %d %q", to, status, text)
				}
			}
			if _, dialed := w.calls(); len(dialed) > 0 {
				t.Errorf("dialed %v", dialed)
			}
		})
	}
}

func TestFullReachesThePublic(t *testing.T) {
	for _, addr := range []string{"93.184.216.34", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::101:101", "2a00::1"} {
		t.Run(addr, func(t *testing.T) {
			w := &world{names: map[string][]string{"some.example.": {addr}}}
			w.echo(t, hostPort(addr))
			for _, to := range []string{hostPort(addr), "some.example:443"} {
				if status, text := attempt(t, w, full, to); status != 200 {
					t.Errorf("%s: answered %d %q", to, status, text)
				}
			}
		})
	}
}

func TestMappedIPv4IsTheIPv4Address(t *testing.T) {
	w := &world{}
	w.echo(t, "1.1.1.1:443")
	if status, text := attempt(t, w, full, "[::ffff:1.1.1.1]:443"); status != 200 {
		t.Errorf("answered %d %q", status, text)
	}
	policy := driver.Network{Mode: driver.NetworkAllowlist, CIDRs: cidrs("::ffff:1.1.1.0/120")}
	if status, text := attempt(t, w, policy, "1.1.1.1:443"); status != 200 {
		t.Errorf("a mapped range: answered %d %q", status, text)
	}
}

func TestRangesNamePrivateAddressesOnPurpose(t *testing.T) {
	machine := []net.Addr{
		&net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(8, 32)},
		&net.IPNet{IP: net.IPv4(10, 0, 0, 5), Mask: net.CIDRMask(24, 32)},
		&net.IPNet{IP: net.IPv4(93, 184, 216, 35), Mask: net.CIDRMask(24, 32)},
	}
	for _, tc := range []struct {
		name, cidr, addr string
		mode             driver.NetworkMode
		want             int
	}{
		{"private range", "10.0.0.0/8", "10.9.9.9", driver.NetworkAllowlist, 200},
		{"part of it", "10.9.0.0/16", "10.9.9.9", driver.NetworkAllowlist, 200},
		{"outside of it", "10.8.0.0/16", "10.9.9.9", driver.NetworkAllowlist, 403},
		{"everything is not on purpose", "0.0.0.0/0", "10.9.9.9", driver.NetworkAllowlist, 403},
		{"everything is the public", "0.0.0.0/0", "1.1.1.1", driver.NetworkAllowlist, 200},
		{"everything has no metadata", "0.0.0.0/0", "169.254.169.254", driver.NetworkAllowlist, 403},
		{"metadata on purpose", "169.254.169.254/32", "169.254.169.254", driver.NetworkAllowlist, 200},
		{"unique local", "fd00::/8", "fd00::7", driver.NetworkAllowlist, 200},
		{"all of IPv6", "::/0", "fd00::7", driver.NetworkAllowlist, 403},
		{"all of IPv6 is not loopback", "::/0", "::1", driver.NetworkAllowlist, 403},
		{"loopback on purpose", "127.0.0.0/8", "127.0.0.1", driver.NetworkAllowlist, 200},
		{"loopback in v6", "::1/128", "::1", driver.NetworkAllowlist, 200},
		{"full and one more", "10.0.0.0/8", "10.9.9.9", driver.NetworkFull, 200},
		{"full and another", "10.0.0.0/8", "192.168.0.1", driver.NetworkFull, 403},
		{"this machine within a range", "10.0.0.0/8", "10.0.0.5", driver.NetworkAllowlist, 403},
		{"this machine by itself", "10.0.0.5/32", "10.0.0.5", driver.NetworkAllowlist, 200},
		{"this machine's public address", "0.0.0.0/0", "93.184.216.35", driver.NetworkFull, 403},
		{"this machine's public address by itself", "93.184.216.35/32", "93.184.216.35", driver.NetworkFull, 200},
		{"never unspecified", "0.0.0.0/32", "0.0.0.0", driver.NetworkAllowlist, 403},
		{"never unspecified in v6", "::/128", "::", driver.NetworkAllowlist, 403},
		{"never multicast", "224.0.0.1/32", "224.0.0.1", driver.NetworkAllowlist, 403},
		{"translated range", "64:ff9b::a00:0/104", "64:ff9b::a00:1", driver.NetworkAllowlist, 200},
		{"translated everything", "64:ff9b::/96", "64:ff9b::a00:1", driver.NetworkAllowlist, 403},
		{"no network", "0.0.0.0/0", "1.1.1.1", driver.NetworkNone, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := &world{own: machine, names: map[string][]string{"named.example.": {tc.addr}}}
			w.echo(t, hostPort(tc.addr))
			policy := driver.Network{Mode: tc.mode, Domains: []string{"named.example"}, CIDRs: cidrs(tc.cidr)}
			if got, text := attempt(t, w, policy, hostPort(tc.addr)); got != tc.want {
				t.Errorf("by number: answered %d %q, want %d", got, text, tc.want)
			}
		})
	}
}

func TestNameInPrivateRange(t *testing.T) {
	w := &world{names: map[string][]string{"db": {"10.0.0.9"}, "db.corp.": {"10.0.0.9"}, "other.corp.": {"10.0.0.9"}}}
	w.echo(t, "10.0.0.9:443")
	policy := driver.Network{Mode: driver.NetworkAllowlist, Domains: []string{"db", "db.corp"}, CIDRs: cidrs("10.0.0.0/24")}
	for to, want := range map[string]int{"db:443": 200, "db.corp:443": 200, "other.corp:443": 403} {
		if got, text := attempt(t, w, policy, to); got != want {
			t.Errorf("%s: answered %d %q, want %d", to, got, text, want)
		}
	}
}

func TestUnknownInterfacesRefuse(t *testing.T) {
	w := &world{}
	opts := w.options()
	opts.InterfaceAddrs = func() ([]net.Addr, error) { return nil, errors.New("netlink is gone") }
	_, addr := start(t, full, opts)
	if _, _, resp := connect(t, addr, "1.1.1.1:443"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("answered %d without knowing this machine's addresses", resp.StatusCode)
	}
}

func TestCheck(t *testing.T) {
	good := driver.Network{Mode: driver.NetworkAllowlist, Domains: []string{"example.com", "*.example.com", "db"}, CIDRs: cidrs("10.0.0.0/8")}
	if err := egress.Check(good); err != nil {
		t.Errorf("Check: %v", err)
	}
	for _, d := range []string{"", "*", "*.", "a.*.b", "http://example.com", "example.com:443", "1.2.3.4", "*.1.2.3.4", "::1", "bücher.example", "a b"} {
		err := egress.Check(driver.Network{Mode: driver.NetworkAllowlist, Domains: []string{d}})
		if err == nil || !strings.Contains(err.Error(), "domain") {
			t.Errorf("Check of domain %q: %v", d, err)
		}
	}
	if err := egress.Check(driver.Network{Mode: 9}); err == nil {
		t.Error("mode 9 passed")
	}
	bad := driver.Network{Mode: driver.NetworkAllowlist, CIDRs: make([]netip.Prefix, 1)}
	if err := egress.Check(bad); err == nil {
		t.Error("the zero prefix passed")
	}
}
