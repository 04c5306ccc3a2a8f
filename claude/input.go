package claude

import (
	"io"
	"sync"
)

// input writes lines to the CLI's standard input in the background: a CLI that
// waits for us to read must not be waited for.
type input struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting [][]byte
	closed  bool
	done    chan struct{}
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
	if in.closed {
		return
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
	line = in.waiting[0]
	in.waiting[0], in.waiting = nil, in.waiting[1:]
	return line, true
}
