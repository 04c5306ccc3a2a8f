package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Kind is what a tunnel speaks on this side.
type Kind int

// The kinds of tunnels.
const (
	Encrypted   Kind = iota // TLS, which ends here
	HTTP2                   // the same, for clients that speak HTTP/2 where they are offered it
	Unencrypted             // TCP
)

// Port is a port of a sandbox that is to be reachable.
type Port struct {
	Number int
	Kind   Kind
}

// Options say where a sandbox's tunnels lead, and whom they let in.
type Options struct {
	// Authority vouches for encrypted tunnels. It is needed.
	Authority *Authority
	// Dial connects to a loopback address inside of the sandbox. It is needed.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Allow is where connections may come from; empty means everywhere.
	Allow []netip.Prefix
	// Starting is until when a port at which nobody listens is tried again, since
	// its server may have been started only just now. Zero means not at all.
	Starting time.Time
	// Busy is called for each connection, or request, and what it returns when
	// that has ended. Nil means not at all.
	Busy func() (done func())
}

const (
	// handshakeTime bounds how long a client takes to say who it is.
	handshakeTime = 10 * time.Second
	// dialTime bounds how long the inside takes to answer.
	dialTime = 10 * time.Second
)

// Set is the tunnels of one sandbox. Its methods are safe for concurrent use.
type Set struct {
	opts    Options
	tunnels []Tunnel
	closers []io.Closer
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	conns   tracker
	running sync.WaitGroup
}

// Tunnel is where a port of a sandbox can be dialled.
type Tunnel struct {
	Port
	Host   string
	Public int // port
}

// Open opens a tunnel for each port. The caller closes them.
func Open(ports []Port, opts Options) (*Set, error) {
	s := &Set{opts: opts}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, p := range ports {
		if err := s.open(p); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func (s *Set) open(p Port) error {
	lis, err := listen()
	if err != nil {
		return err
	}
	s.closers = append(s.closers, lis)
	s.tunnels = append(s.tunnels, Tunnel{Port: p, Host: Host, Public: lis.Addr().(*net.TCPAddr).Port})
	s.running.Go(func() { s.accept(lis, p) })
	return nil
}

func listen() (net.Listener, error) { return net.Listen("tcp", net.JoinHostPort(Host, "0")) }

// Tunnels are in the order of the ports that Open got.
func (s *Set) Tunnels() []Tunnel { return slices.Clone(s.tunnels) }

// Close ends the tunnels and what goes through them, and waits until it has
// ended. It may be called again.
func (s *Set) Close() {
	s.stop()
	for _, c := range s.closers {
		c.Close()
	}
	s.conns.close()
	s.running.Wait()
}

func (s *Set) accept(lis net.Listener, p Port) {
	for {
		conn, err := lis.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !pause(s.ctx, acceptAfter) {
				return
			}
			continue
		}
		if !s.opts.allows(conn) || !s.conns.add(conn) {
			conn.Close()
			continue
		}
		s.running.Go(func() {
			defer s.conns.remove(conn)
			s.serve(conn, p)
		})
	}
}

// acceptAfter is how long to wait after an error of accept that passes, such as
// too many open files.
const acceptAfter = 50 * time.Millisecond

// pause waits that long. It reports false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (o *Options) allows(conn net.Conn) bool {
	if len(o.Allow) == 0 {
		return true
	}
	from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	return err == nil && slices.ContainsFunc(o.Allow, func(p netip.Prefix) bool { return p.Contains(from.Addr().Unmap()) })
}

func (o *Options) busy() (done func()) {
	if o.Busy == nil {
		return func() {}
	}
	return o.Busy()
}

// serve carries one connection to the sandbox.
func (s *Set) serve(conn net.Conn, p Port) {
	defer s.opts.busy()()
	if p.Kind != Unencrypted {
		secure, err := s.handshake(conn, p.Kind)
		if err != nil {
			return
		}
		defer secure.Close() // says goodbye, which closing conn alone does not
		conn = secure
	}
	inside, err := s.opts.dial(s.ctx, inner(p.Number))
	if err != nil {
		return // nobody listens; the client sees the connection closed, as on Modal
	}
	if !s.conns.add(inside) {
		inside.Close()
		return
	}
	defer s.conns.remove(inside)
	join(conn, inside)
}

// retryAfter is how long a server that may be starting is given between two tries.
const retryAfter = 25 * time.Millisecond

// dial connects to a loopback address inside of the sandbox.
func (o *Options) dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	for {
		conn, err := o.Dial(ctx, address)
		if err == nil || errors.Is(err, driver.ErrEnded) || !time.Now().Before(o.Starting) || !pause(ctx, retryAfter) {
			return conn, err
		}
	}
}

// inner is a port's address inside of the sandbox.
func inner(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (s *Set) handshake(conn net.Conn, kind Kind) (net.Conn, error) {
	config := s.opts.Authority.config()
	if kind == HTTP2 {
		config = s.opts.Authority.config("h2", "http/1.1")
	}
	secure := tls.Server(conn, config)
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTime)
	defer cancel()
	return secure, secure.HandshakeContext(ctx)
}

// join copies both ways until both sides have said all they have to say, or one
// of them cannot be written to.
func join(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, way := range []struct{ to, from net.Conn }{{a, b}, {b, a}} {
		wg.Go(func() {
			_, err := io.Copy(way.to, way.from)
			half, ok := way.to.(interface{ CloseWrite() error })
			if err == nil && ok {
				err = half.CloseWrite()
			}
			if err != nil || !ok {
				a.Close()
				b.Close()
			}
		})
	}
	wg.Wait()
	a.Close()
	b.Close()
}

// tracker knows the connections that are open. The zero value is empty.
type tracker struct {
	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

// add reports false when everything is closed already.
func (t *tracker) add(c net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	if t.open == nil {
		t.open = make(map[net.Conn]bool)
	}
	t.open[c] = true
	return true
}

// remove closes c and forgets it.
func (t *tracker) remove(c net.Conn) {
	c.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

func (t *tracker) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for c := range t.open {
		c.Close()
	}
}
