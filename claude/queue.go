package claude

import (
	"fmt"
	"sync"
)

// queueLimit is how many bytes of lines wait for a reader before the CLI has to.
const queueLimit = 4 << 20

// freeLimit is how many bytes of lines wait while the CLI must not be held up,
// which is a matter of seconds. One that writes more is ended.
const freeLimit = 256 << 20

// errFlood is the end of a CLI that wrote beyond freeLimit.
var errFlood = fmt.Errorf("claude: the CLI wrote more than %d bytes where nobody could read yet", freeLimit)

// entry is one line on its way to the reader of a stream.
type entry struct {
	env  envelope
	msg  Message // made already for what this package looks at itself
	line []byte  // as it came, with its newline; nil if it was too long
	err  error   // why it is not a message
}

// message is the line as a message; nil where err says why it is none.
func (e *entry) message() Message {
	if e.err != nil {
		return nil
	}
	if e.msg == nil {
		e.msg = e.env.message()
	}
	return e.msg
}

// tooLong is the error of a line that was not kept; nil for others.
func (e *entry) tooLong() error {
	if e.line == nil {
		return e.err
	}
	return nil
}

// queue holds the lines of one turn between the goroutine that reads them from
// the CLI and the one that reads the stream.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting []entry
	size    int  // bytes of the lines that wait
	free    bool // the CLI must not be held up
	dropped bool // nobody reads any more
	ended   bool
}

func newQueue(free bool) *queue {
	q := &queue{free: free}
	q.changed.L = &q.mu
	return q
}

// push adds lines. It blocks while too many wait; where it must not, the error is
// errFlood.
func (q *queue) push(entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.size >= queueLimit && !q.free && !q.dropped {
		q.changed.Wait()
	}
	if q.dropped {
		return nil
	}
	if q.size >= freeLimit {
		return errFlood
	}
	for i := range entries {
		q.size += len(entries[i].line)
	}
	q.waiting = append(q.waiting, entries...)
	q.changed.Broadcast()
	return nil
}

// take blocks until there are lines, and takes them all. spent is what the
// caller took before and is done with. No lines means that none will come.
func (q *queue) take(spent []entry) []entry {
	clear(spent)
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.ended && !q.dropped {
		q.changed.Wait()
	}
	taken := q.waiting
	q.waiting, q.size = spent[:0], 0
	q.changed.Broadcast()
	return taken
}

// setFree lifts the limit or sets it again.
func (q *queue) setFree(free bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free = free
	q.changed.Broadcast()
}

// end says that no more lines come.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.changed.Broadcast()
}

// drop throws away what waits and what comes.
func (q *queue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped, q.waiting, q.size = true, nil, 0
	q.changed.Broadcast()
}
