package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
)

// refusal is an answer that is not the far side's. Its text is for whoever
// reads the output of the program that was refused, often a model.
type refusal struct {
	status int
	proxy  string // the error type of Proxy-Status, RFC 9209 section 2.3
	text   string
	err    error // cause, for errors.Is; not shown
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.err }

// refuse is for a target that the policy does not allow, prohibit for one that
// it does but whose address is none to connect to.
func refuse(t target, why, remedy string) error {
	return denied("http_request_denied", t, why, remedy)
}

func prohibit(t target, why, remedy string) error {
	return denied("destination_ip_prohibited", t, why, remedy)
}

func denied(kind string, t target, why, remedy string) error {
	return &refusal{status: http.StatusForbidden, proxy: kind,
		text: fmt.Sprintf("%s is not reachable from this sandbox: %s; %s", t, why, remedy)}
}

func malformed(err error) error {
	return &refusal{status: http.StatusBadRequest, proxy: "http_request_error", text: err.Error(), err: err}
}

// unresolved and unreached are the far side's failures.
func unresolved(t target, err error) error {
	if timedOut(err) {
		return &refusal{http.StatusGatewayTimeout, "dns_timeout", t.host() + " could not be looked up in time", err}
	}
	if dns := new(net.DNSError); errors.As(err, &dns) && dns.IsNotFound {
		return &refusal{http.StatusBadGateway, "dns_error", t.host() + " is a name that nobody knows", err}
	}
	return &refusal{http.StatusBadGateway, "dns_error", t.host() + " could not be looked up: the host's name service failed", err}
}

func unreached(t target, err error) error {
	switch {
	case timedOut(err):
		return &refusal{http.StatusGatewayTimeout, "connection_timeout", t.String() + " did not answer in time", err}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &refusal{http.StatusBadGateway, "connection_refused", t.String() + " refused the connection", err}
	default:
		return &refusal{http.StatusBadGateway, "destination_unavailable", t.String() + " could not be reached", err}
	}
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// writeRefusal answers with err. What is not a refusal happened after a
// connection was made.
func writeRefusal(w http.ResponseWriter, host string, err error) {
	r := new(refusal)
	if !errors.As(err, &r) {
		r = &refusal{http.StatusBadGateway, "http_protocol_error", host + " broke the connection off before it answered", err}
		if timedOut(err) {
			r = &refusal{http.StatusGatewayTimeout, "http_response_timeout", host + " did not answer in time", err}
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Proxy-Status", "vivarium; error="+r.proxy)
	h.Set("Connection", "close")
	w.WriteHeader(r.status)
	fmt.Fprintf(w, "vivarium: %s\n", r.text)
}
