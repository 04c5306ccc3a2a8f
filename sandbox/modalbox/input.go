package modalbox

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// input is this side's end of stdin, and as a pipe does, it holds some of what
// was written. The client's own is not safe for concurrent use, sends each Write
// as one message, waits for the answer, and cannot be interrupted: a goroutine
// does that, and sends what has come meanwhile as one.
type input struct {
	p *process
	w io.WriteCloser

	mu     sync.Mutex
	buf    []byte // written, and not yet being sent
	closed bool
	err    error // why nothing can be sent any more
	begun  bool  // the goroutine runs

	more  chan struct{} // holds one when there is something to send, or Close
	room  chan struct{} // holds one when something was sent
	shut  chan struct{} // closed by Close
	drain chan struct{} // closed when the goroutine has ended
}

// maxPending bounds what input holds, and so a message; the client allows 100 MiB.
const maxPending = 1 << 20

func newInput(p *process, w io.WriteCloser) *input {
	return &input{p: p, w: w, more: make(chan struct{}, 1), room: make(chan struct{}, 1),
		shut: make(chan struct{}), drain: make(chan struct{})}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Write implements io.Writer.
func (i *input) Write(b []byte) (int, error) {
	written := 0
	for {
		n, err := i.put(b[written:])
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
		select {
		case <-i.room:
		case <-i.shut:
		case <-i.drain:
		case <-i.p.done:
		}
	}
}

// put takes as much as there is room for.
func (i *input) put(b []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.closed:
		return 0, fs.ErrClosed
	case i.err != nil:
		return 0, i.err
	case i.p.isDone() && i.p.tty:
		return len(b), nil // what is typed at a terminal that nobody reads is lost
	case i.p.isDone():
		return 0, syscall.EPIPE
	}
	n := min(len(b), maxPending-len(i.buf))
	if n > 0 {
		i.buf = append(i.buf, b[:n]...)
		i.begin()
		wake(i.more)
	}
	if len(i.buf) < maxPending {
		wake(i.room) // for another Write that waits
	}
	return n, nil
}

// begin starts the goroutine, which ends with the process at the latest.
func (i *input) begin() {
	if !i.begun {
		i.begun = true
		go i.send()
	}
}

func (i *input) send() {
	defer close(i.drain)
	var chunk []byte
	for {
		var last bool
		chunk, last = i.take(chunk)
		if len(chunk) > 0 {
			if err := insist(i.p.ctx, func() error { _, err := i.w.Write(chunk); return err }); err != nil {
				i.fail(err)
				return
			}
			wake(i.room)
			continue
		}
		if last {
			if !i.p.tty && !i.p.isDone() { // a terminal is not hung up
				if err := insist(i.p.ctx, i.w.Close); err != nil {
					i.fail(err)
				}
			}
			return
		}
		select {
		case <-i.more:
		case <-i.p.done:
			return
		}
	}
}

// Modal's client tries again by itself what was not answered. A refusal for want
// of resources it does not, which in the middle of a stream would lose it.
const (
	insistPause = 50 * time.Millisecond // doubles each time
	insistTimes = 7                     // about 6 seconds
)

// insist does what Modal refuses for want of resources a few times more.
func insist(ctx context.Context, do func() error) error {
	pause := insistPause
	for left := insistTimes; ; left-- {
		err := do()
		if left == 0 || status.Code(err) != codes.ResourceExhausted {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		pause *= 2
	}
}

// take gives what is to be sent in exchange for a buffer, and whether there will
// be nothing after it.
func (i *input) take(used []byte) (chunk []byte, last bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	chunk, i.buf = i.buf, used[:0]
	return chunk, i.closed && len(chunk) == 0
}

// fail notes why nothing can be sent. That nobody reads any more is the command's
// affair; a command that would take a part of its input for all of it is killed.
func (i *input) fail(err error) {
	err = i.explain(err)
	i.mu.Lock()
	i.err = err
	i.mu.Unlock()
	if err != nil && err != syscall.EPIPE {
		i.p.lose(fmt.Errorf("its input was lost: %w", err))
	}
}

// explain makes what Modal says of a stdin that nobody reads a broken pipe, or
// for a terminal, nothing.
func (i *input) explain(err error) error {
	broken := isGone(err) || i.p.isDone() || i.p.box.ended() != nil || i.p.box.closed.Load()
	switch {
	case !broken:
		return wrap("write to a command's input", err)
	case i.p.tty:
		return nil
	}
	return syscall.EPIPE
}

// isGone reports whether Modal refused input because the command has ended, or
// has closed its stdin.
func isGone(err error) bool {
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.Aborted, codes.NotFound, codes.InvalidArgument:
		return true
	}
	return false
}

// closePatience is how long Close waits until the command has its input. One that
// does not read gets it, and its end, later.
const closePatience = 2 * time.Second

// Close implements io.Closer.
func (i *input) Close() error {
	i.mu.Lock()
	if i.closed {
		i.mu.Unlock()
		return nil
	}
	i.closed = true
	close(i.shut)
	if i.p.isDone() {
		i.mu.Unlock()
		return nil
	}
	i.begin()
	i.mu.Unlock()
	wake(i.more)
	timer := time.NewTimer(closePatience)
	defer timer.Stop()
	select {
	case <-i.drain:
	case <-i.p.done:
		return nil
	case <-timer.C:
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err == syscall.EPIPE {
		return nil
	}
	return i.err
}

// lose kills a command that cannot be told what it should have been told.
func (p *process) lose(err error) {
	p.mu.Lock()
	p.lost = err
	p.mu.Unlock()
	ctx, cancel := detached(p.ctx)
	defer cancel()
	if kerr := p.Kill(ctx); kerr != nil {
		p.finish(driver.Exit{}, err)
	}
}
