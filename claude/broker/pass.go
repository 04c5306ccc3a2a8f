package broker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"regexp"
	"strings"
)

// isHello says that the CLI asks whether it is online. It does so without a token.
func isHello(r *http.Request) bool {
	return (r.Method == http.MethodHead || r.Method == http.MethodGet) && r.URL.Path == "/api/hello"
}

var modelPath = regexp.MustCompile(`^/v1/models(/[A-Za-z0-9][A-Za-z0-9._:@-]*)?$`)

// allowed returns the path to ask of the upstream, and whether the request is
// for one of the model's endpoints. A target in absolute form, an encoded path,
// or a wish to switch protocols is none.
func allowed(r *http.Request) (path string, ok bool) {
	if r.URL.Scheme != "" || r.URL.Host != "" || r.URL.Opaque != "" || r.URL.RawPath != "" || r.Header.Get("Upgrade") != "" {
		return "", false
	}
	switch r.Method {
	case http.MethodPost:
		return r.URL.Path, r.URL.Path == "/v1/messages" || r.URL.Path == "/v1/messages/count_tokens"
	case http.MethodGet, http.MethodHead:
		return r.URL.Path, modelPath.MatchString(r.URL.Path)
	default:
		return "", false
	}
}

// passedHeaders are the headers of a request that go on, by their canonical
// names; a name that ends with a hyphen stands for all that begin with it.
var passedHeaders = []string{
	"Accept", "Content-Type", "Content-Encoding", "User-Agent", "Idempotency-Key",
	"Anthropic-", "X-App", "X-Stainless-", "X-Claude-Code-",
}

// credentialWords in a header's name keep it here, whatever else it is.
var credentialWords = []string{"auth", "key", "token", "secret", "cookie", "credential"}

func passes(name string) bool {
	lower := strings.ToLower(name)
	for _, word := range credentialWords {
		if strings.Contains(lower, word) && name != "Idempotency-Key" {
			return false
		}
	}
	for _, passed := range passedHeaders {
		if name == passed || strings.HasSuffix(passed, "-") && strings.HasPrefix(name, passed) {
			return true
		}
	}
	return false
}

// rewrite makes the request to the upstream. Hop-by-hop and forwarding headers
// are gone by now.
func (b *Broker) rewrite(pr *httputil.ProxyRequest) {
	x := exchangeOf(pr.In.Context())
	target := *b.upstream
	target.Path = strings.TrimRight(b.upstream.Path, "/") + x.path
	target.RawPath = ""
	target.RawQuery = pr.In.URL.Query().Encode()
	pr.Out.URL = &target
	pr.Out.Host = b.upstream.Host
	pr.Out.Trailer = nil
	header := http.Header{}
	for name, values := range pr.Out.Header {
		if passes(name) {
			header[name] = values
		}
	}
	header.Set("Accept-Encoding", "identity") // so that the answer can be checked for the key
	if pr.In.Method == http.MethodPost {
		header.Set("Content-Type", "application/json") // in UTF-8, as which it is looked at
	}
	if !x.key.IsZero() {
		x.key.set(header)
	}
	pr.Out.Header = header
}

// droppedHeaders of an answer speak about the upstream's site, not the message.
var droppedHeaders = []string{
	"Set-Cookie", "Set-Cookie2", "Www-Authenticate", "Proxy-Authenticate", "Alt-Svc", "Location", "Refresh",
	"Strict-Transport-Security", "Clear-Site-Data", "Content-Security-Policy", "Report-To", "Nel",
}

// answerError is an answer of the upstream that is not passed on.
type answerError struct{ problem string }

func (e *answerError) Error() string { return e.problem }

// errKeyRefused is the upstream's 401: the key is bad, not the token.
var errKeyRefused = errors.New("the upstream refuses the key")

// checkResponse is called before anything of an answer goes inside.
func (b *Broker) checkResponse(resp *http.Response) error {
	x := exchangeOf(resp.Request.Context())
	if b.rewriter != nil {
		if err := b.rewriter.RewriteAnswer(resp); err != nil {
			return fmt.Errorf("rewrite the answer: %w", err)
		}
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return errKeyRefused
	case resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode/100 == 3:
		return &answerError{fmt.Sprintf("the upstream answered with status %d", resp.StatusCode)}
	case resp.Header.Get("Content-Encoding") != "" && resp.Header.Get("Content-Encoding") != "identity":
		return &answerError{"the upstream answered in an encoding that was not asked for"}
	}
	for _, name := range droppedHeaders {
		resp.Header.Del(name)
	}
	resp.Header.Del("Trailer")
	resp.Trailer = nil
	meterAnswer(resp, x)
	if !x.key.IsZero() && len(x.key.value()) >= minRedacted {
		hideKey(resp, x.key)
	}
	return nil
}

// hideKey takes the key out of an answer that repeats it.
func hideKey(resp *http.Response, key Key) {
	for name, values := range resp.Header {
		for _, value := range values {
			if strings.Contains(value, key.value()) {
				resp.Header.Del(name)
			}
		}
	}
	resp.Body = newRedactor(resp, key)
}

// fail answers a request to which the upstream gave no usable answer.
func (b *Broker) fail(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	if bad := x.refused.Load(); bad != nil {
		b.refuse(w, r, x, bad)
		return
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		b.refuse(w, r, x, b.tooLarge())
		return
	}
	if x.token.cut() {
		x.finish(OutcomeRevoked)
		b.refuse(w, r, x, errRevoked)
		return
	}
	if errors.Is(err, context.Canceled) {
		panic(http.ErrAbortHandler) // the client is gone
	}
	b.log.ErrorContext(r.Context(), "broker: upstream", "token", x.token.ID(), "path", x.path, "error", x.key.scrub(err.Error()))
	bad := &refusal{status: http.StatusBadGateway, errType: "api_error", problem: "the model's API cannot be reached"}
	if problem, ok := errors.AsType[*answerError](err); ok {
		bad.problem = problem.problem
	}
	if errors.Is(err, errKeyRefused) {
		bad = &refusal{status: http.StatusUnauthorized, errType: "authentication_error", problem: "the model's API refuses the key that is configured here", never: true}
	}
	x.fail(bad.status)
	writeError(w, bad)
}

var errRevoked = &refusal{status: http.StatusUnauthorized, errType: "authentication_error", problem: "the token was revoked", never: true}
