package egress

import "net/netip"

// block is a range of addresses that are not hosts of the public internet.
type block struct {
	prefix netip.Prefix
	what   string
	never  bool // not even when CIDRs names it
}

func blocks(rows ...[2]string) []block {
	var out []block
	for _, row := range rows {
		what, never := row[1], false
		if what[0] == '!' {
			what, never = what[1:], true
		}
		out = append(out, block{netip.MustParsePrefix(row[0]), what, never})
	}
	return out
}

// specialIPv4 is IANA's IPv4 Special-Purpose Address Registry (RFC 6890 and its
// updates) with multicast and the reserved end, and one public address that is
// a cloud's own: Azure's, which answers as part of every virtual machine's platform.
// The clouds' other metadata addresses are within these blocks: 169.254.169.254,
// Alibaba's 100.100.100.200, Oracle's 192.0.0.192.
var specialIPv4 = blocks(
	[2]string{"0.0.0.0/8", "!an unspecified address"},
	[2]string{"10.0.0.0/8", "a private address"},
	[2]string{"100.64.0.0/10", "an address of a carrier's own network"},
	[2]string{"127.0.0.0/8", "this machine's loopback"},
	[2]string{"168.63.129.16/32", "a cloud platform's own address"},
	[2]string{"169.254.0.0/16", "a link-local address, where clouds keep metadata and credentials"},
	[2]string{"172.16.0.0/12", "a private address"},
	[2]string{"192.0.0.0/24", "an address set aside for protocols"},
	[2]string{"192.0.2.0/24", "a documentation address"},
	[2]string{"192.88.99.0/24", "a 6to4 relay"},
	[2]string{"192.168.0.0/16", "a private address"},
	[2]string{"198.18.0.0/15", "a benchmark address"},
	[2]string{"198.51.100.0/24", "a documentation address"},
	[2]string{"203.0.113.0/24", "a documentation address"},
	[2]string{"224.0.0.0/4", "!a multicast address"},
	[2]string{"240.0.0.0/4", "!a reserved address"},
)

// specialIPv6 is what of IANA's IPv6 registry lies within 2000::/3, and the
// blocks outside of it that may be named on purpose. The rest outside of
// 2000::/3 is no global unicast address (RFC 4291) and is refused as a whole.
// The first block that contains an address counts.
var specialIPv6 = blocks(
	[2]string{"::1/128", "this machine's loopback"},
	[2]string{"64:ff9b:1::/48", "a translated IPv4 address"},
	[2]string{"::/8", "!an address that stands for something else"},
	[2]string{"2001::/23", "an address set aside for protocols"},
	[2]string{"2001:db8::/32", "a documentation address"},
	[2]string{"2002::/16", "a 6to4 address, which stands for an IPv4 one"},
	[2]string{"3fff::/20", "a documentation address"},
	[2]string{"fc00::/7", "a unique local address"},
	[2]string{"fe80::/10", "a link-local address"},
	[2]string{"fec0::/10", "a site-local address"},
	[2]string{"ff00::/8", "!a multicast address"},
)

var (
	global = netip.MustParsePrefix("2000::/3")
	nat64  = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	any6   = netip.MustParsePrefix("::/0")
)

// special says what keeps an address from being a host of the public internet:
// the block it is in and what that block is, or "" when it is such a host.
func special(a netip.Addr) (in netip.Prefix, what string, never bool) {
	a = a.Unmap()
	if a.Is4() {
		return lookUp(specialIPv4, a)
	}
	if nat64.Contains(a) {
		return specialNAT64(a)
	}
	if in, what, never = lookUp(specialIPv6, a); what == "" && !global.Contains(a) {
		return any6, "no address of the public internet", true
	}
	return in, what, never
}

// specialNAT64 judges the IPv4 address that a translated one stands for. Its
// block is that of the IPv4 address, mapped into the prefix.
func specialNAT64(a netip.Addr) (in netip.Prefix, what string, never bool) {
	b := a.As16()
	v4 := netip.AddrFrom4([4]byte(b[12:]))
	if in, what, never = lookUp(specialIPv4, v4); what == "" {
		return in, "", false
	}
	return netip.PrefixFrom(a, 96+in.Bits()).Masked(), what + ", translated", never
}

func lookUp(table []block, a netip.Addr) (in netip.Prefix, what string, never bool) {
	for _, b := range table {
		if b.prefix.Contains(a) {
			return b.prefix, b.what, b.never
		}
	}
	return netip.Prefix{}, "", false
}
