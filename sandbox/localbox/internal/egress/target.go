package egress

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// target is where a request wants to go: a name or an address, and a port.
type target struct {
	name string     // lower case, no final dot; empty when it is an address
	addr netip.Addr // unmapped, without a zone; invalid when it is a name
	port uint16
}

func (t target) host() string {
	if t.name != "" {
		return t.name
	}
	return t.addr.String()
}

func (t target) String() string {
	if t.name != "" {
		return t.name + ":" + strconv.Itoa(int(t.port))
	}
	return netip.AddrPortFrom(t.addr, t.port).String()
}

// parseTarget reads "host:port", "host" (with byDefault as the port, unless
// that is 0) and the bracketed forms of IPv6. It takes one spelling of each
// address: what another parser might read as a number, 0x7f.1 or 2130706433 or
// 127.1, is refused and not looked up.
func parseTarget(s string, byDefault uint16) (target, error) {
	host, port, err := splitPort(s, byDefault)
	if err != nil {
		return target{}, err
	}
	t := target{port: port}
	if strings.ContainsAny(host, ":[]") {
		t.addr, err = parseIPv6(host)
		return t, err
	}
	if name := strings.TrimSuffix(host, "."); endsInNumber(name) {
		a, err := netip.ParseAddr(name)
		if err != nil {
			return target{}, fmt.Errorf("host %q is not an address in its plain form; write four decimal numbers", host)
		}
		t.addr = a
		return t, nil
	}
	t.name, err = parseName(host)
	return t, err
}

func splitPort(s string, byDefault uint16) (host string, port uint16, err error) {
	host, digits := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && i > strings.LastIndexByte(s, ']') {
		host, digits = s[:i], s[i+1:]
	}
	if digits == "" {
		if byDefault == 0 {
			return "", 0, fmt.Errorf("target %q has no port", s)
		}
		return host, byDefault, nil
	}
	if len(digits) > 5 || strings.Trim(digits, "0123456789") != "" {
		return "", 0, fmt.Errorf("target %q has a port that is no number", s)
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("target %q has a port that is not in 1 to 65535", s)
	}
	return host, uint16(n), nil
}

func parseIPv6(host string) (netip.Addr, error) {
	inner, ok := strings.CutPrefix(host, "[")
	if inner, ok = cutSuffixIf(ok, inner, "]"); !ok {
		return netip.Addr{}, fmt.Errorf("host %q is no name; an IPv6 address goes in brackets", host)
	}
	a, err := netip.ParseAddr(inner)
	switch {
	case err != nil || !a.Is6():
		return netip.Addr{}, fmt.Errorf("host %q is no IPv6 address", host)
	case a.Zone() != "":
		return netip.Addr{}, fmt.Errorf("host %q has a zone; addresses with a zone are this machine's own links", host)
	}
	return a.Unmap(), nil
}

func cutSuffixIf(ok bool, s, suffix string) (string, bool) {
	if !ok {
		return s, false
	}
	return strings.CutSuffix(s, suffix)
}

// endsInNumber reports whether the last label reads as a number, as the URL
// standard's host parser decides that a host must be an IPv4 address.
func endsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if last == "" {
		return false
	}
	if strings.Trim(last, "0123456789") == "" {
		return true
	}
	hex, ok := strings.CutPrefix(strings.ToLower(last), "0x")
	return ok && strings.Trim(hex, "0123456789abcdef") == ""
}

// parseName checks a host name and brings it into the one form that is
// compared: lower case, without the final dot. Names outside ASCII are refused
// rather than mapped, since two mappings that differ would be a way around.
func parseName(host string) (string, error) {
	name := strings.TrimSuffix(host, ".")
	if name == "" || len(name) > 253 {
		return "", fmt.Errorf("host %q is not 1 to 253 characters long", clip(host))
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("host %q has a part that is not 1 to 63 characters long", clip(host))
		}
		for i := range len(label) {
			if !nameByte(label[i]) {
				return "", fmt.Errorf("host %q has a character that host names do not have; write other alphabets in their xn-- form", clip(host))
			}
		}
	}
	return strings.ToLower(name), nil
}

func nameByte(c byte) bool {
	return c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "..."
	}
	return s
}
