package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Errors of writing to a process's standard input.
var (
	// ErrGap: bytes between those that have come and the ones given are missing.
	ErrGap = errors.New("stdin offset is beyond what was written so far")
	// ErrStdinClosed: the process, or the writer, has closed the stream.
	ErrStdinClosed = errors.New("stdin is closed")
	// ErrEvicted: another stream writes to this input now.
	ErrEvicted = errors.New("another stdin stream has taken over")
)

// queueSize bounds what waits for a process that does not read.
const queueSize = 1 << 20

// Stdin is the standard input of a process, written by offset: bytes that came
// before are skipped, so that whoever does not know whether they arrived sends
// them again. Its methods are safe for concurrent use.
type Stdin struct {
	mu       sync.Mutex
	wake     chan struct{} // closed at the next change; nil while nobody waits
	queue    [][]byte
	queued   int
	accepted int64
	eof      bool
	broken   bool           // nobody reads any more
	stream   *Stream        // the one that counts
	dst      io.WriteCloser // nil where read is used instead
	pumping  bool
	pumps    sync.WaitGroup
}

// Write takes data that belongs at offset off, and then the end if eof is set.
// It returns when all of it is accepted; what could not be when ctx is done is
// not counted. The caller does not change data afterwards.
func (s *Stdin) Write(ctx context.Context, off uint64, data []byte, eof bool) error {
	return s.write(ctx, nil, off, data, eof)
}

// Status is how many bytes were accepted, and whether the end was. It evicts
// the stream that is open, since who asks is about to open another.
func (s *Stdin) Status() (accepted uint64, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evict(nil)
	return uint64(s.accepted), s.eof
}

// Stream is one of many writers, of which the newest counts. It is for one
// goroutine.
type Stream struct {
	stdin *Stdin
	next  uint64
	gone  chan struct{}
}

// Stream evicts the stream that is open and starts one at offset off.
func (s *Stdin) Stream(off uint64) *Stream {
	w := &Stream{stdin: s, next: off, gone: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evict(w)
	return w
}

// evict puts w in the place of the stream that is open. The caller holds mu.
func (s *Stdin) evict(w *Stream) {
	if s.stream != nil {
		close(s.stream.gone)
	}
	s.stream = w
	s.changed()
}

// Write takes the next bytes.
func (w *Stream) Write(ctx context.Context, data []byte) error {
	off := w.next
	w.next += uint64(len(data))
	return w.stdin.write(ctx, w, off, data, false)
}

// End takes the end.
func (w *Stream) End(ctx context.Context) error {
	return w.stdin.write(ctx, w, w.next, nil, true)
}

// Evicted is closed when the stream no longer counts.
func (w *Stream) Evicted() <-chan struct{} { return w.gone }

func (s *Stdin) write(ctx context.Context, by *Stream, off uint64, data []byte, eof bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		// A second writer of the same bytes may have been faster meanwhile, so
		// what is left is worked out anew each time.
		skip := uint64(s.accepted) - off
		switch {
		case by != nil && by != s.stream:
			return ErrEvicted
		case off > uint64(s.accepted):
			return fmt.Errorf("%w: %d, not %d", ErrGap, s.accepted, off)
		case skip >= uint64(len(data)):
			if eof {
				s.close()
			}
			return nil
		case s.eof || s.broken:
			return ErrStdinClosed
		}
		if room := queueSize - s.queued; room > 0 {
			s.push(data[skip:min(uint64(len(data)), skip+uint64(room))])
			continue
		}
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
}

// push queues p. The caller holds mu.
func (s *Stdin) push(p []byte) {
	s.queue = append(s.queue, p)
	s.queued += len(p)
	s.accepted += int64(len(p))
	s.start()
}

// close queues the end. The caller holds mu.
func (s *Stdin) close() {
	if !s.eof {
		s.eof = true
		s.start()
	}
}

// start sees to it that what is queued goes on. The caller holds mu.
func (s *Stdin) start() {
	s.changed()
	if s.dst == nil || s.pumping || s.broken {
		return
	}
	s.pumping = true
	s.pumps.Go(s.pump)
}

// pump gives the process what is queued, and ends when nothing is.
func (s *Stdin) pump() {
	for {
		s.mu.Lock()
		p, more := s.pop()
		if !more {
			s.pumping = false
			eof := s.eof && !s.broken
			s.mu.Unlock()
			if eof {
				_ = s.dst.Close()
			}
			return
		}
		s.mu.Unlock()
		if _, err := s.dst.Write(p); err != nil {
			s.abandon()
		}
	}
}

// pop takes the next bytes. The caller holds mu.
func (s *Stdin) pop() (p []byte, ok bool) {
	if len(s.queue) == 0 {
		return nil, false
	}
	p = s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	s.queued -= len(p)
	s.changed()
	return p, true
}

// abandon drops what is queued: nobody reads any more.
func (s *Stdin) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken, s.queue, s.queued = true, nil, 0
	s.changed()
}

// shut ends the stream with its process.
func (s *Stdin) shut() {
	s.abandon()
	if s.dst != nil {
		// It may have been closed already; either way it is closed now.
		_ = s.dst.Close()
	}
	s.pumps.Wait()
}

// next gives the next bytes to a process of this program, io.EOF at the end.
func (s *Stdin) next(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if p, ok := s.pop(); ok {
			return p, nil
		}
		if s.eof {
			return nil, io.EOF
		}
		if s.broken {
			return nil, ErrStdinClosed
		}
		if err := s.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// wait waits for a change. The caller holds mu, as it does again afterwards.
func (s *Stdin) wait(ctx context.Context) error {
	wake := s.waker()
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waker is closed at the next change. The caller holds mu.
func (s *Stdin) waker() <-chan struct{} {
	if s.wake == nil {
		s.wake = make(chan struct{})
	}
	return s.wake
}

// changed wakes who waits. The caller holds mu.
func (s *Stdin) changed() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}
