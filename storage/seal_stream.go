package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// sealing is a stream being sealed. A segment is sealed when the byte after it was
// read, or the end: only then it is known whether it is the last.
type sealing struct {
	r        io.Reader
	segments *segments
	plain    []byte // a segment and the byte after it
	buf      []byte // the space of out
	out      []byte // sealed, not yet given
	n        int64  // the next segment
	done     bool
}

func (s *sealing) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if s.done {
			return 0, io.EOF
		}
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

func (s *sealing) next() error {
	for len(s.plain) <= sealSegment {
		k, err := s.r.Read(s.plain[len(s.plain) : sealSegment+1])
		s.plain = s.plain[:len(s.plain)+k]
		if err == io.EOF { // a wrapped io.EOF is a broken stream
			s.done = len(s.plain) <= sealSegment
			break
		}
		if err != nil {
			return err
		}
	}
	if s.n == maxSegments {
		return fmt.Errorf("storage: an object of more than %d segments cannot be sealed: %w", int64(maxSegments), fs.ErrInvalid)
	}
	most := min(len(s.plain), sealSegment)
	s.buf = s.segments.seal(s.buf[:0], s.plain[:most], s.n, s.done)
	s.out = s.buf
	s.plain = s.plain[:copy(s.plain, s.plain[most:])]
	s.n++
	return nil
}

// Get implements Bucket.
func (s *sealed) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, &fs.PathError{Op: "storage: get", Path: key, Err: fs.ErrInvalid}
	}
	if length == 0 {
		return s.b.Get(ctx, key, 0, 0)
	}
	if length < 0 || offset+length < 0 {
		length = -1
	}
	if offset < sealSegment {
		return s.fromStart(ctx, key, offset, length)
	}
	return s.fromMiddle(ctx, key, offset, length)
}

// until is the segment after the last that a range needs, or -1.
func until(offset, length int64) int64 {
	if length < 0 {
		return -1
	}
	return (offset + length + sealSegment - 1) / sealSegment
}

// fromStart reads the head and what follows in one request.
func (s *sealed) fromStart(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	end, stored := until(offset, length), int64(-1)
	if end >= 0 && end < maxSegments {
		stored = int64(sealHeadSize) + end*sealStored
	}
	body, err := s.b.Get(ctx, key, 0, stored)
	if err != nil {
		return nil, err
	}
	var head [sealHeadSize]byte
	if _, err := io.ReadFull(body, head[:]); err != nil {
		return nil, errors.Join(headError(key, err), body.Close())
	}
	segments, err := s.opener(key, head)
	if err != nil {
		return nil, errors.Join(err, body.Close())
	}
	s.remember(key, head)
	r := &opening{ctx: ctx, segments: segments, body: body, end: end, skip: offset, left: length}
	if err := r.next(); err != nil { // an error is known before a byte is given
		return nil, errors.Join(err, body.Close())
	}
	return r, nil
}

// headError tells an object that is too short to be sealed from a broken stream.
func headError(key string, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return sealError(key, ErrSealBroken, "it is not a sealed object")
	}
	return err
}

// fromMiddle needs the head from elsewhere. The object may be replaced between
// the two requests: then its head is another.
func (s *sealed) fromMiddle(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	head, known := s.remembered(key)
	for {
		if !known {
			fresh, err := s.readHead(ctx, key)
			if err != nil {
				return nil, err
			}
			head = fresh
		}
		r, err := s.middle(ctx, key, head, offset, length)
		if err == nil || !errors.Is(err, ErrSealBroken) && !errors.Is(err, ErrSealKey) {
			return r, err
		}
		now, headErr := s.readHead(ctx, key)
		if headErr != nil {
			return nil, headErr
		}
		if now == head {
			return nil, err
		}
		head, known = now, true
	}
}

func (s *sealed) readHead(ctx context.Context, key string) (head [sealHeadSize]byte, err error) {
	body, err := s.b.Get(ctx, key, 0, int64(sealHeadSize))
	if err != nil {
		return head, err
	}
	if _, err := io.ReadFull(body, head[:]); err != nil {
		return head, errors.Join(headError(key, err), body.Close())
	}
	s.remember(key, head)
	return head, body.Close()
}

