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
	// Signer, where set, puts the credential on requests in place of Key and KeyFunc.
	Signer Signer
	// Prices are added to [DefaultPrices], by the models' names as answers give them,
	// with or without a date; one of the same name takes the place of the default.
	Prices map[string]Price
	// UnknownPrice is the price of a model of which none is known; requests that
	// were priced by it are counted in [Usage.Assumed]. Zero: the dearest of every
	// rate of those known, so that no budget is passed unseen.
	UnknownPrice Price
	// Observe is told of every request for a message that came with a valid token,
	// exactly once: when it was answered in full, before its last event or byte goes
	// on, or when it was refused, failed or was cut. It is called for several
	// requests at a time and delays the one that it is told of. Nil: nobody is told.
	Observe func(Event)
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
	prices      prices
	observe     func(Event)
	rewriter    AnswerRewriter // or nil
	signed      bool           // requests get their credential from a Signer
	total       meter
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
	b := &Broker{
		upstream: upstream, maxBody: opts.MaxBody, log: opts.Log, serverTools: opts.AllowServerTools,
		observe: opts.Observe, signed: opts.Signer != nil,
	}
	b.rewriter, _ = opts.Signer.(AnswerRewriter)
	if b.prices, err = newPrices(opts.Prices, opts.UnknownPrice); err != nil {
		return nil, err
	}
	if b.keyFunc, err = opts.key(); err != nil {
		return nil, err
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
	if opts.Signer != nil {
		transport = signedTransport{opts.Signer, transport}
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

// key returns what is asked for the key.
func (o *Options) key() (func(context.Context) (Key, error), error) {
	switch {
	case o.Signer != nil:
		return noKey, nil
	case o.KeyFunc != nil:
		return o.KeyFunc, nil
	}
	key := o.Key
	if key.IsZero() {
		key = APIKey(os.Getenv("ANTHROPIC_API_KEY"))
	}
	if key.IsZero() {
		return nil, fmt.Errorf("broker: %w: set Options.Key, Options.KeyFunc or ANTHROPIC_API_KEY", ErrNoKey)
	}
	if !key.valid() {
		return nil, errors.New("broker: the key holds characters that no header takes")
	}
	return func(context.Context) (Key, error) { return key, nil }, nil
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

// Usage returns what was used through the broker so far, requests under way
// included.
func (b *Broker) Usage() Usage { return b.total.usage() }

// ServeHTTP passes the request on, or refuses it.
func (b *Broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isHello(r) {
		writeJSON(w, http.StatusOK, map[string]string{"message": "hello"})
		return
	}
	token := b.tokens.find(r.Header)
	if token == nil {
		b.refuse(w, r, nil, errNoToken)
		return
	}
	x := b.newExchange(token, r)
	defer func() { x.end(r.Context()) }()
	path, ok := allowed(r)
	if !ok {
		b.refuse(w, r, x, errNoEndpoint)
		return
	}
	if r.ContentLength > b.maxBody {
		b.refuse(w, r, x, b.tooLarge())
		return
	}
	leave, bad := x.enter()
	if bad != nil {
		b.refuse(w, r, x, bad)
		return
	}
	defer leave()
	x.path = path
	b.pass(w, r, x)
}

func (b *Broker) pass(w http.ResponseWriter, r *http.Request, x *exchange) {
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), exchangeKey{}, x))
	defer cancel()
	defer context.AfterFunc(x.token.revoked, cancel)()
	if x.token.era != nil {
		defer context.AfterFunc(x.token.era.over, cancel)()
	}
	key, err := b.keyFunc(ctx)
	x.key = key
	if err == nil && !b.signed && !key.valid() {
		err = ErrNoKey
	}
	if err != nil {
		b.log.ErrorContext(ctx, "broker: no key", "token", x.token.ID(), "error", key.scrub(err.Error()))
		bad := &refusal{status: http.StatusBadGateway, errType: "api_error", problem: "the key for the model's API is not to be had"}
		x.fail(bad.status)
		writeError(w, bad)
		return
	}
	r = r.WithContext(ctx)
	r.Body = http.MaxBytesReader(w, r.Body, b.maxBody)
	if bad := b.watch(r, x); bad != nil {
		b.refuse(w, r, x, bad)
		return
	}
	b.proxy.ServeHTTP(w, r)
}

var (
	errNoToken    = &refusal{status: http.StatusUnauthorized, errType: "authentication_error", problem: "the token is not, or no longer, valid here", never: true}
	errNoEndpoint = &refusal{status: http.StatusNotFound, errType: "not_found_error", problem: "only the model's endpoints are to be had here"}
)

func (b *Broker) tooLarge() *refusal {
	return &refusal{status: http.StatusRequestEntityTooLarge, errType: "request_too_large", problem: fmt.Sprintf("the body is larger than %d bytes", b.maxBody)}
}

// refuse refuses a request, of whose token nothing is known where x is nil.
func (b *Broker) refuse(w http.ResponseWriter, r *http.Request, x *exchange, bad *refusal) {
	id := "none"
	if x != nil {
		id = x.token.ID()
		x.refuse(bad.status)
	}
	b.log.WarnContext(r.Context(), "broker: refused", "token", id, "method", clean(r.Method), "path", clean(r.URL.Path), "status", bad.status)
	writeError(w, bad)
}

// errorBody has the shape of https://docs.anthropic.com/en/api/errors.
func errorBody(errType, message string) map[string]any {
	return map[string]any{"type": "error", "error": map[string]string{"type": errType, "message": "broker: " + message}}
}

// writeError answers with an error. X-Should-Retry is what clients of the API look
// for; as measured, Claude Code 2.1.328 obeys it.
func writeError(w http.ResponseWriter, bad *refusal) {
	if bad.never {
		w.Header().Set("X-Should-Retry", "false")
	}
	if bad.after > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((bad.after+time.Second-1)/time.Second), 10))
	}
	writeJSON(w, bad.status, errorBody(bad.errType, bad.problem))
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
