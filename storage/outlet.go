package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// ErrCorrupt is matched by the error of whatever met an object that is not what
// was stored, or is missing though a version needs it. The error names the object.
// A Restore has then replaced nothing.
var ErrCorrupt = errors.New("stored data is damaged")

// Bounds of one request for a stretch of a pack, in bytes.
const (
	spanStored  = 4 << 20
	spanUnpacks = 8 << 20
	spanGap     = 128 << 10 // that nobody asked for, between two frames
)

// What an outlet keeps of the frames that were used, as several files may have the
// same contents.
const (
	keptFrames = 64
	keptBytes  = 8 << 20
)

// outlet gives blobs in an order that was told ahead, and fetches, unpacks and
// checks them ahead of their use, several requests at a time.
type outlet struct {
	v     *Volume
	meter *meter
	spans []*span
	room  *semaphore.Weighted
	most  int64 // of room

	kept  frameCache // what next has at hand
	uses  []*use     // in the order of next
	used  int
	group sync.WaitGroup
	ctx   context.Context
	stop  context.CancelCauseFunc
}

// use is one fetching of a frame, with the blobs that are wanted from it.
type use struct {
	frame *tree.Frame
	blobs []*tree.Blob
	span  *span
	data  []byte
}

// span is a stretch of a pack with one or several frames.
type span struct {
	pack     string
	from, to int64
	uses     []*use
	weight   int64
	left     int // uses that are still to come
	ready    chan struct{}
	err      error
}

// frameCache is a queue of frames that are at hand. The planner and the reader each
// have one and do the same with it, so that both know what is there.
type frameCache struct {
	queue []*use
	by    map[*tree.Frame]*use
	bytes int64
}

func (c *frameCache) get(f *tree.Frame) *use { return c.by[f] }

// put makes u the newest, and gives those that had to go.
func (c *frameCache) put(u *use) (old []*use) {
	if c.by == nil {
		c.by = map[*tree.Frame]*use{}
	}
	c.queue = append(c.queue, u)
	c.by[u.frame] = u
	c.bytes += int64(u.frame.Size)
	n := 0
	for len(c.queue)-n > 1 && (len(c.queue)-n > keptFrames || c.bytes > keptBytes) {
		c.bytes -= int64(c.queue[n].frame.Size)
		delete(c.by, c.queue[n].frame)
		n++
	}
	old, c.queue = c.queue[:n], c.queue[n:]
	return old
}

// newOutlet plans the fetching of all blobs of files in the order of files, and
// begins. close ends it.
func (v *Volume) newOutlet(ctx context.Context, m *meter, files []*tree.Entry) *outlet {
	o := &outlet{v: v, meter: m, most: v.opts.Memory / 2}
	o.room = semaphore.NewWeighted(o.most)
	var plan frameCache
	for _, e := range files {
		for _, c := range e.Chunks {
			if c.Blob == nil {
				continue
			}
			u := plan.get(c.Blob.Frame)
			if u == nil {
				u = &use{frame: c.Blob.Frame}
				plan.put(u)
				o.uses = append(o.uses, u)
			}
			u.blobs = append(u.blobs, c.Blob)
		}
	}
	o.cut()
	o.ctx, o.stop = context.WithCancelCause(ctx)
	o.group.Go(o.dispatch)
	return o
}

// cut gathers uses that are neighbours in a pack into spans.
func (o *outlet) cut() {
	var s *span
	var unpacked int64
	for _, u := range o.uses {
		from := int64(u.frame.Off)
		to := from + int64(u.frame.Stored)
		fits := s != nil && s.pack == u.frame.Pack.Name && from >= s.to && from-s.to <= spanGap &&
			to-s.from <= spanStored && unpacked+int64(u.frame.Size) <= spanUnpacks
		if !fits {
			s = &span{pack: u.frame.Pack.Name, from: from, ready: make(chan struct{})}
			o.spans = append(o.spans, s)
			unpacked = 0
		}
		s.to = to
		s.uses = append(s.uses, u)
		s.left++
		u.span = s
		if !u.frame.Raw {
			unpacked += int64(u.frame.Size)
			s.weight += int64(u.frame.Size)
		}
	}
	for _, s := range o.spans {
		s.weight = min(s.weight+s.to-s.from, o.most)
	}
}

