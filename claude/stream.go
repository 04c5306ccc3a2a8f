package claude

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"sync/atomic"
)

// Stream is what the CLI writes in one run, or in one turn of a Session, as it
// happens.
//
// It can be read in one of four ways: Read gives bytes and Lines whole lines,
// exactly as the CLI wrote them; Messages gives them as messages; Text only the
// words. The first used is the only one: a stream is read once, and the
// others answer ErrConsumed. Result comes after any of them, or alone; it reads
// what is left. The lines of the control protocol, in which this package and the
// CLI talk about the conversation, are not part of the stream.
//
// A stream that is not read stands still: a few MiB are kept for the reader,
// then the CLI waits for it.
//
// Reading is for one goroutine at a time. Interrupt, SessionID and Close are
// safe to call from others.
type Stream struct {
	p *process
	t *turn

	way     string // how it is read; "" until it is
	waiting []entry
	next    int    // in waiting
	rest    []byte // of a line that Read has begun with
	read    bool   // the end was reached
	events  eventRoom

	unwatch func() bool // stops waiting for the context of Session.Send
	closing sync.Once
	closed  atomic.Bool
}

var _ io.ReadCloser = (*Stream)(nil)

func newStream(p *process, t *turn) *Stream {
	return &Stream{p: p, t: t, unwatch: func() bool { return true }}
}

// interruptAfter interrupts the turn when ctx ends first.
func (s *Stream) interruptAfter(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		s.p.mu.Lock()
		s.t.cause = context.Cause(ctx)
		s.p.mu.Unlock()
		s.p.stop(s.t)
	})
	s.unwatch = stop
}

// SessionID is the conversation's id: what Options.Resume takes.
func (s *Stream) SessionID() string { return s.p.sessionID() }

// PromptID is the prompt's own id, as ResultMessage.PromptIDs and
// Session.RewindFiles have it.
func (s *Stream) PromptID() string { return s.t.id }

// use reports whether the stream may be read in a way.
func (s *Stream) use(way string) error {
	if s.way == "" {
		s.way = way
	}
	if s.way != way {
		return ErrConsumed
	}
	return nil
}

// line gives the next line; none means that the stream is over.
func (s *Stream) line() (*entry, bool) {
	for s.next == len(s.waiting) {
		if s.closed.Load() {
			return nil, false
		}
		s.waiting, s.next = s.t.queue.take(s.waiting), 0
		if len(s.waiting) == 0 {
			return nil, false
		}
	}
	if s.closed.Load() {
		return nil, false
	}
	s.next++
	return &s.waiting[s.next-1], true
}

// err is how the turn ended, for a reader who has come to its end.
func (s *Stream) err() error {
	<-s.t.over
	s.unwatch()
	if s.t.result == nil && s.closed.Load() {
		return &EndError{Err: ErrClosed}
	}
	return s.t.err(s.p)
}

// cutErr is err for those who read bytes: any result is a proper end.
func (s *Stream) cutErr() error {
	err := s.err()
	var failed *ResultError
	if errors.As(err, &failed) {
		return nil
	}
	return err
}

