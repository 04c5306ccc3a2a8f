package claude

import (
	"context"
	"iter"
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
type Stream struct{}

// SessionID is the conversation's id: what Options.Resume takes.
func (s *Stream) SessionID() string { return "" }

// Read gives the lines of the CLI as bytes, each whole line ended by a newline.
// io.EOF means that a result was among them, whatever it says; a stream that
// ends without one ends with an *EndError.
func (s *Stream) Read(p []byte) (int, error) { return 0, errSkeleton }

// Lines yields the lines of the CLI, each with its newline; there is no limit
// to their length. A line is the receiver's to keep. The end is as that of Read,
// with an error as the last thing yielded. It can be ranged over once; breaking
// off closes the stream.
func (s *Stream) Lines() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) { yield(nil, errSkeleton) }
}

// Messages yields the lines of the CLI as messages, those of unknown types too.
//
// A line that is not a message is yielded with a *ProtocolError and as
// Message.Raw, and the iteration goes on. Any other error is the last thing
// yielded, and the one that Result returns: *ResultError for a turn that failed,
// *EndError for a stream without a result. A loop that returns on every error
// has nothing else to check. It can be ranged over once; breaking off closes
// the stream.
func (s *Stream) Messages() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) { yield(Message{}, errSkeleton) }
}

// Text yields what Claude says to the user as it comes: word by word with
// Options.Partial, otherwise block by block, and never twice. What subagents
// say, thinking and the use of tools are left out. Blocks that follow another
// begin with an empty line. Lines that are not messages are passed over; errors
// and the rest are as with Messages.
func (s *Stream) Text() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield("", errSkeleton) }
}

// Result reads what is left of the stream and returns its result: the last one,
// where work in the background made Claude go on after the first. With a
// *ResultError the Result is there as well, for what it cost. Without a result
// the error is an *EndError, also when Close came first; it says nothing about
// what Claude did until then. Calling it again returns the same.
func (s *Stream) Result() (*Result, error) { return nil, errSkeleton }

// Interrupt is Session.Interrupt for this turn: Claude stops, the result still
// comes, and the conversation can go on. When the turn is over it does nothing.
func (s *Stream) Interrupt(ctx context.Context) error { return errSkeleton }

// Close ends the reading. A run of Query that has not ended is killed with every
// process that came from it; a turn of a Session is interrupted, and what is left
// of it thrown away. It returns when that is done. Closing again does nothing.
func (s *Stream) Close() error { return errSkeleton }
