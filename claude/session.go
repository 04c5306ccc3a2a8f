package claude

import "context"

// Session is a conversation with one running CLI. One turn goes on at a time;
// its methods are safe for concurrent use. The caller closes it.
type Session struct{}

// ID is the conversation's id: what Client.Resume takes.
func (s *Session) ID() string { return "" }

// Send begins a turn with a prompt. When ctx ends the turn is interrupted, and
// the session stays usable. The stream gives what the CLI writes from here to
// the turn's result; what it wrote since the turn before, on account of work in
// the background, comes first.
//
// While the turn before has not ended the error matches ErrBusy; reading its
// stream to the end, or closing it, ends it. After Close the error matches
// ErrClosed, and when the CLI has ended it is the *EndError that says how.
func (s *Session) Send(ctx context.Context, prompt string) (*Stream, error) {
	return nil, errSkeleton
}

// Interrupt stops the turn that is going on and returns when the CLI has said
// that it will. The turn's stream goes on to its result, a *ResultError of
// kind KindInterrupted. Between turns it does nothing.
func (s *Session) Interrupt(ctx context.Context) error { return errSkeleton }

// SetModel changes the model from the next request on; "" is the CLI's default.
func (s *Session) SetModel(ctx context.Context, model string) error { return errSkeleton }

// SetPermissionMode changes what Claude may do without asking.
func (s *Session) SetPermissionMode(ctx context.Context, mode PermissionMode) error {
	return errSkeleton
}

// Close ends the session and its processes: between turns the CLI is left to
// end by itself, a turn that is going on is killed. It returns when all is gone.
// The conversation can be resumed. Closing again does nothing.
func (s *Session) Close() error { return errSkeleton }
