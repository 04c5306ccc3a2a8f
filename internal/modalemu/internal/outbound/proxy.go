package outbound

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/internal/boundlisten"
	"github.com/vivarium-go/vivarium/internal/modalemu/internal/authority"
)

const (
	maxConns      = 256
	maxHeader     = 1 << 20 // as net/http's own
	headerTime    = 30 * time.Second
	idleTime      = 2 * time.Minute
	handshakeTime = 10 * time.Second
	// httpsPort is the only one at which tunnels end here: elsewhere it is not
	// known that what goes through them is HTTPS.
	httpsPort = "443"
)

// Options are what a Proxy works with.
type Options struct {
	// Authority vouches for the hosts of rules, towards the sandbox. It is needed.
	Authority *authority.Authority
	// Dial connects to "host:port"; intercepted says whether a rule names the host. An
	// error that is a *Refusal is passed on to the client. It is needed.
	Dial func(ctx context.Context, target string, intercepted bool) (net.Conn, error)
	// Roots vouch for the hosts of rules, towards this process. Nil means this
	// machine's.
	Roots *x509.CertPool
}

// Refusal is an answer of a proxy further on, which refused a tunnel.
type Refusal struct {
	Status int
	Header http.Header
	Body   []byte
}

func (r *Refusal) Error() string { return fmt.Sprintf("refused with status %d", r.Status) }

// Proxy is one sandbox's. Its methods are safe for concurrent use.
type Proxy struct {
	opts   Options
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	busy   sync.WaitGroup // tunnels
	server *http.Server

	mu     sync.Mutex
	rules  []Rule
	plain  map[*plainTunnel]bool // tunnels that are carried on as they are
	closed bool
}

// plainTunnel is one to a host that no rule named when it was opened.
type plainTunnel struct {
	host string
	end  func()
}

// New makes a proxy. The caller closes it.
func New(rules []Rule, opts *Options) *Proxy {
	p := &Proxy{opts: *opts, rules: rules, plain: make(map[*plainTunnel]bool)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	p.server = &http.Server{
		Handler: http.HandlerFunc(p.connect), Protocols: protocols, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: headerTime, IdleTimeout: idleTime,
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
		BaseContext: func(net.Listener) context.Context { return p.ctx },
	}
	return p
}

// Serve serves what l accepts until Close, and closes l.
func (p *Proxy) Serve(l net.Listener) error {
	return p.server.Serve(boundlisten.New(l, maxConns))
}

// Close ends the listener and every tunnel, and returns when they have ended. It
// may be called again.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	err := p.server.Close()
	p.busy.Wait()
	return err
}

// SetRules replaces the rules. Requests that begin later go by the new ones.
// Tunnels to hosts that were not named before and are now are cut, so that the
// next one to the same host ends here.
func (p *Proxy) SetRules(rules []Rule) {
	p.mu.Lock()
	p.rules = rules
	var cut []func()
	for t := range p.plain {
		if p.intercepts(t.host) {
			cut = append(cut, t.end)
		}
	}
	p.mu.Unlock()
	for _, end := range cut {
		end()
	}
}

// intercepts reports whether a rule names the host; p.mu is held.
func (p *Proxy) intercepts(host string) bool {
	for i := range p.rules {
		if p.rules[i].matches(host) {
			return true
		}
	}
	return false
}

// set sets the headers of all rules that match the host, in their order.
func (p *Proxy) set(h http.Header, host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.rules {
		if !p.rules[i].matches(host) {
			continue
		}
		headers := p.rules[i].Headers
		for _, name := range slices.Sorted(maps.Keys(headers)) { // one may be there in two spellings
			h.Set(name, headers[name])
		}
	}
}

// enter counts a tunnel to the host, unless the proxy is closed, and says
// whether it ends here. The caller calls p.busy.Done. t is nil for one that does.
func (p *Proxy) enter(host, port string, end func()) (t *plainTunnel, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false
	}
	p.busy.Add(1)
	if port == httpsPort && p.intercepts(host) {
		return nil, true
	}
	t = &plainTunnel{end: end}
	if port == httpsPort {
		t.host = host
	}
	p.plain[t] = true
	return t, true
}

func (p *Proxy) leave(t *plainTunnel) {
	p.mu.Lock()
	delete(p.plain, t)
	p.mu.Unlock()
	p.busy.Done()
}

// connect answers a request of the sandbox.
func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "this proxy takes CONNECT only; plain HTTP goes by the one in HTTP_PROXY", http.StatusMethodNotAllowed)
		return
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil || host == "" || port == "" {
		http.Error(w, "a tunnel needs a host and a port", http.StatusBadRequest)
		return
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	t, ok := p.enter(host, port, cancel)
	if !ok {
		http.Error(w, "the sandbox is ending", http.StatusServiceUnavailable)
		return
	}
	defer p.leave(t)
	target := net.JoinHostPort(host, port)
	far, err := p.opts.Dial(ctx, target, t == nil)
	if err != nil {
		refuse(w, target, err)
		return
	}
	defer far.Close()
	near, err := accept(w)
	if err != nil {
		return
	}
	defer near.Close()
	if t != nil {
		join(ctx, near, far)
		return
	}
	p.intercept(ctx, near, far, host)
}

func refuse(w http.ResponseWriter, target string, err error) {
	if r, ok := errors.AsType[*Refusal](err); ok {
		for _, name := range []string{"Content-Type", "Proxy-Status"} {
			if v := r.Header.Get(name); v != "" {
				w.Header().Set(name, v)
			}
		}
		w.WriteHeader(r.Status)
		_, _ = w.Write(r.Body)
		return
	}
	http.Error(w, target+" could not be reached", http.StatusBadGateway)
}

// accept takes the connection over, and tells the client that its tunnel is there.
func accept(w http.ResponseWriter) (net.Conn, error) {
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	// The server's own deadlines end here.
	err = near.SetDeadline(time.Time{})
	if err == nil {
		_, err = io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n")
	}
	if err != nil {
		near.Close()
		return nil, err
	}
	if bounded, ok := near.(*boundlisten.Conn); ok && buffered.Reader.Buffered() == 0 {
		return halfConn{bounded, bounded.NetConn()}, nil
	}
	return readAhead{near, buffered.Reader}, nil
}

// readAhead is a connection of which something was read already.
type readAhead struct {
	net.Conn
	r io.Reader
}

func (c readAhead) Read(b []byte) (int, error) { return c.r.Read(b) }

// halfConn is a connection that can say that no more comes.
type halfConn struct {
	net.Conn
	inner net.Conn
}

func (c halfConn) CloseWrite() error {
	if h, ok := c.inner.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// join copies both ways until both sides have said all they have to say, one of
// them cannot be written to, or ctx is done.
func join(ctx context.Context, a, b net.Conn) {
	end := func() {
		a.Close()
		b.Close()
	}
	defer context.AfterFunc(ctx, end)()
	var both sync.WaitGroup
	for _, way := range []struct{ to, from net.Conn }{{a, b}, {b, a}} {
		both.Go(func() {
			_, err := io.Copy(way.to, way.from)
			half, ok := way.to.(interface{ CloseWrite() error })
			if err == nil && ok {
				err = half.CloseWrite()
			}
			if err != nil || !ok {
				end()
			}
		})
	}
	both.Wait()
}
