package modalbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"time"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/internal/relay"
)

// tunnelTimeout is how long Modal may take to make the tunnels.
const tunnelTimeout = 50 * time.Second

// ports says where the tunnels can be reached.
func (b *box) ports(ctx context.Context) (map[int]string, error) {
	b.mu.Lock()
	known := maps.Clone(b.tunnels)
	b.mu.Unlock()
	if known != nil {
		return known, nil
	}
	b.relayMu.Lock() // the client's handle keeps them too, unprotected
	all, err := b.sb.Tunnels(ctx, tunnelTimeout, nil)
	b.relayMu.Unlock()
	if err != nil {
		return nil, b.explain(ctx, "look up the tunnels", err)
	}
	found := make(map[int]string, len(all))
	for port, t := range all {
		host, number := t.TLSSocket()
		if !b.rec.encrypted {
			if host, number, err = t.TCPSocket(); err != nil {
				continue // made by something else
			}
		}
		found[port] = net.JoinHostPort(host, strconv.Itoa(number))
	}
	b.mu.Lock()
	b.tunnels = found
	b.mu.Unlock()
	return maps.Clone(found), nil
}

// SetNetwork implements driver.NetworkSetter.
func (b *box) SetNetwork(ctx context.Context, n driver.Network) error {
	if err := b.usable(ctx); err != nil {
		return err
	}
	cidrs, domains := allowlists(n)
	err := b.sb.UpdateNetworkPolicy(ctx, &modal.SandboxUpdateNetworkPolicyParams{OutboundCIDRAllowlist: cidrs, OutboundDomainAllowlist: domains})
	return b.explain(ctx, "change the network", err)
}

// Listen implements driver.Listener, by a relay that runs inside.
func (b *box) Listen(ctx context.Context, address string) (net.Listener, error) {
	r, err := b.relayFor(ctx, address)
	if err != nil {
		return nil, err
	}
	l, err := r.Listen(ctx, address)
	if err != nil {
		return nil, b.explain(ctx, "listen", err)
	}
	return l, nil
}

// Dial implements driver.Dialer, by the same relay.
func (b *box) Dial(ctx context.Context, address string) (net.Conn, error) {
	r, err := b.relayFor(ctx, address)
	if err != nil {
		return nil, err
	}
	c, err := r.Dial(ctx, address)
	if err != nil {
		return nil, b.explain(ctx, "dial", err)
	}
	return c, nil
}

// relayFor gives the relay, starting it when it is first needed or has ended.
func (b *box) relayFor(ctx context.Context, address string) (*relay.Relay, error) {
	if err := b.usable(ctx); err != nil {
		return nil, err
	}
	if a, err := netip.ParseAddrPort(address); err != nil || !a.Addr().IsLoopback() {
		return nil, fmt.Errorf("%w: address %q: use a loopback address inside and a port, such as 127.0.0.1:8080", driver.ErrInvalid, address)
	}
	b.relayMu.Lock()
	defer b.relayMu.Unlock()
	if b.relay != nil && b.relay.Alive() {
		return b.relay, nil
	}
	if b.relay != nil {
		_ = b.relay.Close()
		b.relay = nil
	}
	r, err := relay.Start(ctx, b)
	if err != nil {
		return nil, err
	}
	b.relay = r
	return r, nil
}

func (b *box) closeRelay() error {
	b.relayMu.Lock()
	defer b.relayMu.Unlock()
	if b.relay == nil {
		return nil
	}
	err := b.relay.Close()
	b.relay = nil
	if errors.Is(err, driver.ErrEnded) {
		return nil
	}
	return err
}
