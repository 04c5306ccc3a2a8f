package modalbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// output is this side's end of stdout or stderr. A goroutine reads Modal's
// stream into two buffers in turn: so Close ends a Read in progress without
// ending the stream, and what comes after Close can be answered as a broken
// pipe would be.
type output struct {
	p    *process
	src  io.ReadCloser
	full chan []byte // what has been read and not yet been taken
	free chan []byte // buffers to read into

	closed  chan struct{}
	closing sync.Once
	drop    sync.Once // closes src

	reading sync.Mutex // held by Read
	buf     []byte     // what it has taken
	rest    []byte     // what is left of that
	err     error      // set before full is closed
}

const (
	smallBuffer = 16 << 10
	largeBuffer = 256 << 10
)

func newOutput(p *process, src io.ReadCloser) *output {
	o := &output{p: p, src: src, full: make(chan []byte, 2), free: make(chan []byte, 2), closed: make(chan struct{})}
	o.free <- nil
	o.free <- nil
	go o.pump()
	return o
}

// pump reads until the end of the stream.
func (o *output) pump() {
	defer o.recycle()
	defer close(o.full)
	defer o.dropSource()
	grow := false
	for {
		var buf []byte
		select {
		case buf = <-o.free:
		case <-o.closed:
			o.discard(false)
			return
		case <-o.p.box.ctx.Done():
			o.err = os.ErrClosed
			return
		}
		buf = room(buf, grow)
		n, err := o.src.Read(buf)
		grow = grow || n == len(buf)
		if o.isClosed() && err == nil {
			o.discard(n > 0)
			return
		}
		o.give(buf, n)
		if err != nil {
			o.err = err
			return
		}
	}
}

// room is a buffer to read into. Most streams are idle most of the time: only one
// that fills a small buffer gets a large one.
func room(buf []byte, large bool) []byte {
	switch {
	case large && len(buf) < largeBuffer:
		return make([]byte, largeBuffer)
	case buf == nil:
		return smallBuffers.Get().(*[smallBuffer]byte)[:]
	}
	return buf
}

// smallBuffers are used again, since most commands print little and end soon.
var smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}

// recycle gives back the buffers that nobody holds.
func (o *output) recycle() {
	for {
		select {
		case buf := <-o.free:
			if len(buf) == smallBuffer {
				smallBuffers.Put((*[smallBuffer]byte)(buf))
			}
		default:
			return
		}
	}
}

// give hands over what was read, to whichever comes first.
func (o *output) give(buf []byte, n int) {
	if n == 0 {
		o.free <- buf
		return
	}
	select {
	case o.full <- buf[:n]:
	case <-o.closed:
	case <-o.p.box.ctx.Done():
	}
}

// discard goes on after Close, so that the command is not held up. Modal has no
// way to close a pipe of a command: what would have failed is answered with the
// signal that a broken pipe gives. late says that something has come already.
func (o *output) discard(late bool) {
	buf := make([]byte, smallBuffer)
	for sent := false; ; {
		if late && !sent && !o.p.isDone() {
			sent = true
			o.p.breakPipe()
		}
		n, err := o.src.Read(buf)
		if err != nil {
			return
		}
		late = n > 0
	}
}

// breakPipe tells the command that nobody reads any more.
func (p *process) breakPipe() {
	p.note(driver.SIGPIPE)
	ctx, cancel := context.WithTimeout(p.ctx, cleanupTimeout)
	defer cancel()
	_, _, _ = p.box.script(ctx, signalScript, p.word(), strconv.Itoa(p.pid), strconv.Itoa(int(driver.SIGPIPE)))
}

func (o *output) dropSource() { o.drop.Do(func() { _ = o.src.Close() }) }

func (o *output) isClosed() bool {
	select {
	case <-o.closed:
		return true
	default:
		return false
	}
}

// Read implements io.Reader.
func (o *output) Read(b []byte) (int, error) {
	o.reading.Lock()
	defer o.reading.Unlock()
	if o.isClosed() {
		return 0, fs.ErrClosed
	}
	if len(b) == 0 {
		return 0, nil
	}
	if err := o.fill(); err != nil {
		return 0, err
	}
	n := copy(b, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}

// fill waits until there is something to read.
func (o *output) fill() error {
	for len(o.rest) == 0 {
		if o.buf != nil {
			o.free <- o.buf[:cap(o.buf)]
			o.buf = nil
		}
		select {
		case buf, ok := <-o.full:
			if !ok {
				return o.end()
			}
			o.buf, o.rest = buf, buf
		case <-o.closed:
			return fs.ErrClosed
		}
	}
	return nil
}

// end is what to return after the stream's end.
func (o *output) end() error {
	switch {
	case o.isClosed():
		return fs.ErrClosed
	case o.err == io.EOF:
		return io.EOF
	case o.p.box.ended() != nil || errors.Is(o.p.err2(), driver.ErrEnded):
		return io.EOF // the sandbox has ended, which Wait tells
	}
	return wrap("read a command's output", o.err)
}

// err2 is why it is not known how the process ended, nil before it has.
func (p *process) err2() error {
	if p.isDone() {
		return p.err
	}
	return nil
}

// maxLine bounds the first line.
const maxLine = 100

// line reads the first line, without its end.
func (o *output) line() (string, error) {
	o.reading.Lock()
	defer o.reading.Unlock()
	var line []byte
	for len(line) < maxLine {
		if err := o.fill(); err != nil {
			return string(line), err
		}
		part, rest, whole := bytes.Cut(o.rest, []byte("\n"))
		line, o.rest = append(line, part...), rest
		if whole {
			return string(bytes.TrimRight(line, "\r")), nil
		}
	}
	return "", fmt.Errorf("%w: the image's %s printed %q", driver.ErrInvalid, shell, line)
}

// Close implements io.Closer.
func (o *output) Close() error {
	o.closing.Do(func() {
		close(o.closed)
		if o.p.isDone() {
			o.dropSource()
		}
	})
	return nil
}

// lateOutput is how long the output of a command may take to end after its
// sandbox has ended.
const lateOutput = 5 * time.Second

// processEnded ends a stream that nobody wants, and, where the sandbox has ended
// too, one that does not end by itself.
func (o *output) processEnded(lost bool) {
	if o.isClosed() {
		o.dropSource()
	} else if lost {
		time.AfterFunc(lateOutput, o.dropSource)
	}
}
