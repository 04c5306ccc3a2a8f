package modalemu

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/tunnel"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// openAuthority makes who vouches for tunnels, and tells whom clients are to
// trust in the file tunnel-ca.pem of the state directory.
func (s *Server) openAuthority() (err error) {
	if s.authority, err = tunnel.NewAuthority(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "tunnel-ca.pem"), s.authority.PEM(), 0o600)
}

// TunnelCA is the certificate, as PEM, of the authority that vouches for
// encrypted tunnels. It is another one each time a server is started.
func (s *Server) TunnelCA() []byte { return s.authority.PEM() }

// serverStart is how long after a sandbox's creation a server in it may take to
// listen. Modal is far enough away for a client not to notice.
const serverStart = 10 * time.Second

// portTunnels are a sandbox's tunnels.
type portTunnels struct{ set *tunnel.Set }

func (s *Server) openTunnels(_ context.Context, sb *sandbox, ports []*pb.PortSpec, allow []string) (tunnels, error) {
	opts, err := s.tunnelOptions(sb, allow)
	if err != nil {
		return nil, err
	}
	var wanted []tunnel.Port
	seen := make(map[uint32]bool)
	for _, p := range ports {
		if p.GetPort() < 1 || p.GetPort() > 65535 {
			return nil, invalid("port must be in [1, 65535], got %d", p.GetPort())
		}
		if seen[p.GetPort()] {
			return nil, invalid("port %d is there twice", p.GetPort())
		}
		seen[p.GetPort()] = true
		wanted = append(wanted, tunnel.Port{Number: int(p.GetPort()), Kind: tunnelKind(p)})
		if p.GetUnencrypted() { // as well, not instead
			wanted = append(wanted, tunnel.Port{Number: int(p.GetPort()), Kind: tunnel.Unencrypted})
		}
	}
	set, err := tunnel.Open(wanted, opts)
	if err != nil {
		return nil, err
	}
	return &portTunnels{set}, nil
}

func tunnelKind(p *pb.PortSpec) tunnel.Kind {
	if p.GetTunnelType() == pb.TunnelType_TUNNEL_TYPE_H2 {
		return tunnel.HTTP2
	}
	return tunnel.Encrypted
}

func (s *Server) tunnelOptions(sb *sandbox, allow []string) (tunnel.Options, error) {
	dialer, ok := sb.task.main.box.(driver.Dialer)
	if !ok {
		return tunnel.Options{}, refused("the ports of sandboxes cannot be reached here")
	}
	opts := tunnel.Options{Authority: s.authority, Busy: sb.task.busy, Starting: sb.createdAt.Add(serverStart)}
	opts.Dial = func(ctx context.Context, address string) (net.Conn, error) { return dialer.Dial(ctx, address) }
	for _, text := range allow {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return tunnel.Options{}, invalid("inbound CIDR '%s' is none", text)
		}
		opts.Allow = append(opts.Allow, prefix.Masked())
	}
	return opts, nil
}

func (p *portTunnels) data() []*pb.TunnelData {
	var all []*pb.TunnelData
	for _, t := range p.set.Tunnels() {
		if t.Kind != tunnel.Unencrypted {
			all = append(all, pb.TunnelData_builder{ContainerPort: uint32(t.Number), Host: t.Host, Port: uint32(t.Public)}.Build())
			continue
		}
		last := all[len(all)-1] // the same port, encrypted
		last.SetUnencryptedHost(t.Host)
		last.SetUnencryptedPort(uint32(t.Public))
	}
	return all
}

func (p *portTunnels) close() { p.set.Close() }

// connector is a sandbox's gateway for connect tokens, which is there once a
// token is. The zero value has none.
type connector struct {
	mu      sync.Mutex
	gateway *tunnel.Gateway
	closed  bool
}

// connectURL is where connect tokens of the sandbox are good.
func (s *Server) connectURL(sb *sandbox) (string, error) {
	c := &sb.connect
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return "", finished(sb.id)
	}
	if c.gateway == nil {
		opts, err := s.tunnelOptions(sb, sb.task.main.definition.GetInboundCidrAllowlist())
		if err != nil {
			return "", err
		}
		if c.gateway, err = tunnel.OpenGateway(opts, func(token string) (tunnel.Grant, error) { return s.granted(sb, token) }); err != nil {
			return "", err
		}
	}
	return c.gateway.URL(), nil
}

// granted is what a connect token allows, of this sandbox only.
func (s *Server) granted(sb *sandbox, token string) (tunnel.Grant, error) {
	c, err := s.tokens.check(forConnect, token)
	if err != nil {
		return tunnel.Grant{}, err
	}
	if c.Subject != sb.id {
		return tunnel.Grant{}, invalid("the token is for another sandbox")
	}
	return tunnel.Grant{Port: c.Port, Metadata: c.Metadata}, nil
}

func (c *connector) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.gateway != nil {
		c.gateway.Close()
	}
}
