package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// rules is a policy in the form that requests are held against.
type rules struct {
	mode  driver.NetworkMode
	exact map[string]struct{}
	below []string // ".example.com" for "*.example.com"
	cidrs []netip.Prefix
}

// Check reports what in a policy matches nothing or is not meant that way: a
// domain that is no host name or "*." and a host name, an address among the
// domains, a prefix that is not valid. The error names every entry. New does
// not call it.
func Check(policy driver.Network) error {
	var errs []error
	if policy.Mode < driver.NetworkNone || policy.Mode > driver.NetworkFull {
		errs = append(errs, fmt.Errorf("network mode %d is unknown", policy.Mode))
	}
	for _, d := range policy.Domains {
		if _, _, err := parseDomain(d); err != nil {
			errs = append(errs, err)
		}
	}
	for _, c := range policy.CIDRs {
		if _, ok := unmapPrefix(c); !ok {
			errs = append(errs, fmt.Errorf("address range %v is not valid", c))
		}
	}
	return errors.Join(errs...)
}

// parseDomain reads an entry of Domains.
func parseDomain(d string) (name string, wildcard bool, err error) {
	name, wildcard = strings.CutPrefix(d, "*.")
	if strings.Contains(name, ":") || endsInNumber(strings.TrimSuffix(name, ".")) {
		return "", false, fmt.Errorf("domain %q is no name; addresses go in Network.CIDRs, and ports cannot be named", d)
	}
	if name, err = parseName(name); err != nil {
		return "", false, fmt.Errorf("domain %q: %w", d, err)
	}
	return name, wildcard, nil
}

// unmapPrefix turns a prefix within ::ffff:0:0/96 into the IPv4 one.
func unmapPrefix(c netip.Prefix) (netip.Prefix, bool) {
	if !c.IsValid() {
		return c, false
	}
	if a := c.Addr(); a.Is4In6() && c.Bits() >= 96 {
		c = netip.PrefixFrom(a.Unmap(), c.Bits()-96)
	}
	return c.Masked(), true
}

func compile(policy driver.Network) *rules {
	r := &rules{mode: policy.Mode, exact: make(map[string]struct{})}
	for _, d := range policy.Domains {
		switch name, wildcard, err := parseDomain(d); {
		case err != nil:
		case wildcard:
			r.below = append(r.below, "."+name)
		default:
			r.exact[name] = struct{}{}
		}
	}
	for _, c := range policy.CIDRs {
		if c, ok := unmapPrefix(c); ok {
			r.cidrs = append(r.cidrs, c)
		}
	}
	return r
}

// domain reports whether an entry of Domains matches name.
func (r *rules) domain(name string) bool {
	if _, ok := r.exact[name]; ok {
		return true
	}
	for _, suffix := range r.below {
		if len(name) > len(suffix) && strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

func (r *rules) listed(a netip.Addr) bool {
	for _, c := range r.cidrs {
		if c.Contains(a) {
			return true
		}
	}
	return false
}

// within reports whether an entry of CIDRs has a in it and is not larger than
// block, that is, whether somebody named that special block on purpose.
func (r *rules) within(block netip.Prefix, a netip.Addr) bool {
	for _, c := range r.cidrs {
		if c.Contains(a) && c.Addr().BitLen() == block.Addr().BitLen() && c.Bits() >= block.Bits() {
			return true
		}
	}
	return false
}

// target decides what can be decided before a name is looked up.
func (r *rules) target(t target) error {
	switch r.mode {
	case driver.NetworkFull:
	case driver.NetworkAllowlist:
		if t.name != "" && !r.domain(t.name) {
			return refuse(t, "its name is not on the list of this sandbox's network", fmt.Sprintf("add %q to Network.Domains", t.name))
		}
		if t.name == "" && !r.listed(t.addr) {
			return refuse(t, "its address is not on the list of this sandbox's network", fmt.Sprintf("add %q to Network.CIDRs", single(t.addr)))
		}
	default:
		return refuse(t, "this sandbox has no network", "create it with a Network that allows the host")
	}
	if t.port == 25 {
		return refuse(t, "port 25 is closed to every sandbox", "hand mail to a relay on port 587 or 465")
	}
	return nil
}

// address decides about one address of t, whose host is allowed already. own
// are the addresses of this machine's interfaces.
func (r *rules) address(t target, a netip.Addr, own []netip.Addr) error {
	if a.Zone() != "" {
		return prohibit(t, fmt.Sprintf("%s is an address with a zone", a), "no setting allows it")
	}
	a = a.Unmap()
	block, what, never := special(a)
	switch {
	case never:
		return prohibit(t, fmt.Sprintf("%s is %s", a, what), "no setting allows it")
	case what != "" && !r.within(block, a):
		return prohibit(t, fmt.Sprintf("%s is %s", a, what), fmt.Sprintf("if that is intended, add %q to Network.CIDRs", single(a)))
	case a.IsLoopback():
		return nil // named explicitly, or it would have been refused above
	}
	for _, o := range own {
		if o == a && !r.within(single(a), a) {
			return prohibit(t, fmt.Sprintf("%s is an address of the machine that runs the sandbox", a), fmt.Sprintf("if that is intended, add %q to Network.CIDRs", single(a)))
		}
	}
	return nil
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