func (s *sealed) middle(ctx context.Context, key string, head [sealHeadSize]byte, offset, length int64) (io.ReadCloser, error) {
	segments, err := s.opener(key, head)
	if err != nil {
		return nil, err
	}
	first, end := offset/sealSegment, until(offset, length)
	if first >= maxSegments {
		return s.beyond(ctx, key, segments)
	}
	stored := int64(-1)
	if end >= 0 && end <= maxSegments {
		stored = (end - first) * sealStored
	}
	body, err := s.b.Get(ctx, key, int64(sealHeadSize)+first*sealStored, stored)
	if err != nil {
		return nil, err
	}
	r := &opening{ctx: ctx, segments: segments, body: body, n: first, end: end, skip: offset - first*sealSegment, left: length}
	err = r.next()
	if err == nil {
		return r, nil
	}
	if err = errors.Join(err, body.Close()); !errors.Is(err, errNoSegment) {
		return nil, err
	}
	return s.beyond(ctx, key, segments)
}

// beyond answers for a range that begins after the end: nothing, if the end is
// where it was put.
func (s *sealed) beyond(ctx context.Context, key string, segments *segments) (io.ReadCloser, error) {
	o, err := s.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	last := max(0, (o.Size-1)/sealSegment)
	body, err := s.b.Get(ctx, key, int64(sealHeadSize)+last*sealStored, sealStored)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	if _, err := segments.open(nil, data, last, true); err != nil {
		return nil, err
	}
	return io.NopCloser(strings.NewReader("")), nil
}

// errNoSegment is an object that ends before the first segment that was wanted.
var errNoSegment = errors.New("no segment")

// opening is a stream of segments being opened. A segment is given out only when
// it was found to be what was put.
type opening struct {
	ctx      context.Context // of the Get, which promises to end the stream with it
	segments *segments
	body     io.ReadCloser
	n        int64  // the next segment
	end      int64  // the segment after the last asked for, or -1
	skip     int64  // contents still to be passed over
	left     int64  // contents still to be given, or -1
	stored   []byte // a segment as stored, and the byte after it
	buf      []byte // the space of out
	out      []byte
	over     bool // the last segment was opened
	read     bool // a segment was opened
	err      error
}

func (o *opening) Read(p []byte) (int, error) {
	if err := context.Cause(o.ctx); err != nil {
		return 0, err
	}
	for len(o.out) == 0 {
		if o.err == nil && (o.over || o.left == 0) {
			o.err = io.EOF
		}
		if o.err == nil {
			o.err = o.next()
		}
		if o.err != nil {
			return 0, o.err
		}
	}
	n := copy(p, o.out)
	o.out = o.out[n:]
	return n, nil
}

func (o *opening) Close() error { return o.body.Close() }

// next opens a segment.
func (o *opening) next() error {
	more, err := o.fill()
	if err != nil {
		return err
	}
	size := min(len(o.stored), sealStored)
	switch {
	case size == 0 && !o.read && o.n > 0:
		return errNoSegment
	case size < sealTag:
		return sealError(o.segments.key, ErrSealBroken, "it is cut short")
	}
	if o.buf, err = o.open(o.stored[:size], more); err != nil {
		return err
	}
	o.read = true
	o.n++
	o.stored = o.stored[:copy(o.stored, o.stored[size:])]
	o.out = o.buf[min(o.skip, int64(len(o.buf))):]
	o.skip = max(0, o.skip-int64(len(o.buf)))
	if o.left >= 0 {
		o.out = o.out[:min(o.left, int64(len(o.out)))]
		o.left -= int64(len(o.out))
	}
	return nil
}

// open opens the next segment. more says that another follows; where the range
// asked for ends with this one, it may be the last of the object or not.
func (o *opening) open(stored []byte, more bool) ([]byte, error) {
	out, err := o.segments.open(o.buf[:0], stored, o.n, !more)
	if err == nil {
		o.over = !more
		return out, nil
	}
	if !more && o.n+1 == o.end && len(stored) == sealStored {
		return o.segments.open(o.buf[:0], stored, o.n, false)
	}
	return nil, err
}

// fill reads up to a segment and the byte after it, and reports whether that came.
func (o *opening) fill() (more bool, err error) {
	if o.stored == nil {
		o.stored = make([]byte, 0, sealStored+1)
		o.buf = make([]byte, 0, sealSegment)
	}
	for len(o.stored) <= sealStored {
		k, err := o.body.Read(o.stored[len(o.stored) : sealStored+1])
		o.stored = o.stored[:len(o.stored)+k]
		if err == io.EOF {
			return len(o.stored) > sealStored, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}
