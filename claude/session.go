package claude

import (
	"context"
	"slices"
	"sync"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Session is a conversation with one running CLI. Its methods are safe for
// concurrent use. The caller closes it.
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

// Info is what the CLI said of itself when it started.
func (s *Session) Info() *ServerInfo { return &s.p.info }

// Query begins a turn with a prompt, with more such as Image and Document behind
// it. When ctx ends the turn is interrupted, and the session stays usable. The
// stream gives what the CLI writes from here to the turn's result; what it wrote
// since the turn before, on account of work in the background, comes first.
//
// A prompt that comes while a turn goes on waits in the CLI, which may make it
// part of that turn: then both streams end with the same result, which names
// both prompts in PromptIDs. Otherwise it has a turn of its own behind it. A
// stream that is not read holds those behind it up.
//
// After Close the error matches ErrClosed, and when the CLI has ended it is the
// *EndError that says how.
func (s *Session) Query(ctx context.Context, prompt string, more ...ContentBlock) (*Stream, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	t, err := s.p.prompt(prompt, more)
	if err != nil {
		return nil, err
	}
	st := newStream(s.p, t)
	st.interruptAfter(ctx)
	return st, nil
}

// Interrupt stops the turn that is going on and returns when the CLI has said
// that it will. The turn's stream goes on to its result, a *ResultError of
// kind KindInterrupted. Prompts that wait have their turns. Between turns it
// does nothing.
func (s *Session) Interrupt(ctx context.Context) error {
	s.p.mu.Lock()
	var t *turn
	if len(s.p.turns) > 0 {
		t = s.p.turns[0]
	}
	s.p.mu.Unlock()
	if t == nil {
		return nil
	}
	return s.p.interrupt(ctx, t)
}

// WaitIdle waits until the session has nothing left to do: no turn goes on, no
// command and no subagent runs in the background, and what the CLI says when one
// has ended is said. The end of a turn is another thing: its result comes before.
// What is said meanwhile is kept for the next turn's stream, up to 256 MiB. When
// the CLI ends first the error is its *EndError.
func (s *Session) WaitIdle(ctx context.Context) error {
	s.p.hold()
	defer s.p.unhold()
	for {
		idle, changed := s.p.isIdle()
		if idle {
			return nil
		}
		select {
		case <-changed:
		case <-s.p.done:
			return s.p.end
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// isIdle reports whether there is nothing left to do, and gives what is closed
// when that may have changed.
func (p *process) isIdle() (idle bool, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	busy := len(p.turns) > 0 || p.state != "" && p.state != "idle" || p.hasTasks()
	return !busy, p.changed
}

// hasTasks reports whether work goes on in the background that has an end. The
// caller holds mu.
func (p *process) hasTasks() bool {
	return slices.ContainsFunc(p.tasks, func(t BackgroundTask) bool { return !t.Ambient })
}

// Close ends the session and its processes: between turns the CLI is left to end
// by itself for a few seconds, then told to by SIGTERM, and killed at last; a turn
// that is going on is killed at once. It returns when all is gone, callbacks
// too. The conversation can be resumed. Closing again does nothing.
func (s *Session) Close() error {
	s.close.Do(func() {
		s.p.mu.Lock()
		busy := len(s.p.turns) > 0
		for _, t := range s.p.turns {
			t.queue.drop()
		}
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
