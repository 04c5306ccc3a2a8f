package modalbox

import (
	"context"
	"errors"
	"os"
	"strings"

	modal "github.com/modal-labs/modal-client/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Error is something that Modal, or its client, refused or failed to do. It
// matches one of package driver's sentinels, context.DeadlineExceeded,
// errors.ErrUnsupported or os.ErrClosed, as well as what the client returned.
type Error struct {
	Op     string // such as "create sandbox"
	Kind   error  // the sentinel it matches; nil where there is none
	Remedy string // what to do about it; may be empty
	Err    error  // as Modal's client returned it
}

func (e *Error) Error() string {
	text := "modal: " + e.Op + ": " + e.Err.Error()
	if e.Remedy != "" {
		text += " (" + e.Remedy + ")"
	}
	return text
}

// Unwrap gives Kind and Err.
func (e *Error) Unwrap() []error {
	if e.Kind == nil {
		return []error{e.Err}
	}
	return []error{e.Kind, e.Err}
}

// What to do about each kind of error.
var remedies = map[error]string{
	driver.ErrNotFound:        "check the name and the Modal environment; what has ended is forgotten after a while",
	driver.ErrNameInUse:       "terminate the sandbox of that name, or use another",
	driver.ErrEnded:           "create another sandbox; Info says how this one ended",
	driver.ErrExhausted:       "try again later, or raise the limits of the Modal workspace",
	driver.ErrUnavailable:     "try again; see status.modal.com",
	driver.ErrUnauthenticated: "check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or the profile in ~/.modal.toml",
	context.DeadlineExceeded:  "try again, with more time",
}

// wrap says in terms of package driver what went wrong. An error that says so
// already, and a context's, stay as they are.
func wrap(op string, err error) error {
	if err == nil || isOurs(err) {
		return err
	}
	kind := kindOf(err)
	return &Error{Op: op, Kind: kind, Remedy: remedies[kind], Err: err}
}

func isOurs(err error) bool {
	if err == context.Canceled || err == context.DeadlineExceeded || errors.Is(err, os.ErrClosed) {
		return true
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[*driver.UnsupportedError](err); ok {
		return true
	}
	return errors.Is(err, driver.ErrInvalid) || errors.Is(err, driver.ErrEnded)
}

// kindOf finds the sentinel for an error of the client, nil if there is none.
func kindOf(err error) error {
	for _, k := range clientKinds {
		if k.is(err) {
			return k.kind
		}
	}
	if s, ok := status.FromError(err); ok {
		return codeKinds[s.Code()]
	}
	return nil
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// clientKinds are the types of errors that the client makes of its own.
var clientKinds = []struct {
	is   func(error) bool
	kind error
}{
	{is[modal.NotFoundError], driver.ErrNotFound},
	{is[modal.AlreadyExistsError], driver.ErrNameInUse},
	{is[modal.ConflictError], driver.ErrEnded},
	{is[modal.InvalidError], driver.ErrInvalid},
	{is[modal.RemoteError], driver.ErrInvalid},
	{is[modal.ResourceExhaustedError], driver.ErrExhausted},
	{is[modal.InternalFailure], driver.ErrUnavailable},
	{is[modal.SnapshotCreationError], driver.ErrUnavailable},
	{is[modal.TimeoutError], context.DeadlineExceeded},
	{is[modal.SandboxTimeoutError], context.DeadlineExceeded},
	{is[modal.ExecTimeoutError], context.DeadlineExceeded},
	{is[modal.ClientClosedError], os.ErrClosed},
}

var codeKinds = map[codes.Code]error{
	codes.NotFound:           driver.ErrNotFound,
	codes.AlreadyExists:      driver.ErrNameInUse,
	codes.ResourceExhausted:  driver.ErrExhausted,
	codes.Unauthenticated:    driver.ErrUnauthenticated,
	codes.PermissionDenied:   driver.ErrUnauthenticated,
	codes.InvalidArgument:    driver.ErrInvalid,
	codes.OutOfRange:         driver.ErrInvalid,
	codes.FailedPrecondition: driver.ErrInvalid,
	codes.Unavailable:        driver.ErrUnavailable,
	codes.Internal:           driver.ErrUnavailable,
	codes.Unknown:            driver.ErrUnavailable,
	codes.Aborted:            driver.ErrUnavailable,
	codes.DataLoss:           driver.ErrUnavailable,
	codes.Canceled:           driver.ErrUnavailable,
	codes.DeadlineExceeded:   context.DeadlineExceeded,
	codes.Unimplemented:      errors.ErrUnsupported,
}

// isDefinite reports whether an error says that nothing was done. Otherwise an
// answer may have been lost after Modal had acted.
func isDefinite(err error) bool {
	if s, ok := status.FromError(err); ok {
		switch s.Code() {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.Unknown, codes.Aborted:
			return false
		}
	}
	return true
}

// redacted is an error whose text held a secret.
type redacted struct {
	kind error
	text string
}

func (r *redacted) Error() string { return r.text }
func (r *redacted) Unwrap() error { return r.kind }

// redact keeps secrets out of an error: Modal's text can quote a request, or
// what a command of an image printed.
func redact(err error, secrets ...driver.Secrets) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	clean := text
	for _, list := range secrets {
		for _, kv := range list {
			if _, v, _ := strings.Cut(kv, "="); len(v) >= minSecret {
				clean = strings.ReplaceAll(clean, v, "[redacted]")
			}
		}
	}
	if clean == text {
		return err
	}
	kind := error(nil)
	if e, ok := errors.AsType[*Error](err); ok {
		kind = e.Kind
	}
	return &redacted{kind: kind, text: clean}
}

// minSecret is the shortest value that is looked for: a shorter one is in any text.
const minSecret = 4
