package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
)

// intercept serves the requests of a tunnel to a host that rules name.
func (p *Proxy) intercept(ctx context.Context, near, far net.Conn, host string) {
	leaf, err := p.opts.Authority.Issue(host)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { near.Close() })()
	upstream := p.transport(ctx, far, host)
	defer upstream.CloseIdleConnections()
	s := &session{host: host, forward: p.forward(upstream, host)}
	server := &http.Server{
		Handler: s, MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime,
		TLSConfig:   &tls.Config{Certificates: []tls.Certificate{leaf}, MinVersion: tls.VersionTLS12},
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	l := newSingle(near)
	_ = server.ServeTLS(l, "", "") // ends when the connection does
	_ = server.Close()
	s.end()
}

// transport makes connections to the host until end is done; far is the first.
func (p *Proxy) transport(end context.Context, far net.Conn, host string) *http.Transport {
	first := make(chan net.Conn, 1)
	first <- far
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			select {
			case conn := <-first:
				return conn, nil
			default:
			}
			ctx, cancel := context.WithCancel(ctx) // which no request's end ends
			defer cancel()
			defer context.AfterFunc(end, cancel)()
			return p.opts.Dial(ctx, net.JoinHostPort(host, httpsPort), true)
		},
		TLSClientConfig:     &tls.Config{RootCAs: p.opts.Roots, ServerName: host, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: handshakeTime,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true, // what the far side sends is what the sandbox gets
		IdleConnTimeout:     idleTime,
	}
}

// forward sends requests on to the host, with the headers of the rules.
func (p *Proxy) forward(upstream *http.Transport, host string) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:     upstream,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite: func(pr *httputil.ProxyRequest) {
			out := pr.Out
			out.URL.Scheme, out.URL.Host = "https", authorityOf(host)
			out.URL.RawQuery = pr.In.URL.RawQuery // ReverseProxy leaves out what it cannot parse
			out.Host = out.URL.Host
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v := pr.In.Header[name]; v != nil {
					out.Header[name] = v // the client's own, end to end
				}
			}
			p.set(out.Header, host)
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			text := host + " could not be reached"
			if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
				text = host + " has no certificate that can be trusted: " + bad.Err.Error()
			}
			http.Error(w, text, http.StatusBadGateway)
		},
	}
}

// authorityOf is a host as a URL has it, at the port of https.
func authorityOf(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// session is the requests of one tunnel.
type session struct {
	host    string
	forward http.Handler

	mu    sync.Mutex
	ended bool
	busy  sync.WaitGroup
}

func (s *session) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.busy.Add(1)
	return true
}

// end waits for the requests; there will be no others.
func (s *session) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.busy.Wait()
}

func (s *session) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.begin() {
		return
	}
	defer s.busy.Done()
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host, port = r.Host, httpsPort
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	switch {
	case host != s.host || port != httpsPort:
		http.Error(w, "this connection is to "+s.host+" and takes requests for that host only", http.StatusMisdirectedRequest)
	case r.Method == http.MethodTrace:
		http.Error(w, "TRACE is not forwarded, since its answer is what was sent", http.StatusMethodNotAllowed)
	default:
		s.forward.ServeHTTP(w, r)
	}
}

// single is a listener with one connection. Its Accept fails the second time,
// once that connection is closed.
type single struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func newSingle(conn net.Conn) *single {
	l := &single{conn: make(chan net.Conn, 1), closed: make(chan struct{}), addr: conn.LocalAddr()}
	l.conn <- &singleConn{conn, l}
	return l
}

func (l *single) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *single) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *single) Addr() net.Addr { return l.addr }

type singleConn struct {
	net.Conn
	l *single
}

func (c *singleConn) Close() error {
	defer c.l.Close()
	return c.Conn.Close()
}
