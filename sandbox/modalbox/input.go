package modalbox

import (
	"io"
	"io/fs"
	"sync"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// input is this side's end of stdin. The client's is not safe for concurrent
// use, sends each Write as one message, and cannot be interrupted: so one write
// at a time runs on a goroutine of its own, on a copy.
type input struct {
	p       *process
	w       io.WriteCloser
	busy    chan struct{} // holds one while a write runs
	closed  chan struct{}
	closing sync.Once
	buf     []byte // of the write that runs
}

// maxWrite bounds a message; the client allows 100 MiB.
const maxWrite = 1 << 20

func newInput(p *process, w io.WriteCloser) *input {
	return &input{p: p, w: w, busy: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Write implements io.Writer.
func (i *input) Write(b []byte) (int, error) {
	n := 0
	for {
		part := b[n:min(n+maxWrite, len(b))]
		if err := i.write(part); err != nil {
			return n, err
		}
		if n += len(part); n == len(b) {
			return n, nil
		}
	}
}

func (i *input) write(b []byte) error {
	select {
	case <-i.closed:
		return fs.ErrClosed
	default:
	}
	if i.p.isDone() {
		return i.broken()
	}
	if len(b) == 0 {
		return nil
	}
	select {
	case i.busy <- struct{}{}:
	case <-i.closed:
		return fs.ErrClosed
	}
	i.buf = append(i.buf[:0], b...)
	sent := make(chan error, 1)
	go func() {
		_, err := i.w.Write(i.buf)
		<-i.busy
		sent <- err
	}()
	select {
	case err := <-sent:
		return i.explain(err)
	case <-i.closed:
		return fs.ErrClosed
	case <-i.p.done:
		return i.broken()
	}
}

// broken is what a write to a command that reads no more gives. What is typed at
// a terminal that nobody reads is lost, without a word.
func (i *input) broken() error {
	if i.p.tty {
		return nil
	}
	return syscall.EPIPE
}

// explain makes what Modal says of a stdin that nobody reads a broken pipe.
func (i *input) explain(err error) error {
	if err == nil {
		return nil
	}
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.Aborted, codes.NotFound, codes.InvalidArgument:
		return i.broken()
	}
	if i.p.isDone() || i.p.box.ended() != nil {
		return i.broken()
	}
	return wrap("write to a command's input", err)
}

// Close implements io.Closer. It gives the command its end of file after what
// has been written; a terminal is not hung up.
func (i *input) Close() error {
	var err error
	i.closing.Do(func() {
		close(i.closed)
		if i.p.tty || i.p.isDone() {
			return
		}
		sent := make(chan error, 1)
		select {
		case i.busy <- struct{}{}:
			go i.end(sent)
		default:
			go func() { // after the write that runs, which may last
				i.busy <- struct{}{}
				i.end(sent)
			}()
			return
		}
		select {
		case err = <-sent:
			if err = i.explain(err); err == syscall.EPIPE {
				err = nil
			}
		case <-i.p.done:
		}
	})
	return err
}

func (i *input) end(sent chan<- error) {
	var err error
	if !i.p.isDone() {
		err = i.w.Close()
	}
	<-i.busy
	sent <- err
}
