//go:build unix

package ociimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// resumes is how often a download may break off without getting further, by
// at least progress bytes.
const (
	resumes  = 6
	progress = 64 << 10
)

var (
	errStalled = errors.New("the registry has sent nothing for too long")
	errBroken  = errors.New("the connection broke off")
)

// resuming goes on with a download that breaks off or stalls, from where it was.
// Whoever uses it checks digests: it does not look whether the rest fits.
type resuming struct {
	base  http.RoundTripper
	stall time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t *resuming) RoundTrip(req *http.Request) (*http.Response, error) {
	res, cancel, err := t.send(req)
	if err != nil {
		return nil, err
	}
	res.Body = &resumingBody{t: t, req: req, body: res.Body, cancel: cancel, size: res.ContentLength,
		fixed: req.Method != http.MethodGet || res.StatusCode != http.StatusOK || res.Uncompressed || res.ContentLength < 0}
	return res, nil
}

// send sends a request and waits for the header of the answer.
func (t *resuming) send(req *http.Request) (*http.Response, context.CancelCauseFunc, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(t.stall, func() { cancel(errStalled) })
	defer timer.Stop()
	res, err := t.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		if context.Cause(ctx) == errStalled {
			err = errStalled
		}
		cancel(nil)
		return nil, nil, err
	}
	return res, cancel, nil
}

// resumingBody is the body of an answer, over as many connections as it takes.
type resumingBody struct {
	t      *resuming
	req    *http.Request
	body   io.ReadCloser
	cancel context.CancelCauseFunc // of the request that body is from
	size   int64                   // of the whole body
	fixed  bool                    // it cannot be asked for from the middle
	got    int64
	skip   int64 // what body begins with once more
	mark   int64 // got when it broke off last
	breaks int
}

// Read implements io.Reader.
func (b *resumingBody) Read(p []byte) (int, error) {
	for {
		timer := time.AfterFunc(b.t.stall, func() { b.cancel(errStalled) })
		n, err := b.body.Read(p)
		stalled := !timer.Stop()
		again := int(min(b.skip, int64(n)))
		n = copy(p, p[again:n])
		b.skip -= int64(again)
		b.got += int64(n)
		switch {
		case err == nil && n == 0 && again > 0:
			continue
		case err == nil, err == io.EOF && (b.fixed || b.got >= b.size):
			return n, err
		case b.fixed, b.breaks >= resumes, b.req.Context().Err() != nil:
			if stalled && b.req.Context().Err() == nil {
				err = errStalled
			}
			if err == io.EOF { // which to a reader would be the end
				err = io.ErrUnexpectedEOF
			}
			return n, fmt.Errorf("%w: %w", errBroken, err)
		case n > 0:
			return n, nil // what is wrong shows again
		}
		b.resume()
	}
}

// resume asks for the rest. What goes wrong is read from body.
func (b *resumingBody) resume() {
	b.Close()
	if b.got-b.mark >= progress {
		b.breaks = 0
	}
	b.mark = b.got
	b.skip = 0
	select {
	case <-time.After(b.t.stall / 600 << b.breaks):
	case <-b.req.Context().Done():
		b.fail(b.req.Context().Err())
		return
	}
	b.breaks++
	req := b.req.Clone(b.req.Context())
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.got))
	res, cancel, err := b.t.send(req) //nolint:bodyclose // Close closes it
	if err != nil {
		b.fail(err)
		return
	}
	b.body, b.cancel = res.Body, cancel
	switch res.StatusCode {
	case http.StatusPartialContent:
	case http.StatusOK: // all of it again
		b.skip = b.got
	default:
		b.Close()
		b.fail(fmt.Errorf("the rest was refused with %s", res.Status))
		b.breaks = resumes
	}
}

// fail makes the next Read fail.
func (b *resumingBody) fail(err error) {
	b.body, b.cancel = io.NopCloser(&failed{err}), func(error) {}
}

// Close implements io.Closer.
func (b *resumingBody) Close() error {
	err := b.body.Close()
	b.cancel(nil)
	return err
}

// failed is a body that does not come.
type failed struct{ err error }

// Read implements io.Reader.
func (f *failed) Read([]byte) (int, error) { return 0, f.err }
