package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"
)

const (
	maxAddresses = 16                     // of one name that are tried
	stagger      = 300 * time.Millisecond // before the next address is tried too, as in RFC 8305
)

// connect checks t and connects to it. The error is a *refusal.
func (p *Proxy) connect(ctx context.Context, t target) (net.Conn, error) {
	r := p.current()
	if err := r.target(t); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.DialTimeout)
	defer cancel()
	addrs, err := p.resolve(ctx, r, t)
	if err != nil {
		return nil, err
	}
	won := p.dialAny(ctx, addrs, t.port)
	if won.err != nil {
		return nil, unreached(t, won.err)
	}
	return p.keep(won.conn, r, t, won.addr)
}

// resolve gives the addresses of t, all of them checked.
func (p *Proxy) resolve(ctx context.Context, r *rules, t target) ([]netip.Addr, error) {
	addrs := []netip.Addr{t.addr}
	if t.name != "" {
		name := t.name
		if strings.Contains(name, ".") {
			name += "." // absolute
		}
		var err error
		if addrs, err = p.opts.Resolver.LookupNetIP(ctx, "ip", name); err != nil {
			return nil, unresolved(t, err)
		}
		if len(addrs) == 0 {
			return nil, unresolved(t, &net.DNSError{Name: t.name, IsNotFound: true})
		}
	}
	own, err := p.own()
	if err != nil {
		return nil, prohibit(t, "this machine's own addresses could not be read, so none can be told apart", "try again")
	}
	checked := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if err := r.address(t, a, own); err != nil {
			return nil, err
		}
		checked = append(checked, a.Unmap())
	}
	return checked[:min(len(checked), maxAddresses)], nil
}

// own gives the addresses of this machine's interfaces.
func (p *Proxy) own() ([]netip.Addr, error) {
	list, err := p.opts.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, ip.Unmap())
			}
		}
	}
	return own, nil
}

type dialed struct {
	addr netip.Addr
	conn net.Conn
	err  error
}

// dialAny connects to the first of the addresses that answers. It starts with
// the first and goes on to the next when one fails or takes long.
func (p *Proxy) dialAny(ctx context.Context, addrs []netip.Addr, port uint16) dialed {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialed)
	pending, errs := 0, []error(nil)
	timer := time.NewTimer(stagger)
	defer timer.Stop()
	for {
		if len(addrs) > 0 {
			addr := addrs[0]
			addrs = addrs[1:]
			pending++
			go func() {
				conn, err := p.opts.Dial(ctx, "tcp", netip.AddrPortFrom(addr, port).String())
				results <- dialed{addr, conn, err}
			}()
		}
		timer.Reset(stagger)
		select {
		case r := <-results:
			pending--
			if r.err == nil {
				cancel()
				drain(results, pending)
				return r
			}
			errs = append(errs, r.err)
		case <-timer.C:
		}
		if pending == 0 && len(addrs) == 0 {
			return dialed{err: errors.Join(errs...)}
		}
	}
}

// drain closes the connections of attempts that lost; their context is done.
func drain(results <-chan dialed, pending int) {
	for range pending {
		if r := <-results; r.err == nil {
			r.conn.Close()
		}
	}
}
