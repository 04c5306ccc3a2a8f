package egress

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/internal/boundlisten"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Resolver looks names up. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options adjusts a Proxy. The zero value, and a nil pointer, are the defaults.
type Options struct {
	// Resolver looks names up on the host; nil is Go's own resolver with the
	// host's settings. It is asked for "ip" and the name, made absolute by a
	// final dot when the name has a dot in it, so that the host's search list
	// adds nothing to it.
	Resolver Resolver
	// Dial connects to a checked address, always "tcp" and an "IP:port"; nil
	// is a net.Dialer's DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// InterfaceAddrs gives this machine's own addresses; nil is net.InterfaceAddrs.
	InterfaceAddrs func() ([]net.Addr, error)
	// MaxConns bounds the connections Serve has open and the requests and
	// tunnels in flight; 0 is 256. Connections beyond it wait to be accepted,
	// requests beyond it are answered 503.
	MaxConns int
	// MaxHeaderBytes bounds a request's header; 0 is 64 KiB.
	MaxHeaderBytes int
	// DialTimeout bounds looking a name up and connecting to it; 0 is 20 s.
	DialTimeout time.Duration
	// IdleTimeout ends a connection on which no byte has moved in either
	// direction for that long, or up to twice that; 0 is 10 minutes.
	IdleTimeout time.Duration
	// Log gets one line at LevelInfo for every target that was refused: host,
	// port and reason, never a path or a header. Nil logs nothing.
	Log *slog.Logger
}

// Proxy is a forward proxy for one sandbox: an http.Handler, safe for
// concurrent use. New makes one; the zero value is of no use.
type Proxy struct {
	opts   Options
	ctx    context.Context // done when Close is called
	cancel context.CancelFunc
	slots  chan struct{} // requests in flight
	direct *http.Transport
	plain  *httputil.ReverseProxy

	mu      sync.Mutex
	rules   *rules
	far     map[*farConn]struct{} // connections to the far sides
	closed  bool
	servers map[*http.Server]struct{}
	busy    sync.WaitGroup // calls of ServeHTTP
}

// New makes a proxy that applies policy. opts may be nil. An entry of the
// policy that Check refuses matches nothing. The caller closes the proxy.
func New(policy driver.Network, opts *Options) *Proxy {
	p := &Proxy{rules: compile(policy), far: make(map[*farConn]struct{}), servers: make(map[*http.Server]struct{})}
	if opts != nil {
		p.opts = *opts
	}
	p.opts.setDefaults()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.slots = make(chan struct{}, p.opts.MaxConns)
	p.direct = p.newTransport()
	p.plain = p.newPlain()
	return p
}

func (o *Options) setDefaults() {
	if o.Resolver == nil {
		o.Resolver = &net.Resolver{PreferGo: true}
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	if o.InterfaceAddrs == nil {
		o.InterfaceAddrs = net.InterfaceAddrs
	}
	o.MaxConns = orDefault(o.MaxConns, 256)
	o.MaxHeaderBytes = orDefault(o.MaxHeaderBytes, 64<<10)
	o.DialTimeout = orDefault(o.DialTimeout, 20*time.Second)
	o.IdleTimeout = orDefault(o.IdleTimeout, 10*time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func orDefault[T int | time.Duration](v, byDefault T) T {
	if v <= 0 {
		return byDefault
	}
	return v
}

// Serve accepts connections from l and serves them until Close, or until l
// fails. It closes l. After Close it returns http.ErrServerClosed.
func (p *Proxy) Serve(l net.Listener) error {
	bounded := boundlisten.New(l, p.opts.MaxConns)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	srv := &http.Server{
		Handler:           p,
		ReadHeaderTimeout: min(30*time.Second, p.opts.IdleTimeout),
		IdleTimeout:       min(2*time.Minute, p.opts.IdleTimeout),
		MaxHeaderBytes:    p.opts.MaxHeaderBytes,
		Protocols:         protocols,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
		BaseContext:       func(net.Listener) context.Context { return p.ctx },
	}
	if !p.addServer(srv) {
		bounded.Close()
		return http.ErrServerClosed
	}
	defer p.removeServer(srv)
	err := srv.Serve(bounded)
	if p.ctx.Err() != nil && !errors.Is(err, http.ErrServerClosed) {
		return http.ErrServerClosed // l was closed under a server that Close has not reached yet
	}
	return err
}

func (p *Proxy) addServer(srv *http.Server) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.servers[srv] = struct{}{}
	return true
}

func (p *Proxy) removeServer(srv *http.Server) {
	srv.Close() // connections that were open when the listener failed
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.servers, srv)
}

// Close ends the listeners, every request and every tunnel, and returns when
// they have ended. Requests that come later are answered 503. Calling it again
// does nothing; the error is always nil.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	servers := p.servers
	p.servers = make(map[*http.Server]struct{})
	p.mu.Unlock()
	p.cancel()
	for srv := range servers {
		srv.Close()
	}
	p.busy.Wait()
	p.direct.CloseIdleConnections()
	return nil
}

// enter counts a request in; leave must be called when it returns true.
func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	select {
	case p.slots <- struct{}{}:
		p.busy.Add(1)
		return true
	default:
		return false
	}
}

func (p *Proxy) leave() {
	<-p.slots
	p.busy.Done()
}

// Env is the environment that makes programs in the sandbox use the proxy that
// listens at address ("127.0.0.1:3128"): the variables of curl, git, npm, pip,
// Go, Node and the rest, in both spellings. Loopback is not sent to the proxy.
func Env(address string) []string {
	const direct = "localhost,127.0.0.1,::1"
	url := "http://" + address
	return []string{
		"HTTP_PROXY=" + url, "http_proxy=" + url,
		"HTTPS_PROXY=" + url, "https_proxy=" + url,
		"ALL_PROXY=" + url, "all_proxy=" + url,
		"NO_PROXY=" + direct, "no_proxy=" + direct,
		"NODE_USE_ENV_PROXY=1", // Node.js 22.21 and 24 follow the others only with this
	}
}
