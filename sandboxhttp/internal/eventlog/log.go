// Package eventlog keeps numbered events in memory, encoded as server-sent
// events, for any number of followers who read at their own pace.
package eventlog

import (
	"bytes"
	"context"
	"iter"
	"sort"
	"strconv"
	"sync"
)

// Log is an append-only series of events, numbered from 1. It holds the newest
// ones, up to a number of bytes, and says so when older ones are asked for. One
// that appends never waits for one that follows. The methods are safe for
// concurrent use. It holds no resource but memory.
type Log struct {
	limit int64 // bytes to hold
	plain bool  // frames without ids

	mu     sync.Mutex
	chunks []*chunk // oldest first
	size   int64    // what the chunks take
	last   uint64   // number of the newest event
	ended  bool
	left   bool          // it goes on elsewhere
	wake   chan struct{} // closed at the next change; nil while nobody waits
	older  Older
}

// Event is one of a log.
type Event struct {
	ID   uint64
	Name string // empty: "message"
	Data []byte
}

// Older gives the events from number from to number to, in order, which a log no
// longer holds. Those that it ends without are lost; after an error they may be had later.
type Older func(ctx context.Context, from, to uint64) iter.Seq2[Event, error]

// chunk is a piece of memory with whole frames, back to back. What is written is
// never changed or moved, so that followers send it without holding the lock.
type chunk struct {
	first uint64 // number of its first event
	buf   []byte
	ends  []int // where each frame ends in buf
}

const (
	minChunk = 4 << 10
	maxChunk = 64 << 10
)

// New returns an empty log that holds about limit bytes of frames: the newest
// event always, and older ones as long as they fit.
func New(limit int64) *Log { return &Log{limit: limit} }

// NewAt is New for a log whose first events, up to that of number last, are older's to
// give, as are those that it will no longer hold. A nil older has none.
func NewAt(limit int64, last uint64, older Older) *Log {
	return &Log{limit: limit, last: last, older: older}
}

// NewPlain is New for a log whose frames carry no ids.
func NewPlain(limit int64) *Log { return &Log{limit: limit, plain: true} }

// Append adds an event and returns its number. An empty name is the default,
// "message". Data may hold anything; where it has line breaks, a reader of
// server-sent events sees "\n" for each. An ended log takes nothing, and
// answers 0. Data is not kept.
func (l *Log) Append(name string, data []byte) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return 0
	}
	l.append(name, data)
	l.notify()
	return l.last
}

// Leave ends the log here: it goes on elsewhere. Who follows it is told to connect
// again. It takes nothing more.
func (l *Log) Leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended, l.left = true, true
		l.notify()
	}
}

// End adds the last event, as Append does. Further calls do nothing.
func (l *Log) End(name string, data []byte) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return 0
	}
	l.append(name, data)
	l.ended = true
	l.notify()
	return l.last
}

func (l *Log) append(name string, data []byte) {
	l.last++
	need := frameSize(name, data)
	c := l.room(need)
	if l.plain {
		c.buf = AppendFrame(c.buf, name, data)
	} else {
		c.buf = appendNumbered(c.buf, l.last, name, data)
	}
	c.ends = append(c.ends, len(c.buf))
}

// frameSize is how many bytes a frame takes at most.
func frameSize(name string, data []byte) int {
	breaks := 0
	if lineBreak(data) >= 0 {
		breaks = bytes.Count(data, []byte{'\r'}) + bytes.Count(data, []byte{'\n'})
	}
	// "id: " and a number, "event: ", "data: " for each line, and the line ends.
	return 25 + 8 + len(name) + (1+breaks)*7 + len(data) + 1
}

// appendNumbered appends an event with its id to dst.
func appendNumbered(dst []byte, id uint64, name string, data []byte) []byte {
	dst = append(dst, "id: "...)
	dst = strconv.AppendUint(dst, id, 10)
	dst = append(dst, '\n')
	return AppendFrame(dst, name, data)
}

// room gives a chunk that a frame of need bytes fits into, and lets go of what
// is too old to be held.
func (l *Log) room(need int) *chunk {
	if n := len(l.chunks); n > 0 {
		if c := l.chunks[n-1]; cap(c.buf)-len(c.buf) >= need {
			return c
		}
	}
	size := minChunk
	if n := len(l.chunks); n > 0 {
		size = min(2*cap(l.chunks[n-1].buf), maxChunk)
	}
	size = max(need, min(size, int(l.limit/8)))
	c := &chunk{first: l.last, buf: make([]byte, 0, size)}
	l.chunks = append(l.chunks, c)
	l.size += int64(size)
	old := 0
	for l.size > l.limit && old < len(l.chunks)-1 {
		l.size -= int64(cap(l.chunks[old].buf))
		old++
	}
	if old > 0 {
		l.chunks = append([]*chunk(nil), l.chunks[old:]...)
	}
	return c
}

