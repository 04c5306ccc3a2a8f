package claude

import (
	"io"
	"sync"
)

const (
	// replyLimit is how many bytes of answers may wait for the CLI to read them
	// when a question is refused. It asks a few in a run, of some hundred bytes.
	replyLimit = 1 << 20
	// answerLimit is the same when a callback has answered: what a tool of this
	// process gives may be long.
	answerLimit = 256 << 20
)

// input writes lines to the CLI's standard input in the background: a CLI that
// waits for us to read must not be waited for.
type input struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting []inputLine
	replies int // bytes of the answers in waiting
	closed  bool
	done    chan struct{}
}

type inputLine struct {
	data  []byte
	reply bool // an answer to the CLI, not something of our own
}

func newInput() *input {
	in := &input{done: make(chan struct{})}
	in.changed.L = &in.mu
	return in
}

// write adds a line. After close it does nothing.
func (in *input) write(line []byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.add(inputLine{data: line})
}

// reply is write for an answer to the CLI, which may ask without ever reading:
// once too much waits, nothing is added and the error is ErrNotReading.
func (in *input) reply(line []byte, limit int) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.replies+len(line) > limit {
		return ErrNotReading
	}
	in.add(inputLine{data: line, reply: true})
	return nil
}

// add adds a line, unless close was called. The caller holds mu.
func (in *input) add(line inputLine) {
	if in.closed {
		return
	}
	if line.reply {
		in.replies += len(line.data)
	}
	in.waiting = append(in.waiting, line)
	in.changed.Signal()
}

// close ends the input behind what was written.
func (in *input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.changed.Signal()
}

// isClosed reports whether close was called.
func (in *input) isClosed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.closed
}

// run writes to w until close, and closes it.
func (in *input) run(w io.WriteCloser) {
	defer close(in.done)
	defer func() { _ = w.Close() }()
	for {
		line, ok := in.next()
		if !ok {
			return
		}
		if _, err := w.Write(line); err != nil {
			return // the CLI has ended: reading its output tells how
		}
	}
}

func (in *input) next() (line []byte, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.waiting) == 0 && !in.closed {
		in.changed.Wait()
	}
	if len(in.waiting) == 0 {
		return nil, false
	}
	next := in.waiting[0]
	in.waiting[0], in.waiting = inputLine{}, in.waiting[1:]
	if next.reply {
		in.replies -= len(next.data)
	}
	return next.data, true
}