// Read gives the lines of the CLI as bytes, each whole line ended by a newline.
// io.EOF means that a result was among them, whatever it says; a stream that
// ends without one ends with an *EndError, and its last line may have been cut.
// A line beyond Options.MaxLine is a *LineTooLongError, after which reading can
// go on.
func (s *Stream) Read(p []byte) (int, error) {
	if err := s.use("Read"); err != nil {
		return 0, err
	}
	if len(s.rest) == 0 {
		e, ok := s.line()
		if !ok {
			if err := s.cutErr(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		if err := e.tooLong(); err != nil {
			return 0, err
		}
		s.rest = e.line
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Lines yields the lines of the CLI, each with its newline. A line shares memory
// with its neighbours: clone one that is to be kept for long, and do not change
// it. One beyond Options.MaxLine is yielded as nil and a *LineTooLongError, and
// the iteration goes on. The end is as that of Read, with any other error as the
// last thing yielded. It can be ranged over once; breaking off closes the stream.
func (s *Stream) Lines() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if !s.begin("Lines") {
			yield(nil, ErrConsumed)
			return
		}
		defer s.unlessRead()
		for {
			e, ok := s.line()
			if !ok {
				break
			}
			if !yield(e.line, e.tooLong()) {
				return
			}
		}
		s.read = true
		if err := s.cutErr(); err != nil {
			yield(nil, err)
		}
	}
}

// unlessRead closes a stream that was broken off, also by a panic of the loop's body.
func (s *Stream) unlessRead() {
	if !s.read {
		_ = s.Close()
	}
}

// begin is use for what can be ranged over once.
func (s *Stream) begin(way string) bool {
	if s.way != "" {
		return false
	}
	s.way = way
	return true
}

// Messages yields the lines of the CLI as messages, those of unknown types too.
//
// A line that is not a message is yielded as a *ProtocolError that has it, one
// beyond Options.MaxLine as a *LineTooLongError, and the iteration goes on. Any
// other error is the last thing yielded, and the one that Result returns:
// *ResultError for a turn that failed, *EndError for a stream without a result. A
// loop that returns on every error has nothing else to check. With an error the
// message is nil. It can be ranged over once; breaking off closes the stream.
func (s *Stream) Messages() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		if !s.begin("Messages") {
			yield(nil, ErrConsumed)
			return
		}
		defer s.unlessRead()
		for {
			e, ok := s.line()
			if !ok {
				break
			}
			if e.env.typ == typeStreamEvent {
				e.msg = s.events.new(&e.env)
			}
			if !yield(e.message(), e.err) {
				return
			}
		}
		s.read = true
		if err := s.err(); err != nil {
			yield(nil, err)
		}
	}
}

// Text yields what Claude says to the user as it comes: word by word with
// Options.Partial, otherwise block by block, and never twice. What subagents
// say, thinking and the use of tools are left out, and so is what the CLI says
// about a failure, which is in the error. A block that follows another begins
// with an empty line. Lines that are not messages are passed over; errors and
// the rest are as with Messages.
func (s *Stream) Text() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if !s.begin("Text") {
			yield("", ErrConsumed)
			return
		}
		defer s.unlessRead()
		var w words
		for {
			e, ok := s.line()
			if !ok {
				break
			}
			if text := w.of(e); text != "" && !yield(text, nil) {
				return
			}
		}
		s.read = true
		if err := s.err(); err != nil {
			yield("", err)
		}
	}
}

// Result reads what is left of the stream and returns its result: the last one,
// where work in the background made Claude go on after the first. With a
// *ResultError the Result is there as well, for what it cost. Without a result
// the error is an *EndError, also when Close came first; it says nothing about
// what Claude did until then. Calling it again returns the same.
func (s *Stream) Result() (*ResultMessage, error) {
	if s.way == "" {
		s.way = "Result"
	}
	for {
		if _, ok := s.line(); !ok {
			break
		}
	}
	err := s.err()
	return s.t.result, err
}

// Interrupt is Session.Interrupt for this turn: Claude stops, the result still
// comes, and the conversation can go on. When the turn is over it does nothing.
func (s *Stream) Interrupt(ctx context.Context) error { return s.p.interrupt(ctx, s.t) }

// Close ends the reading. A run of Query that has not ended is killed with every
// process that came from it, though one that has its result may first end by
// itself for a few seconds; a turn of a Session is interrupted, and what is left
// of it thrown away. It returns when that is done. Closing again does nothing.
func (s *Stream) Close() error {
	s.closing.Do(func() {
		s.closed.Store(true)
		s.unwatch()
		s.t.queue.drop()
		select {
		case <-s.t.over:
			return
		default:
		}
		switch {
		case !s.p.oneShot:
			s.p.stop(s.t)
		case s.p.hasAnswered():
			s.p.wind(closeGrace)
		default:
			s.p.kill(ErrClosed)
		}
	})
	return nil
}