func (l *Log) notify() {
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

// Batch is what follows an event in a log.
type Batch struct {
	// Frames are whole frames, back to back, that must not be changed. Empty
	// when there is nothing yet, or nothing more.
	Frames []byte
	// Last is the number of the last event in Frames; what to ask for next.
	Last uint64
	// From and To are the events in between that are no longer held; 0 when
	// none are missing.
	From, To uint64
	// Done says that nothing comes after Last, and Left that it would come elsewhere.
	Done, Left bool
	// Wake is closed when there is more. Nil when there are Frames, a gap, or it is Done.
	Wake <-chan struct{}
}

// After gives what follows the event of that number, a piece of it at a time.
func (l *Log) After(id uint64) Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id >= l.last {
		if l.ended {
			b := Batch{Last: id, Done: true, Left: l.left}
			if id > l.last && !l.left {
				b.Frames = l.lastFrame() // it ended before what its reader had seen elsewhere
			}
			return b
		}
		if l.wake == nil {
			l.wake = make(chan struct{})
		}
		return Batch{Last: id, Wake: l.wake}
	}
	var b Batch
	held := l.last + 1
	if len(l.chunks) > 0 {
		held = l.chunks[0].first
	}
	if id+1 < held {
		b.From, b.To = id+1, held-1
		id = held - 1
	}
	if id == l.last { // all that there is is older
		b.Last, b.Done, b.Left = id, l.ended, l.left
		return b
	}
	i := sort.Search(len(l.chunks), func(i int) bool { return l.chunks[i].first > id+1 }) - 1
	c := l.chunks[i]
	start := 0
	if skip := id + 1 - c.first; skip > 0 {
		start = c.ends[skip-1]
	}
	b.Frames = c.buf[start:len(c.buf):len(c.buf)]
	b.Last = c.first + uint64(len(c.ends)) - 1
	b.Done, b.Left = l.ended && b.Last == l.last, l.left
	return b
}

// Last is the number of the newest event, 0 when there is none, and whether the
// log has ended, and was not left.
func (l *Log) Last() (id uint64, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.ended && !l.left
}

// Size is how many bytes the log holds.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

// Trim lets go of everything but the last event of a log that has ended.
func (l *Log) Trim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended || len(l.chunks) == 0 {
		return
	}
	frame := bytes.Clone(l.lastFrame())
	l.chunks = []*chunk{{first: l.last, buf: frame, ends: []int{len(frame)}}}
	l.size = int64(cap(frame))
}

// lastFrame is the newest event's. The caller holds mu.
func (l *Log) lastFrame() []byte {
	if len(l.chunks) == 0 {
		return nil
	}
	c := l.chunks[len(l.chunks)-1]
	start := 0
	if n := len(c.ends); n > 1 {
		start = c.ends[n-2]
	}
	return c.buf[start:len(c.buf):len(c.buf)]
}

// AppendFrame appends an event without an id to dst.
func AppendFrame(dst []byte, name string, data []byte) []byte {
	if name != "" {
		dst = append(dst, "event: "...)
		dst = append(dst, name...)
		dst = append(dst, '\n')
	}
	for {
		dst = append(dst, "data: "...)
		i := lineBreak(data)
		if i < 0 {
			dst = append(dst, data...)
			return append(dst, "\n\n"...)
		}
		dst = append(dst, data[:i]...)
		dst = append(dst, '\n')
		if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			i++
		}
		data = data[i+1:]
	}
}

// lineBreak is where the first line of data ends, or -1. Two searches for a byte
// are many times faster than one for either.
func lineBreak(data []byte) int {
	n := bytes.IndexByte(data, '\n')
	if n >= 0 {
		data = data[:n]
	}
	if r := bytes.IndexByte(data, '\r'); r >= 0 {
		return r
	}
	return n
}

// Past returns a log that has ended at the event of that number, and holds
// nothing else: the ones before are older's to give. A number below 1 counts as 1.
func Past(id uint64, name string, data []byte, older Older) *Log {
	l := NewAt(int64(len(data)), max(id, 1)-1, older)
	l.End(name, data)
	return l
}
