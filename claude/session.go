package claude

import (
	"context"
	"sync"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Session is a conversation with one running CLI. One turn goes on at a time;
// its methods are safe for concurrent use. The caller closes it.
type Session struct {
	p     *process
	close sync.Once
}

func newSession(ctx context.Context, sb *sandbox.Sandbox, opts *Options) (*Session, error) {
	p, err := start(ctx, sb, opts, false)
	if err != nil {
		return nil, err
	}
	return &Session{p: p}, nil
}

// ID is the conversation's id: what Client.Resume takes. It is known from the
// start; a "/clear" changes it.
func (s *Session) ID() string { return s.p.sessionID() }

// Send begins a turn with a prompt. When ctx ends the turn is interrupted, and
// the session stays usable. The stream gives what the CLI writes from here to
// the turn's result; what it wrote since the turn before, on account of work in
// the background, comes first.
//
// While the turn before has not ended the error matches ErrBusy; reading its
// stream to the end, or closing it, ends it. After Close the error matches
// ErrClosed, and when the CLI has ended it is the *EndError that says how.
func (s *Session) Send(ctx context.Context, prompt string) (*Stream, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	t, err := s.p.prompt(prompt)
	if err != nil {
		return nil, err
	}
	st := newStream(s.p, t)
	st.interruptAfter(ctx)
	return st, nil
}

// Interrupt stops the turn that is going on and returns when the CLI has said
// that it will. The turn's stream goes on to its result, a *ResultError of
// kind KindInterrupted. Between turns it does nothing.
func (s *Session) Interrupt(ctx context.Context) error {
	s.p.mu.Lock()
	t := s.p.turn
	s.p.mu.Unlock()
	if t == nil {
		return nil
	}
	return s.p.interrupt(ctx, t)
}

// SetModel changes the model from the next request on; "" is the CLI's default.
// A model that the CLI refuses is a *ControlError.
func (s *Session) SetModel(ctx context.Context, model string) error {
	return s.request(ctx, "set_model", struct {
		Model string `json:"model,omitempty"`
	}{model})
}

// SetPermissionMode changes what Claude may do without asking. A mode that the
// CLI refuses is a *ControlError: PermissionBypass is one unless the session
// began with it.
func (s *Session) SetPermissionMode(ctx context.Context, mode PermissionMode) error {
	return s.request(ctx, "set_permission_mode", struct {
		Mode PermissionMode `json:"mode"`
	}{mode})
}

func (s *Session) request(ctx context.Context, subtype string, body any) error {
	if s.p.in.isClosed() {
		return ErrClosed
	}
	return s.p.request(ctx, subtype, body, nil)
}

// Close ends the session and its processes: between turns the CLI is left to
// end by itself for a few seconds, a turn that is going on is killed. It returns
// when all is gone. The conversation can be resumed. Closing again does nothing.
func (s *Session) Close() error {
	s.close.Do(func() {
		s.p.mu.Lock()
		busy := s.p.turn != nil
		s.p.queue.drop()
		s.p.mu.Unlock()
		if busy {
			s.p.in.close()
			s.p.kill(ErrClosed)
			return
		}
		s.p.wind(closeGrace)
	})
	return nil
}