// dispatch starts the fetching of one span after the other as there is room. The
// span that next waits for always gets some, as those before it have all been used
// then, and given theirs back.
func (o *outlet) dispatch() {
	for _, s := range o.spans {
		if err := o.room.Acquire(o.ctx, s.weight); err != nil {
			return // next sees that ctx has ended
		}
		o.group.Go(func() {
			defer close(s.ready)
			s.err = o.fetch(s)
		})
	}
}

func (o *outlet) fetch(s *span) error {
	key := o.v.packKey(s.pack)
	data, err := o.v.getRange(o.ctx, key, s.from, s.to-s.from)
	if err != nil {
		return err
	}
	for _, u := range s.uses {
		at := int64(u.frame.Off) - s.from
		u.data, err = openFrame(u.frame, data[at:at+int64(u.frame.Stored)])
		if err != nil {
			return fmt.Errorf("object %s, bytes %d to %d: %w", key, u.frame.Off, u.frame.Off+u.frame.Stored, err)
		}
		for _, b := range u.blobs {
			if err := checkBlob(b, u.data); err != nil {
				return fmt.Errorf("object %s, bytes %d to %d: %w", key, u.frame.Off, u.frame.Off+u.frame.Stored, err)
			}
		}
	}
	return nil
}

// getRange reads length bytes of an object that has to have them.
func (v *Volume) getRange(ctx context.Context, key string, from, length int64) ([]byte, error) {
	r, err := v.bucket.Get(ctx, key, from, length)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("object %s: %w: it is missing: %w", key, ErrCorrupt, err)
	}
	if err != nil {
		return nil, err
	}
	data := make([]byte, length)
	n, err := io.ReadFull(r, data)
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && ctx.Err() == nil:
		return nil, fmt.Errorf("object %s: %w: it ends at byte %d, not after %d: %w", key, ErrCorrupt, from+int64(n), from+length, io.ErrUnexpectedEOF)
	case err != nil:
		return nil, fmt.Errorf("read object %s: %w", key, err)
	}
	return data, nil
}

// openFrame gives the contents of a frame.
func openFrame(f *tree.Frame, packed []byte) ([]byte, error) {
	if f.Raw {
		return packed, nil
	}
	if f.Size > maxFrame {
		return nil, fmt.Errorf("%w: a frame of %d bytes", ErrCorrupt, f.Size)
	}
	data, err := unpack(make([]byte, 0, f.Size), packed, int(f.Size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return data, nil
}

func checkBlob(b *tree.Blob, frame []byte) error {
	if sum := sha256.Sum256(frame[b.Off : b.Off+b.Len]); sum != b.Sum {
		return fmt.Errorf("%w: contents with SHA-256 %s have another one now", ErrCorrupt, hex.EncodeToString(b.Sum[:]))
	}
	return nil
}

// next gives the next blob in the order that was told. Its bytes are not to be
// changed, and stay as they are.
func (o *outlet) next(b *tree.Blob) ([]byte, error) {
	u := o.kept.get(b.Frame)
	if u == nil {
		if o.used == len(o.uses) || o.uses[o.used].frame != b.Frame {
			return nil, errors.New("contents were asked for out of order")
		}
		u = o.uses[o.used]
		o.used++
		select {
		case <-u.span.ready:
		case <-o.ctx.Done():
			return nil, context.Cause(o.ctx)
		}
		if u.span.err != nil {
			return nil, u.span.err
		}
		for _, old := range o.kept.put(u) {
			old.data = nil
		}
		if u.span.left--; u.span.left == 0 {
			o.room.Release(u.span.weight)
		}
	}
	o.meter.add(0, int64(b.Len))
	return u.data[b.Off : b.Off+b.Len], nil
}

// done tells that an entry was written.
func (o *outlet) done(*tree.Entry) { o.meter.add(1, 0) }

// close ends the goroutines.
func (o *outlet) close() {
	o.stop(errStopped)
	o.group.Wait()
}
