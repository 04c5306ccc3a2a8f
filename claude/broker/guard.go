package broker

import (
	"errors"
	"io"
	"net/http"
)

// guard passes a request's body on as long as it asks for nothing that makes
// the API reach out, and as far as the limits have room for it. What it refuses is
// found before the body's last byte goes on, so that the upstream never has the
// whole of such a request.
type guard struct {
	body io.ReadCloser
	left int64 // of its length; negative where that is not known
	scan bodyScanner
	x    *exchange
}

func (g *guard) Read(p []byte) (int, error) {
	if refused := g.x.refused.Load(); refused != nil {
		return 0, refused
	}
	n, err := g.body.Read(p)
	bad := g.scan.write(p[:n])
	if g.left > 0 {
		g.left -= int64(n)
	}
	if bad == nil && (errors.Is(err, io.EOF) || g.left == 0) {
		bad = g.end()
	}
	if bad != nil {
		g.x.refused.Store(bad)
		return 0, bad
	}
	return n, err
}

// end is called with the body seen whole, perhaps twice.
func (g *guard) end() *refusal {
	if bad := g.scan.end(); bad != nil {
		return bad
	}
	return g.x.admit(g.scan.asked())
}

// Close closes the body.
func (g *guard) Close() error { return g.body.Close() }

// watch puts a guard before the body of a request that has one to be looked at.
func (b *Broker) watch(r *http.Request, x *exchange) *refusal {
	if r.Method != http.MethodPost {
		return nil
	}
	for _, coding := range r.Header.Values("Content-Encoding") {
		if coding != "" && coding != "identity" {
			return &refusal{status: http.StatusBadRequest, errType: "invalid_request_error", problem: "a body in an encoding cannot be looked at"}
		}
	}
	if r.ContentLength == 0 {
		return errCut // the proxy would not read it
	}
	r.Body = &guard{body: r.Body, left: r.ContentLength, x: x, scan: bodyScanner{allow: b.serverTools}}
	return nil
}

func notJSON(problem string) *refusal {
	return &refusal{status: http.StatusBadRequest, errType: "invalid_request_error", problem: "the body is not a JSON object: " + problem}
}

var errCut = notJSON("it ends too early")

// reachesOut is a body that asks for what would be a way out of the sandbox.
func reachesOut(what string) *refusal {
	return &refusal{status: http.StatusForbidden, errType: "permission_error", problem: what +
		" makes the model's API reach out on behalf of the sandbox; broker.Options.AllowServerTools allows it"}
}
