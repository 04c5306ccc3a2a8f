package tunnel

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Where a connect token may be, beside the Authorization header.
const tokenName = "_modal_connect_token"

// userHeader tells the server inside what the token was made for.
const userHeader = "X-Verified-User-Data"

// Grant is what a connect token is good for.
type Grant struct {
	Port     int    // of the sandbox
	Metadata string // what the token was made with; may be empty
}

// Gateway is the way to a sandbox's HTTP servers for those who have a connect
// token: in the Authorization header ("Bearer"), in the query parameter
// _modal_connect_token, or in a cookie of that name, which is set when it was in
// the query. The server inside does not see the token; it sees the token's
// metadata as X-Verified-User-Data, which nobody else can set. WebSockets pass.
//
// HTTP and HTTPS are both spoken at the same port. Its methods are safe for
// concurrent use.
type Gateway struct {
	opts      Options
	check     func(token string) (Grant, error)
	lis       *mixedListener
	server    *http.Server
	transport *http.Transport
	done      chan struct{}
}

// OpenGateway opens a gateway. check says what a token is good for, and refuses
// one that is good for nothing with an error. The caller closes the gateway.
func OpenGateway(opts Options, check func(token string) (Grant, error)) (*Gateway, error) {
	lis, err := listen()
	if err != nil {
		return nil, err
	}
	g := &Gateway{opts: opts, check: check, lis: newMixedListener(lis, opts), done: make(chan struct{})}
	g.transport = &http.Transport{
		DialContext:        func(ctx context.Context, _, address string) (net.Conn, error) { return opts.dial(ctx, address) },
		DisableCompression: true, // what passes is not for this to change
		IdleConnTimeout:    30 * time.Second,
	}
	g.server = &http.Server{
		Handler:           http.HandlerFunc(g.serve),
		ReadHeaderTimeout: handshakeTime,
		ErrorLog:          log.New(io.Discard, "", 0), // what clients do wrong concerns them only
	}
	go func() {
		defer close(g.done)
		_ = g.server.Serve(g.lis) // it ends by Close
	}()
	return g, nil
}

// URL is where the gateway is, without a slash at its end.
func (g *Gateway) URL() string { return "http://" + g.lis.Addr().String() }

// Close ends the gateway and what goes through it. It may be called again.
func (g *Gateway) Close() {
	_ = g.server.Close() // of the listener, which has nothing to tell
	g.lis.shut()         // and of what has become a WebSocket
	<-g.done
	g.transport.CloseIdleConnections()
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	defer g.opts.busy()()
	token, grant, err := g.authorize(r)
	if err != nil {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "modal: a valid connect token is needed", http.StatusUnauthorized)
		return
	}
	proxy := &httputil.ReverseProxy{
		Transport:     g.transport,
		FlushInterval: -1, // at once
		Rewrite:       func(p *httputil.ProxyRequest) { rewrite(p, token, grant) },
		ErrorLog:      g.server.ErrorLog,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "modal: the sandbox does not answer at this port", http.StatusBadGateway)
		},
	}
	if r.URL.Query().Get(tokenName) == token {
		proxy.ModifyResponse = func(resp *http.Response) error {
			c := http.Cookie{Name: tokenName, Value: token, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode}
			resp.Header.Add("Set-Cookie", c.String())
			return nil
		}
	}
	proxy.ServeHTTP(w, r)
}

// authorize finds the token of a request.
func (g *Gateway) authorize(r *http.Request) (token string, grant Grant, err error) {
	var candidates []string
	if t := bearer(r.Header); t != "" {
		candidates = append(candidates, t)
	}
	candidates = append(candidates, r.URL.Query()[tokenName]...)
	for _, c := range r.CookiesNamed(tokenName) {
		candidates = append(candidates, c.Value)
	}
	err = errors.New("no token")
	for _, t := range candidates {
		if grant, err = g.check(t); err == nil {
			return t, grant, nil
		}
	}
	return "", Grant{}, err
}

func bearer(h http.Header) string {
	scheme, t, ok := strings.Cut(h.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(t)
}

// rewrite makes the request that the sandbox gets.
func rewrite(p *httputil.ProxyRequest, token string, grant Grant) {
	p.Out.URL.Scheme, p.Out.URL.Host = "http", inner(grant.Port)
	p.Out.Host = p.In.Host
	p.SetXForwarded()
	// An Authorization header that is not the token is the application's own.
	if bearer(p.In.Header) == token {
		p.Out.Header.Del("Authorization")
	}
	p.Out.URL.RawQuery = withoutToken(p.In.URL.RawQuery)
	if len(p.In.CookiesNamed(tokenName)) > 0 {
		p.Out.Header.Del("Cookie")
		for _, c := range p.In.Cookies() {
			if c.Name != tokenName {
				p.Out.AddCookie(c)
			}
		}
	}
	p.Out.Header.Del(userHeader)
	if grant.Metadata != "" {
		p.Out.Header.Set(userHeader, grant.Metadata)
	}
}

// withoutToken takes the token's parameters out of a query, and leaves the rest
// as it is.
func withoutToken(query string) string {
	parts := slices.DeleteFunc(strings.Split(query, "&"), func(part string) bool {
		key, _, _ := strings.Cut(part, "=")
		key, err := url.QueryUnescape(key)
		return err == nil && key == tokenName
	})
	return strings.Join(parts, "&")
}
