package claude

import (
	"errors"
	"fmt"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Errors to match with errors.Is.
var (
	// ErrNoResult: the CLI's output ended without a result, so that nobody
	// knows whether it did what it was asked. The error is an *EndError.
	ErrNoResult = errors.New("claude: the stream ended without a result")
	// ErrClosed: the stream or session was closed here first.
	ErrClosed = errors.New("claude: closed")
	// ErrDetached: this process has let go of a run that Client.Start or Adopt began to
	// follow. It goes on in the sandbox; Client.Adopt takes it over. The error is an
	// *EndError.
	ErrDetached = errors.New("claude: let go of; the run goes on in the sandbox")
	// ErrTakenBack: the prompt was interrupted before Claude began with it. The
	// error is an *EndError.
	ErrTakenBack = errors.New("claude: the prompt was taken back before Claude began with it")
	// ErrNoOutput: the turn ended without the output that Options.OutputSchema
	// asks for. The error is a *ResultError.
	ErrNoOutput = errors.New("claude: the turn ended without structured output")
	// ErrSessionInUse: the conversation is open in that sandbox already, by this
	// process or another. The CLI does not notice two who write to one.
	ErrSessionInUse = errors.New("claude: the conversation is in use")
	// ErrUnknownConversation: the conversation to resume is not in the sandbox.
	ErrUnknownConversation = errors.New("claude: no such conversation in the sandbox")
	// ErrNotDeferred: no use of a tool waits in the conversation that Options.Answers
	// are for. It was answered before, or something else was said since.
	ErrNotDeferred = errors.New("claude: nothing was put off in the conversation")
	// ErrNotReading: the CLI asked for so much without reading the answers that
	// it was killed. The error is an *EndError.
	ErrNotReading = errors.New("claude: the CLI asks and does not read the answers")
	// ErrConsumed: the stream was ranged over, or read, in another way before.
	ErrConsumed = errors.New("claude: the stream is already being read in another way")
)

// StartError is a CLI that did not get as far as taking a prompt. When there is
// no such program it matches exec.ErrNotFound, and when it took too long
// context.DeadlineExceeded.
type StartError struct {
	// Stderr is the end of what the CLI wrote to stderr, without secrets.
	Stderr string
	// Remedy says what to do about it, where that is known.
	Remedy string
	// Err is the cause; a *sandbox.ExitError when the CLI ended.
	Err error
}

func (e *StartError) Error() string {
	text := "claude: the CLI did not start: " + e.Err.Error()
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	if e.Remedy != "" {
		text += " (" + e.Remedy + ")"
	}
	return text
}

// Unwrap gives Err.
func (e *StartError) Unwrap() error { return e.Err }

// EndError is an output of the CLI that ended without a result. It matches
// ErrNoResult and Err.
type EndError struct {
	// Stderr is the end of what the CLI wrote to stderr, without secrets.
	Stderr string
	// SandboxEnd is how the sandbox ended, if it did.
	SandboxEnd sandbox.End
	// Err is why: a *sandbox.ExitError, the context's error, ErrClosed, an
	// error that matches sandbox.ErrEnded, or nil when the CLI said it had
	// succeeded.
	Err error
}

func (e *EndError) Error() string {
	text := ErrNoResult.Error()
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.SandboxEnd != "" {
		text += fmt.Sprintf(" (the sandbox ended: %s)", e.SandboxEnd)
	}
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	return text
}

// Unwrap gives ErrNoResult and Err.
func (e *EndError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrNoResult}
	}
	return []error{ErrNoResult, e.Err}
}

// ProtocolError is a line of the CLI's output that is not a message. The lines
// after it are not affected. The last line of a stream that was cut off matches
// io.ErrUnexpectedEOF.
type ProtocolError struct {
	Line []byte // whole, without its newline
	Err  error  // what is wrong with it
}

func (e *ProtocolError) Error() string {
	const shown = 200
	line := e.Line
	if len(line) > shown {
		line = line[:shown]
	}
	return fmt.Sprintf("claude: a line of %d bytes is not a message: %v: %q", len(e.Line), e.Err, line)
}

// Unwrap gives Err.
func (e *ProtocolError) Unwrap() error { return e.Err }

// LineTooLongError is a line longer than Options.MaxLine, which was passed over.
// The lines before and after it are not affected. Where the line was what the
// CLI had to say at its start, it is part of the *StartError.
type LineTooLongError struct {
	Limit int64 // Options.MaxLine, in bytes
}

func (e *LineTooLongError) Error() string {
	return fmt.Sprintf("claude: the CLI wrote a line of more than %d bytes, which Options.MaxLine allows", e.Limit)
}

// ControlError is a control request that the CLI refused.
type ControlError struct {
	Request string // such as "set_model"
	Message string // the CLI's words
}

func (e *ControlError) Error() string {
	return "claude: " + e.Request + ": " + e.Message
}

// Kind is why a turn failed.
type Kind string

// The kinds.
const (
	KindInterrupted    Kind = "interrupted"    // Interrupt, or its context's end, stopped it
	KindMaxTurns       Kind = "max_turns"      // Options.MaxTurns was reached
	KindBudget         Kind = "budget"         // Options.MaxBudgetUSD was reached
	KindAuthentication Kind = "authentication" // the model's API refused the key (401, 403)
	KindRateLimit      Kind = "rate_limit"     // too many requests, or the plan is used up (429)
	KindOverloaded     Kind = "overloaded"     // the model's API is too busy (529, 503)
	KindInvalid        Kind = "invalid"        // the model's API refused the request (400, 404, 413)
	KindAPI            Kind = "api"            // the model's API failed in another way, or was not reached
	KindNoOutput       Kind = "no_output"      // the output of Options.OutputSchema is missing
	KindExecution      Kind = "execution"      // anything else that the CLI reports
)

// isAPI reports whether the model's API has failed.
func (k Kind) isAPI() bool {
	switch k {
	case KindAuthentication, KindRateLimit, KindOverloaded, KindInvalid, KindAPI:
		return true
	}
	return false
}

// APIError is a failure of the model's API that ended a turn, as a part of the
// *ResultError.
type APIError struct {
	Status  int    // the HTTP status; 0 where there was no answer
	Kind    Kind   // such as KindRateLimit
	Message string // the CLI's words
}

func (e *APIError) Error() string {
	if e.Status == 0 {
		return "the model's API: " + e.Message
	}
	return fmt.Sprintf("the model's API: HTTP status %d: %s", e.Status, e.Message)
}

// Temporary reports whether the same request may succeed later.
func (e *APIError) Temporary() bool {
	return e.Kind == KindRateLimit || e.Kind == KindOverloaded || e.Kind == KindAPI
}

// ResultError is a turn that ended with a result that says it failed. One that
// was interrupted because a context ended matches that context's error.
type ResultError struct {
	Kind Kind
	// Result is the whole result, with what the turn cost.
	Result *ResultMessage
	// Err is the context's error when its end is why the turn was stopped, an
	// *APIError when the model's API failed, ErrNoOutput where output is missing,
	// and otherwise nil.
	Err error
}

func (e *ResultError) Error() string {
	text := "claude: the turn failed (" + string(e.Kind) + ")"
	if words := e.Result.words(); words != "" && !e.Kind.isAPI() {
		text += ": " + words
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap gives Err.
func (e *ResultError) Unwrap() error { return e.Err }

// Temporary reports whether the same prompt may succeed later: the model's API
// was too busy, or failed on its own account.
func (e *ResultError) Temporary() bool {
	return e.Kind == KindRateLimit || e.Kind == KindOverloaded || e.Kind == KindAPI
}
