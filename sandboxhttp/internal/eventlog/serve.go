package eventlog

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Timing of a stream. The zero value means the defaults given with each field.
type Timing struct {
	// Heartbeat is how long a stream is silent before an event named heartbeat
	// is sent; 0 means 10 s.
	Heartbeat time.Duration
	// WriteTimeout is how long a client may take to accept what is written to
	// it before its connection is given up; 0 means 30 s.
	WriteTimeout time.Duration
}

const (
	defaultHeartbeat    = 10 * time.Second
	defaultWriteTimeout = 30 * time.Second
)

var (
	heartbeat = []byte("event: heartbeat\ndata: {}\n\n")
	done      = []byte("data: [DONE]\n\n")
	reconnect = []byte("event: reconnect\ndata: {}\n\n")
)

// Serve answers a request with what follows an event of the log, as it comes,
// until the log has ended, which it marks with "[DONE]", or the client is gone. A
// log that was left ends with an event "reconnect" instead, and so does a stream whose
// older events cannot be read; the error is then Older's.
//
// When the response cannot be flushed it returns an error that matches
// http.ErrNotSupported, and nothing has been written. After any other error
// there is nothing left to answer.
func (t Timing) Serve(w http.ResponseWriter, r *http.Request, l *Log, after uint64) error {
	s, err := t.start(w)
	if err != nil {
		return err
	}
	beat := time.NewTimer(s.Heartbeat)
	defer beat.Stop()
	for {
		b := l.After(after)
		after = b.Last
		if err := s.batch(r.Context(), l, b); err != nil {
			return err
		}
		if b.Done {
			return s.finish(b.Left)
		}
		if b.Wake == nil {
			continue
		}
		if err := s.flush(); err != nil {
			return err
		}
		beat.Reset(s.Heartbeat)
		select {
		case <-b.Wake:
		case <-beat.C:
			if err := s.write(heartbeat); err != nil {
				return err
			}
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
}

// stream is one response.
type stream struct {
	Timing
	w        http.ResponseWriter
	rc       *http.ResponseController
	deadline time.Time
	pending  bool // something has not been flushed; the header at first
}

// start begins the answer. Its header goes out with the first events, if there are any: a
// client that gets both at once is woken once.
func (t Timing) start(w http.ResponseWriter) (*stream, error) {
	if t.Heartbeat <= 0 {
		t.Heartbeat = defaultHeartbeat
	}
	if t.WriteTimeout <= 0 {
		t.WriteTimeout = defaultWriteTimeout
	}
	// HTTP/2 resets a stream whose deadline passes, silent or not: a heartbeat
	// has to come first and extend it.
	t.Heartbeat = min(t.Heartbeat, t.WriteTimeout/2)
	if !canFlush(w) {
		return nil, fmt.Errorf("eventlog: cannot stream to this response: %w", http.ErrNotSupported)
	}
	s := &stream{Timing: t, w: w, rc: http.NewResponseController(w), pending: true}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	// The server's ReadTimeout would cut the stream although nothing is read.
	if err := s.rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	if err := s.extend(); err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusOK)
	return s, nil
}

// canFlush reports whether flushing reaches the connection: whether the innermost writer
// can, as one around it may only pass it on.
func canFlush(w http.ResponseWriter) bool {
	for {
		inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = inner.Unwrap()
	}
	switch w.(type) {
	case interface{ FlushError() error }, http.Flusher:
		return true
	}
	return false
}

func (s *stream) batch(ctx context.Context, l *Log, b Batch) error {
	if b.From != 0 {
		if err := s.older(ctx, l, b.From, b.To); err != nil {
			return err
		}
	}
	if len(b.Frames) == 0 {
		return nil
	}
	return s.write(b.Frames)
}

// older sends what the log does not hold any more, and says what of it is not to be had.
// What cannot be had now may be later: then the stream ends.
func (s *stream) older(ctx context.Context, l *Log, from, to uint64) error {
	var frames []byte
	var failed error
	if l.older != nil {
		for e, err := range l.older(ctx, from, to) {
			if failed = err; err != nil || e.ID != from {
				break
			}
			frames = appendNumbered(frames, e.ID, e.Name, e.Data)
			from++
			if len(frames) < maxChunk && from <= to {
				continue
			}
			if err := s.write(frames); err != nil {
				return err
			}
			frames = frames[:0]
		}
		if err := context.Cause(ctx); err != nil { // nobody is there to be told of a gap
			return err
		}
	}
	if failed == nil && from <= to {
		frames = AppendFrame(frames, "gap", fmt.Appendf(nil, `{"from":%d,"to":%d}`, from, to))
	}
	if len(frames) > 0 {
		if err := s.write(frames); err != nil {
			return err
		}
	}
	if failed != nil {
		return errors.Join(failed, s.finish(true))
	}
	return nil
}

func (s *stream) write(p []byte) error {
	if err := s.extend(); err != nil {
		return err
	}
	s.pending = true
	_, err := s.w.Write(p)
	return err
}

func (s *stream) flush() error {
	if !s.pending {
		return nil
	}
	s.pending = false
	return s.rc.Flush()
}

func (s *stream) finish(left bool) error {
	last := done
	if left {
		last = reconnect
	}
	if err := s.write(last); err != nil {
		return err
	}
	return s.flush()
}

// extend gives the client WriteTimeout for what is written next, to within a
// quarter of it: setting the deadline for every event would cost more than the
// event. It also takes the place of the server's own WriteTimeout.
func (s *stream) extend() error {
	now := time.Now()
	if s.deadline.Sub(now) > s.WriteTimeout*3/4 {
		return nil
	}
	s.deadline = now.Add(s.WriteTimeout)
	err := s.rc.SetWriteDeadline(s.deadline)
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}
