package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// DefaultUpstream is the model's API.
const DefaultUpstream = "https://api.anthropic.com"

// defaultMaxBody is twice what the API takes: 32 MB for /v1/messages,
// https://docs.anthropic.com/en/api/errors.
const defaultMaxBody = 64 << 20

// ErrNoKey matches the error of [New] where there is no key to hold.
var ErrNoKey = errors.New("no key for the model's API")

// Options says how a [Broker] works. The zero value, and nil, are usable where
// the environment has ANTHROPIC_API_KEY.
type Options struct {
	// Upstream is the API's base URL, https or http, with or without a path.
	// Empty: [DefaultUpstream].
	Upstream string
	// Key is the credential for the upstream. None, and no KeyFunc: the
	// environment's ANTHROPIC_API_KEY as it is when New is called.
	Key Key
	// KeyFunc, where set, is asked for the key before every request to the
	// upstream instead; it caches what is expensive. Its error goes to Log, not to
	// the sandbox, so it must not hold a secret.
	KeyFunc func(ctx context.Context) (Key, error)
	// Transport makes the requests to the upstream. Nil: one of its own, which
	// uses the environment's proxies and waits 10 minutes for an answer to begin.
	Transport http.RoundTripper
	// MaxBody limits a request's body, in bytes. Zero: 64 MiB.
	MaxBody int64
	// AllowServerTools lets what runs inside use what the API does on its own
	// servers: tools such as web_search, web_fetch and code_execution, MCP
	// servers, containers, and images and documents that the API fetches from a
	// URL. With any of them a sandbox without a network reads from the internet,
	// and writes to it what it puts into the URLs. Without it such requests are
	// refused with 403 permission_error; the CLI's WebSearch is one. Its WebFetch
	// fetches from inside and needs the sandbox's network, not this.
	AllowServerTools bool
	// Log is told of requests that were refused or failed, with the token's ID
	// and without bodies, keys and tokens. Nil: nobody is told.
	Log *slog.Logger
}

// Broker is an [http.Handler]; see the package's documentation. It is safe for
// concurrent use and has nothing to close.
type Broker struct {
	upstream *url.URL
	keyFunc  func(context.Context) (Key, error)
	maxBody  int64
	log      *slog.Logger
	proxy    *httputil.ReverseProxy
	tokens   tokens

	serverTools bool // are allowed
}

// New returns a broker. The error matches [ErrNoKey] where no key was given and
// the environment has none.
func New(opts *Options) (*Broker, error) {
	if opts == nil {
		opts = &Options{}
	}
	upstream, err := parseUpstream(opts.Upstream)
	if err != nil {
		return nil, err
	}
	b := &Broker{upstream: upstream, keyFunc: opts.KeyFunc, maxBody: opts.MaxBody, log: opts.Log, serverTools: opts.AllowServerTools}
	if b.keyFunc == nil {
		key := opts.Key
		if key.IsZero() {
			key = APIKey(os.Getenv("ANTHROPIC_API_KEY"))
		}
		if key.IsZero() {
			return nil, fmt.Errorf("broker: %w: set Options.Key, Options.KeyFunc or ANTHROPIC_API_KEY", ErrNoKey)
		}
		if !key.valid() {
			return nil, errors.New("broker: the key holds characters that no header takes")
		}
		b.keyFunc = func(context.Context) (Key, error) { return key, nil }
	}
	if b.maxBody <= 0 {
		b.maxBody = defaultMaxBody
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	transport := opts.Transport
	if transport == nil {
		transport = newTransport()
	}
	b.proxy = &httputil.ReverseProxy{
		Rewrite:        b.rewrite,
		Transport:      transport,
		FlushInterval:  -1,
		ModifyResponse: b.checkResponse,
		ErrorHandler:   b.fail,
		ErrorLog:       log.New(io.Discard, "", 0), // a stream that breaks off; both ends see it
	}
	return b, nil
}

func parseUpstream(base string) (*url.URL, error) {
	if base == "" {
		base = DefaultUpstream
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, errors.New("broker: the upstream is not a URL") // its text may hold a login
	}
	if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("broker: the upstream %s is not of the form https://HOST[/PATH]", u.Redacted())
	}
	return u, nil
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   30 * time.Second,
		ResponseHeaderTimeout: 10 * time.Minute, // an answer that is not streamed begins when it is complete
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   16,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true,
	}
}

// exchange is one request on its way through.
type exchange struct {
	token   *Token
	path    string // of the upstream, below its base
	key     Key
	refused atomic.Pointer[bodyError] // by the guard
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange) // always there: ServeHTTP puts it
	return x
}

// ServeHTTP passes the request on, or refuses it.
func (b *Broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isHello(r) {
		writeJSON(w, http.StatusOK, map[string]string{"message": "hello"})
		return
	}
	token := b.tokens.find(r.Header)
	if token == nil {
		b.refuse(w, r, nil, http.StatusUnauthorized, "authentication_error", "the token is not, or no longer, valid here")
		return
	}
	path, ok := allowed(r)
	if !ok {
		b.refuse(w, r, token, http.StatusNotFound, "not_found_error", "only the model's endpoints are to be had here")
		return
	}
	if r.ContentLength > b.maxBody {
		b.refuseLarge(w, r, token)
		return
	}
	select {
	case token.slots <- struct{}{}:
		defer func() { <-token.slots }()
	default:
		b.refuse(w, r, token, http.StatusTooManyRequests, "rate_limit_error", "too many requests at a time")
		return
	}
	b.pass(w, r, &exchange{token: token, path: path})
}

func (b *Broker) pass(w http.ResponseWriter, r *http.Request, x *exchange) {
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), exchangeKey{}, x))
	defer cancel()
	defer context.AfterFunc(x.token.revoked, cancel)()
	key, err := b.keyFunc(ctx)
	x.key = key
	if err == nil && !key.valid() {
		err = ErrNoKey
	}
	if err != nil {
		b.log.ErrorContext(ctx, "broker: no key", "token", x.token.ID(), "error", key.scrub(err.Error()))
		writeError(w, http.StatusBadGateway, "api_error", "the key for the model's API is not to be had")
		return
	}
	r = r.WithContext(ctx)
	r.Body = http.MaxBytesReader(w, r.Body, b.maxBody)
	if bad := b.watch(r, x); bad != nil {
		b.refuseBody(w, r, x.token, bad)
		return
	}
	b.proxy.ServeHTTP(w, r)
}

func (b *Broker) refuseLarge(w http.ResponseWriter, r *http.Request, token *Token) {
	b.refuse(w, r, token, http.StatusRequestEntityTooLarge, "request_too_large",
		fmt.Sprintf("the body is larger than %d bytes", b.maxBody))
}

func (b *Broker) refuseBody(w http.ResponseWriter, r *http.Request, token *Token, bad *bodyError) {
	b.refuse(w, r, token, bad.status, bad.errType, bad.problem)
}

func (b *Broker) refuse(w http.ResponseWriter, r *http.Request, token *Token, status int, errType, message string) {
	id := "none"
	if token != nil {
		id = token.ID()
	}
	b.log.WarnContext(r.Context(), "broker: refused", "token", id, "method", r.Method, "path", r.URL.Path, "status", status)
	writeError(w, status, errType, message)
}

// writeError answers in the shape of https://docs.anthropic.com/en/api/errors.
func writeError(w http.ResponseWriter, status int, errType, message string) {
	writeJSON(w, status, map[string]any{
		"type": "error", "error": map[string]string{"type": errType, "message": "broker: " + message},
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone: nobody to tell
}
