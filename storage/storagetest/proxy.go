package storagetest

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// The requests that a Proxy sees beside those of a bucket's own methods.
const (
	OpCreateUpload   Op = "create upload"
	OpPutPart        Op = "put part"
	OpCompleteUpload Op = "complete upload"
	OpAbortUpload    Op = "abort upload"
	OpOther          Op = "other" // such as those for whole buckets
)

// Proxy is an http.Handler that stands before a real S3 server, such as versitygw,
// records the requests, and makes them go wrong on the wire: what is tested is so
// the client's own repeating. Serve it with httptest.NewServer and let the client
// use path-style addresses. Set its fields before its first use; it is safe for
// concurrent use if Plan is, and must not be copied.
//
// The faults mean: Fail and LoseAnswer with an [S3Error] answer with that status
// and code; with [ErrTimeout] they never answer, until the client gives up; with
// any other error, or none, they break the connection. Cut breaks the connection
// after so many bytes of what is got or put. Flip changes a bit of what is got or
// put. Stale is let through.
type Proxy struct {
	// Target is the server's URL, such as "http://127.0.0.1:7070".
	Target string
	// Plan decides on each request. Nil: nothing goes wrong.
	Plan func(Call) Fault

	tally    tally
	mu       sync.Mutex
	requests []Request
	dead     error
}

// Request is what a Proxy saw of a request.
type Request struct {
	Call
	// Method is the HTTP method.
	Method string
	// Query is the URL's.
	Query url.Values
	// Header is as it came, with its signature.
	Header http.Header
}

// Requests returns the requests so far, in order.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Request(nil), p.requests...)
}

// Count returns how many requests with one of ops there were so far, or with any
// where none is named.
func (p *Proxy) Count(ops ...Op) int { return p.tally.count(ops) }

func (p *Proxy) plan(req *http.Request) Fault {
	op, key := requested(req)
	call := p.tally.add(op, key)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, Request{Call: call, Method: req.Method, Query: req.URL.Query(), Header: req.Header.Clone()})
	if p.dead != nil {
		return Fault{kind: fail, err: p.dead}
	}
	fault := None
	if p.Plan != nil {
		fault = p.Plan(call)
	}
	if fault.crash {
		p.dead = fault.error()
	}
	return fault
}

// requested gives the kind of a path-style request, and its key or prefix.
func requested(req *http.Request) (Op, string) {
	query := req.URL.Query()
	_, key, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	switch {
	case key == "" && req.Method == http.MethodGet && query.Has("list-type"):
		return OpList, query.Get("prefix")
	case key == "":
		return OpOther, ""
	case req.Method == http.MethodPost && query.Has("uploads"):
		return OpCreateUpload, key
	case query.Has("partNumber"):
		return OpPutPart, key
	case req.Method == http.MethodPost && query.Has("uploadId"):
		return OpCompleteUpload, key
	case req.Method == http.MethodDelete && query.Has("uploadId"):
		return OpAbortUpload, key
	}
	ops := map[string]Op{http.MethodGet: OpGet, http.MethodPut: OpPut, http.MethodHead: OpStat, http.MethodDelete: OpDelete}
	if op, ok := ops[req.Method]; ok {
		return op, key
	}
	return OpOther, key
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	fault := p.plan(req)
	target, err := url.Parse(p.Target)
	if err != nil {
		http.Error(w, "storagetest: Target is not a URL", http.StatusBadGateway)
		return
	}
	switch {
	case fault.kind == fail:
		_, _ = io.Copy(io.Discard, req.Body) // or a client that is still sending may miss the answer
		fault.answer(req.Context(), w)
		return
	case req.Method == http.MethodPut && fault.kind == cut:
		_, _ = io.CopyN(io.Discard, req.Body, max(0, fault.after-1))
		panic(http.ErrAbortHandler)
	case req.Method == http.MethodPut && fault.kind == flip:
		req.Body = &spoiledBody{fault.spoil(req.Body, 0), req.Body}
	}
	forward(target, fault).ServeHTTP(w, req)
}

// spoiledBody is a body with a fault.
type spoiledBody struct {
	io.Reader
	io.Closer
}

var errAnswerLost = errors.New("the answer is to be lost")

// forward passes a request on. The Host stays the client's, as the signature covers it.
func forward(target *url.URL, fault Fault) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		ErrorLog: log.New(io.Discard, "", 0), // what goes wrong here is meant to
		// A connection for each request: none stays open when the test is over.
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		ModifyResponse: func(resp *http.Response) error {
			switch {
			case fault.kind == loseAnswer:
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				return errAnswerLost
			case fault.kind == cut || fault.kind == flip && resp.Request.Method == http.MethodGet:
				resp.Body = &spoiledBody{fault.spoil(resp.Body, 0), resp.Body}
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, req *http.Request, err error) {
			if errors.Is(err, errAnswerLost) {
				fault.answer(req.Context(), w)
				return
			}
			panic(http.ErrAbortHandler) // the server broke, or the client went
		},
	}
}

// answer tells the client of a fault, or does not.
func (f Fault) answer(ctx context.Context, w http.ResponseWriter) {
	var status *awshttp.ResponseError
	var code smithy.APIError
	switch {
	case errors.As(f.err, &status) && errors.As(f.err, &code):
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status.HTTPStatusCode())
		_ = xml.NewEncoder(w).Encode(errorAnswer{Code: code.ErrorCode(), Message: fmt.Sprint(f.error())})
	case errors.Is(f.err, os.ErrDeadlineExceeded):
		<-ctx.Done()
	default:
		panic(http.ErrAbortHandler)
	}
}

// errorAnswer is S3's own form of an error.
type errorAnswer struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
}
