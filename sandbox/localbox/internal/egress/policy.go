package egress

import (
	"net"
	"net/netip"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// SetPolicy replaces the policy. Tunnels and requests to what the new one does
// not allow are cut; the others go on. An entry that Check refuses matches
// nothing.
func (p *Proxy) SetPolicy(policy driver.Network) {
	r := compile(policy)
	own, err := p.own()
	p.mu.Lock()
	p.rules = r
	var cut []*farConn
	for c := range p.far {
		if err != nil || r.check(c.target, c.addr, own) != nil {
			cut = append(cut, c)
		}
	}
	p.mu.Unlock()
	for _, c := range cut {
		c.Close()
	}
}

// current gives the policy as it is now.
func (p *Proxy) current() *rules {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rules
}

// check decides about a target at one address.
func (r *rules) check(t target, a netip.Addr, own []netip.Addr) error {
	if err := r.target(t); err != nil {
		return err
	}
	return r.address(t, a, own)
}

// farConn is a connection to a far side, known to the proxy until it is closed.
type farConn struct {
	net.Conn
	proxy  *Proxy
	target target
	addr   netip.Addr
}

// keep takes a connection that was made under the policy made in. When the
// policy has changed meanwhile the new one decides.
func (p *Proxy) keep(conn net.Conn, made *rules, t target, a netip.Addr) (net.Conn, error) {
	c := &farConn{Conn: conn, proxy: p, target: t, addr: a}
	for {
		p.mu.Lock()
		r := p.rules
		if r == made {
			p.far[c] = struct{}{}
			p.mu.Unlock()
			return c, nil
		}
		p.mu.Unlock()
		own, err := p.own()
		if err == nil {
			err = r.check(t, a, own)
		}
		if err != nil {
			conn.Close()
			return nil, err
		}
		made = r
	}
}

// Close closes the connection; the proxy forgets it.
func (c *farConn) Close() error {
	c.proxy.mu.Lock()
	delete(c.proxy.far, c)
	c.proxy.mu.Unlock()
	return c.Conn.Close()
}

// NetConn is the connection inside, which the kernel can splice.
func (c *farConn) NetConn() net.Conn { return c.Conn }
