package broker

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// guard passes a request's body on as long as it asks for nothing that makes
// the API reach out. What it refuses is found before the body's last byte, so
// that the upstream never has the whole of such a request.
type guard struct {
	body    io.ReadCloser
	scan    bodyScanner
	refused *atomic.Pointer[bodyError] // also told to the exchange
}

func (g *guard) Read(p []byte) (int, error) {
	if refused := g.refused.Load(); refused != nil {
		return 0, refused
	}
	n, err := g.body.Read(p)
	bad := g.scan.write(p[:n])
	if bad == nil && errors.Is(err, io.EOF) {
		bad = g.scan.end()
	}
	if bad != nil {
		g.refused.Store(bad)
		return 0, bad
	}
	return n, err
}

// Close closes the body.
func (g *guard) Close() error { return g.body.Close() }

// watch puts a guard before the body of a request that has one to be looked at.
func (b *Broker) watch(r *http.Request, x *exchange) *bodyError {
	if b.serverTools || r.Method != http.MethodPost {
		return nil
	}
	for _, coding := range r.Header.Values("Content-Encoding") {
		if coding != "" && coding != "identity" {
			return &bodyError{http.StatusBadRequest, "invalid_request_error", "a body in an encoding cannot be looked at"}
		}
	}
	if r.ContentLength == 0 {
		return errCut // the proxy would not read it
	}
	r.Body = &guard{body: r.Body, refused: &x.refused}
	return nil
}

// bodyError is a body that does not go on.
type bodyError struct {
	status           int
	errType, problem string
}

func (e *bodyError) Error() string { return e.problem }

func notJSON(problem string) *bodyError {
	return &bodyError{http.StatusBadRequest, "invalid_request_error", "the body is not a JSON object: " + problem}
}

var errCut = notJSON("it ends too early")

// reachesOut is a body that asks for what would be a way out of the sandbox.
func reachesOut(what string) *bodyError {
	return &bodyError{http.StatusForbidden, "permission_error", what +
		" makes the model's API reach out on behalf of the sandbox; broker.Options.AllowServerTools allows it"}
}
