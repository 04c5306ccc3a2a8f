package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"
)

// ServeHTTP serves one proxy request. It returns when the tunnel or the answer
// has ended. For CONNECT w must support hijacking, as an HTTP/1 server's does.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.enter() {
		writeRefusal(w, r.Host, &refusal{status: http.StatusServiceUnavailable, proxy: "connection_limit_reached",
			text: "this sandbox has too many connections open; close some and try again"})
		return
	}
	defer p.leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(p.ctx, func() {
		cancel()
		rc := http.NewResponseController(w)     // a client that neither reads nor sends holds nothing up
		_ = rc.SetReadDeadline(time.Unix(1, 0)) // not every writer has deadlines
		_ = rc.SetWriteDeadline(time.Unix(1, 0))
	})()
	r = r.WithContext(ctx)
	if r.Method == http.MethodConnect {
		p.serveConnect(w, r)
		return
	}
	if err := absolute(r); err != nil {
		p.answer(w, r, err)
		return
	}
	p.plain.ServeHTTP(w, r)
}

// answer refuses a request, and says so in the log when a policy did it.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, err error) {
	if ref := new(refusal); errors.As(err, &ref) && ref.status == http.StatusForbidden {
		p.opts.Log.LogAttrs(r.Context(), slog.LevelInfo, "egress refused", slog.String("target", clip(r.Host)), slog.String("reason", ref.text))
	}
	writeRefusal(w, clip(r.Host), err)
}

func (p *Proxy) serveConnect(w http.ResponseWriter, r *http.Request) {
	t, err := parseTarget(r.Host, 0)
	if err != nil {
		p.answer(w, r, malformed(err))
		return
	}
	far, err := p.connect(r.Context(), t)
	if err != nil {
		p.answer(w, r, err)
		return
	}
	defer far.Close()
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.answer(w, r, fmt.Errorf("take over the connection: %w", err))
		return
	}
	defer near.Close()
	// The server's own deadlines end here.
	if err := near.SetDeadline(time.Now().Add(p.opts.IdleTimeout)); err != nil {
		return
	}
	if _, err := io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	early, err := early(buffered.Reader)
	if err == nil {
		tunnel(r.Context(), near, far, early, p.opts.IdleTimeout)
	}
}

// early gives what the client sent before it was told that it may.
func early(r *bufio.Reader) ([]byte, error) {
	b := make([]byte, r.Buffered())
	_, err := io.ReadFull(r, b)
	return b, err
}

// absolute reports what keeps r from being a plain request to a proxy.
func absolute(r *http.Request) error {
	switch {
	case r.URL.Host == "":
		return malformed(errors.New("this is a forward proxy; it takes CONNECT and requests whose target is a whole http:// URL"))
	case r.URL.Scheme != "http":
		return malformed(fmt.Errorf("scheme %q of %q is not carried in the open; use CONNECT", clip(r.URL.Scheme), clip(r.URL.Host)))
	}
	t, err := parseTarget(r.URL.Host, 80)
	if err != nil {
		return malformed(err)
	}
	// One spelling from here on, for the Host field and the pool of
	// connections. A port that is the scheme's own is not written.
	r.URL.Host = t.String()
	if t.port == 80 {
		r.URL.Host = strings.TrimSuffix(r.URL.Host, ":80")
	}
	r.Host = r.URL.Host
	return nil
}

func (p *Proxy) newTransport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			t, err := parseTarget(address, 80)
			if err != nil {
				return nil, malformed(err)
			}
			conn, err := p.connect(ctx, t)
			if err != nil {
				return nil, err
			}
			return &idleConn{conn, p.opts.IdleTimeout}, nil
		},
		Protocols:              protocols,
		DisableCompression:     true, // what the far side sends is what the sandbox gets
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        min(time.Minute, p.opts.IdleTimeout),
		MaxResponseHeaderBytes: 256 << 10,
	}
}

// newPlain carries a request on unchanged, but for the fields that belong to
// one hop, which it removes on both ways.
func (p *Proxy) newPlain() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:     p.direct,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite:       rewrite,
		ModifyResponse: func(resp *http.Response) error {
			if resp.StatusCode == http.StatusSwitchingProtocols {
				return errors.New("the far side changed protocols without being asked to")
			}
			dropProxyFields(resp.Header)
			return nil
		},
		ErrorHandler: p.answer,
	}
}

func rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	out.URL.RawQuery = pr.In.URL.RawQuery // ReverseProxy leaves out what it cannot parse
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v := pr.In.Header[name]; v != nil {
			out.Header[name] = v // the client's own, end to end
		}
	}
	// A protocol other than HTTP goes through CONNECT, where it is bounded.
	out.Header.Del("Upgrade")
	out.Header.Del("Connection")
	dropProxyFields(out.Header)
}

func dropProxyFields(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Proxy-") {
			delete(h, name)
		}
	}
}
