package storagetest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// ErrInjected is matched by every error that a Faulty makes up.
var ErrInjected = errors.New("injected fault")

// Errors for [Fault.With], as the AWS SDK reports them once it has given up. What
// else a server can say is made by [S3Error].
var (
	// ErrInternal is S3's 500 InternalError.
	ErrInternal = S3Error(http.StatusInternalServerError, "InternalError")
	// ErrUnavailable is S3's 503 ServiceUnavailable.
	ErrUnavailable = S3Error(http.StatusServiceUnavailable, "ServiceUnavailable")
	// ErrSlowDown is S3's 503 SlowDown: too many requests.
	ErrSlowDown = S3Error(http.StatusServiceUnavailable, "SlowDown")
	// ErrTimeout is a server that did not answer in time. It matches
	// os.ErrDeadlineExceeded.
	ErrTimeout error = &smithy.OperationError{ServiceID: "S3", OperationName: "Injected",
		Err: &smithyhttp.RequestSendError{Err: os.ErrDeadlineExceeded}}
)

// S3Error makes the error that the AWS SDK reports when S3 answers with an HTTP
// status and a code of its own, such as 403 and "AccessDenied".
func S3Error(status int, code string) error {
	response := &http.Response{StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)), Header: http.Header{}, Body: http.NoBody}
	return &smithy.OperationError{ServiceID: "S3", OperationName: "Injected", Err: &awshttp.ResponseError{
		ResponseError: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: response},
			Err:      &smithy.GenericAPIError{Code: code, Message: "injected by a test"},
		},
		RequestID: "INJECTED",
	}}
}

// Fault says what goes wrong with one call. The zero value is [None]. Faults can be
// compared, and its methods derive one from another:
//
//	storagetest.LoseAnswer.With(storagetest.ErrSlowDown)
//	storagetest.Cut.After(1000)
type Fault struct {
	kind  kind
	err   error // nil: ErrInjected
	after int64 // 1 more than the bytes that pass; 0: as the bucket says
	crash bool
}

type kind int

const (
	none kind = iota
	fail
	loseAnswer
	cut
	flip
	stale
)

// The faults there are.
var (
	// None lets the call through.
	None = Fault{}
	// Fail returns an error without doing anything.
	Fail = Fault{kind: fail}
	// LoseAnswer does the whole call and then returns an error. A get, a stat and
	// a list are as with Fail: their answer is all they do.
	LoseAnswer = Fault{kind: loseAnswer}
	// Cut breaks a stream after some bytes, or half way through the objects of a
	// list. Of a put, nothing is stored. A stat and a delete are as with Fail.
	Cut = Fault{kind: cut}
	// Flip changes one bit, of the byte after so many bytes, in what is put or got,
	// and reports nothing. A shorter stream, and any other call, is let through.
	Flip = Fault{kind: flip}
	// Stale gives a list that does not know of the newest changes: it lacks the
	// newest objects and still shows those just deleted. See Faulty.Lag. Any other call
	// is let through.
	Stale = Fault{kind: stale}
)

// With gives f with err as what it reports, which then matches both err and
// ErrInjected. Nil means ErrInjected alone.
func (f Fault) With(err error) Fault {
	f.err = err
	return f
}

// After gives f, a Cut or a Flip, at the place in a stream behind n bytes.
func (f Fault) After(n int64) Fault {
	f.after = n + 1
	return f
}

// Crash gives f as the last of a process's doings: once it has happened every
// later call fails, with the same error, and so does every stream that is open.
// A put that began before may still be stored, as a real one might.
func (f Fault) Crash() Fault {
	f.crash = true
	return f
}

// String names the fault.
func (f Fault) String() string {
	text := [...]string{"none", "fail", "lose answer", "cut", "flip", "stale"}[f.kind]
	if f.after > 0 {
		text += fmt.Sprintf(" after %d bytes", f.after-1)
	}
	if f.err != nil {
		text += " with " + f.err.Error()
	}
	if f.crash {
		text += " and crash"
	}
	return text
}

// fails reports whether a call fails that has no stream.
func (f Fault) fails() bool { return f.kind == fail || f.kind == loseAnswer || f.kind == cut }

func (f Fault) error() error {
	switch {
	case f.err == nil:
		return ErrInjected
	case errors.Is(f.err, ErrInjected):
		return f.err
	}
	return &injectedError{f.err}
}

// injectedError is what a fault reports in a caller's words.
type injectedError struct{ err error }

func (e *injectedError) Error() string { return ErrInjected.Error() + ": " + e.err.Error() }

func (e *injectedError) Unwrap() []error { return []error{ErrInjected, e.err} }

// spoil does to a stream what f says.
func (f Fault) spoil(r io.Reader, cutAfter int64) io.Reader {
	if f.after > 0 {
		cutAfter = f.after - 1
	}
	switch f.kind {
	case cut:
		return &breakingStream{r: io.LimitReader(r, cutAfter), err: f.error()}
	case flip:
		return &flipStream{r: r, left: cutAfter}
	}
	return r
}

// breakingStream ends with err, even where r is shorter than its limit.
type breakingStream struct {
	r   io.Reader
	err error
}

func (c *breakingStream) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err == io.EOF {
		err = c.err
	}
	return n, err
}

// brokenBy reports whether a stream breaks by itself.
func brokenBy(r io.Reader) bool {
	_, ok := r.(*breakingStream)
	return ok
}

// flipStream changes the byte after left bytes.
type flipStream struct {
	r    io.Reader
	left int64
}

func (f *flipStream) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if f.left >= 0 && f.left < int64(n) {
		p[f.left] ^= 1
	}
	f.left -= int64(n)
	return n, err
}

// Nth is a Plan that lets fault happen to the nth call, counted from 1.
func Nth(n int, fault Fault) func(Call) Fault {
	return func(c Call) Fault { return fault.onlyIf(c.N == n) }
}

// NthOf is a Plan that lets fault happen to the nth call with an op, counted from 1.
func NthOf(op Op, n int, fault Fault) func(Call) Fault {
	return func(c Call) Fault { return fault.onlyIf(c.Op == op && c.OfOp == n) }
}

// First is a Plan that lets fault happen to the first n calls with an op, or with
// any where op is "".
func First(op Op, n int, fault Fault) func(Call) Fault {
	return func(c Call) Fault {
		return fault.onlyIf(op == "" && c.N <= n || c.Op == op && c.OfOp <= n)
	}
}

// Every is a Plan that lets fault happen to all calls with one of ops, or to all
// calls where none is named.
func Every(fault Fault, ops ...Op) func(Call) Fault {
	return func(c Call) Fault {
		for _, op := range ops {
			if c.Op == op {
				return fault
			}
		}
		return fault.onlyIf(len(ops) == 0)
	}
}

// Crash is a Plan of a process that dies at the nth call, counted from 1: fault,
// such as Fail (before the bucket acts) or LoseAnswer (after), happens to
// it, and every later call fails.
func Crash(n int, fault Fault) func(Call) Fault { return Nth(n, fault.Crash()) }

func (f Fault) onlyIf(yes bool) Fault {
	if yes {
		return f
	}
	return None
}
