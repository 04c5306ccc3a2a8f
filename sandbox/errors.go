package sandbox

import "github.com/vivarium-go/vivarium/sandbox/driver"

// UnsupportedError refuses a setting that a driver cannot honour: which, why,
// and what to do instead. Reach it with errors.As; it matches
// errors.ErrUnsupported.
type UnsupportedError = driver.UnsupportedError

// Errors to match with errors.Is. A setting that a driver cannot honour is an
// *UnsupportedError.
var (
	// ErrNotFound: no sandbox has that id or name, or no snapshot that id.
	ErrNotFound = driver.ErrNotFound
	// ErrEnded: the sandbox has ended. Info says how.
	ErrEnded = driver.ErrEnded
	// ErrNameInUse: a running sandbox already has that name.
	ErrNameInUse = driver.ErrNameInUse
	// ErrExhausted: a quota or resource is used up; trying later may work.
	ErrExhausted = driver.ErrExhausted
	// ErrUnavailable: the driver's place did not answer; the operation may have happened.
	ErrUnavailable = driver.ErrUnavailable
	// ErrUnauthenticated: the driver's place refused the credentials.
	ErrUnauthenticated = driver.ErrUnauthenticated
	// ErrInvalid: the arguments are not acceptable; the text says which and why.
	ErrInvalid = driver.ErrInvalid
	// ErrNoIsolation: this machine cannot isolate a sandbox; the text names the remedy.
	ErrNoIsolation = driver.ErrNoIsolation
)

// Error is an operation on a sandbox that failed.
type Error struct {
	Op  string // such as "create" or "exec"
	ID  string // the sandbox's id; empty where there is none yet
	Err error
}

func (e *Error) Error() string {
	if e.ID == "" {
		return "sandbox: " + e.Op + ": " + e.Err.Error()
	}
	return "sandbox " + e.ID + ": " + e.Op + ": " + e.Err.Error()
}

// Unwrap gives the driver's error.
func (e *Error) Unwrap() error { return e.Err }

// wrap adds op and id once.
func wrap(op, id string, err error) error {
	if err == nil {
		return nil
	}
	if _, already := err.(*Error); already {
		return err
	}
	return &Error{Op: op, ID: id, Err: err}
}
