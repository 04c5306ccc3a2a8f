package s3bucket_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
)

// wire is an HTTP client in which things go wrong.
type wire struct {
	mu   sync.Mutex
	seen []string
	// fault answers a request in place of the server, or passes it on with pass
	// and spoils the answer. nil, nil: nothing goes wrong.
	fault func(n int, req *http.Request, pass func() (*http.Response, error)) (*http.Response, error)
}

func (w *wire) Do(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	kind := req.Method
	switch q := req.URL.Query(); {
	case q.Has("uploads"):
		kind += " uploads"
	case q.Has("partNumber"):
		kind += " part"
	case q.Has("uploadId"):
		kind += " upload"
	}
	w.seen = append(w.seen, kind)
	n := 0
	for _, k := range w.seen {
		if k == kind {
			n++
		}
	}
	w.mu.Unlock()
	pass := func() (*http.Response, error) { return transport.RoundTrip(req) }
	if w.fault != nil {
		req.Header.Set("X-Kind", kind) // for fault; not signed, and ignored
		if resp, err := w.fault(n, req, pass); resp != nil || err != nil {
			return resp, err
		}
	}
	return pass()
}

func (w *wire) count(kind string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.seen {
		if k == kind {
			n++
		}
	}
	return n
}

var transport = &http.Transport{DisableKeepAlives: true}

func (w *wire) bucket(server *s3test.Server) *s3bucket.Bucket {
	client := server.Client(func(o *s3.Options) { o.HTTPClient = w })
	return s3bucket.New(client, server.Bucket, &s3bucket.Options{PartSize: 5 * mib, Parallel: 2})
}

var errLost = errors.New("connection reset by the test")

// lose lets the server act on the nth request of a kind and drops its answer.
func lose(kind string, nth int) func(int, *http.Request, func() (*http.Response, error)) (*http.Response, error) {
	return func(n int, req *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
		if n != nth || req.Header.Get("X-Kind") != kind {
			return nil, nil
		}
		resp, err := pass()
		if err != nil {
			return nil, err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return nil, &lostAnswer{}
	}
}

// lostAnswer is a network error that the SDK repeats a request for.
type lostAnswer struct{}

func (*lostAnswer) Error() string   { return errLost.Error() }
func (*lostAnswer) Timeout() bool   { return true }
func (*lostAnswer) Temporary() bool { return true }

// reply makes the first times requests of a kind end with an error of S3's.
func reply(kind string, times, status int, code string) func(int, *http.Request, func() (*http.Response, error)) (*http.Response, error) {
	return func(n int, req *http.Request, _ func() (*http.Response, error)) (*http.Response, error) {
		if n > times || req.Header.Get("X-Kind") != kind {
			return nil, nil
		}
		body := fmt.Sprintf(`<?xml version="1.0"?><Error><Code>%s</Code><Message>test</Message></Error>`, code)
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
	}
}
