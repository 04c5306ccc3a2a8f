package egress

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// FuzzTarget holds the parser to having one spelling of each target, and the
// matcher to a slower reading of the same rule.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{
		"example.com:443", "EXAMPLE.com.:80", "a.example.com", "[::1]:443", "[::ffff:127.0.0.1]", "127.1:80", "0x7f.1:1",
		"2130706433", "1.2.3.4:65535", "[fe80::1%eth0]:1", "a..b", "xn--bcher-kva.example:443", "b\u00fccher.example:1", "user@h:1", "::1", ":", "",
	} {
		f.Add(s, "*.example.com")
	}
	f.Fuzz(func(t *testing.T, s, domain string) {
		got, err := parseTarget(s, 443)
		if err != nil {
			return
		}
		again, err := parseTarget(got.String(), 0)
		if err != nil || again != got {
			t.Fatalf("%q is %v, and that is %v, %v", s, got, again, err)
		}
		if (got.name == "") != got.addr.IsValid() || got.port == 0 || got.addr.Zone() != "" || got.addr.Is4In6() {
			t.Fatalf("%q is %#v", s, got)
		}
		if got.name == "" {
			return
		}
		if got.name != strings.ToLower(got.name) || strings.HasSuffix(got.name, ".") || strings.ContainsAny(got.name, ":/@%[] \x00") {
			t.Fatalf("name %q", got.name)
		}
		if _, err := netip.ParseAddr(got.name); err == nil {
			t.Fatalf("name %q is an address", got.name)
		}
		r := compile(driver.Network{Mode: driver.NetworkAllowlist, Domains: []string{domain}})
		if r.domain(got.name) != slowly(domain, got.name) {
			t.Fatalf("%q matches %q: %v", domain, got.name, r.domain(got.name))
		}
	})
}

// slowly matches label by label from the end.
func slowly(domain, name string) bool {
	rest, wildcard, err := parseDomain(domain)
	if err != nil {
		return false
	}
	want, have := strings.Split(rest, "."), strings.Split(name, ".")
	if wildcard && len(have) <= len(want) || !wildcard && len(have) != len(want) {
		return false
	}
	for i := range want {
		if want[len(want)-1-i] != have[len(have)-1-i] {
			return false
		}
	}
	return true
}

// FuzzAddress holds the address check to the standard library's opinion of
// what is not public, in every mode that names nothing.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "8.8.8.8", "2606:4700::1111"} {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		r := compile(driver.Network{Mode: driver.NetworkFull})
		err := r.address(target{addr: a, port: 443}, a, nil)
		for _, v := range []netip.Addr{a, a.Unmap(), embedded(a)} {
			if err == nil && (!v.IsGlobalUnicast() || v.IsPrivate() || v.IsLoopback() || v.IsLinkLocalUnicast()) {
				t.Fatalf("%v is allowed, and is %v", a, v)
			}
		}
	})
}

func embedded(a netip.Addr) netip.Addr {
	if b := a.As16(); a.Is6() && nat64.Contains(a) {
		return netip.AddrFrom4([4]byte(b[12:]))
	} else if a.Is6() && b[0] == 0x20 && b[1] == 0x02 {
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}
