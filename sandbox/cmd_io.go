package sandbox

import (
	"errors"
	"io"
	"io/fs"
	"sync"
	"syscall"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// tailSize is how much of stderr an ExitError keeps, in bytes.
const tailSize = 32 << 10

// tail is a writer that keeps the last tailSize bytes.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(p) >= tailSize {
		t.buf = append(t.buf[:0], p[len(p)-tailSize:]...)
		return len(p), nil
	}
	if over := len(t.buf) + len(p) - 2*tailSize; over > 0 {
		// Let it grow to twice the size, so that most writes move nothing.
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailSize:]...)
	}
	t.buf = append(t.buf, p...)
	return len(p), nil
}

// Bytes returns a copy of what is kept.
func (t *tail) Bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.buf[max(0, len(t.buf)-tailSize):]...)
}

// copyBufferSize suits a pipe widened to 1 MiB: large reads halve the cost of
// a byte against io.Copy's 32 KiB.
const copyBufferSize = 256 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBufferSize]byte) }}

// copyBuffered is io.Copy with a large pooled buffer. It reads as the data
// comes, so small writes are passed on at once.
func copyBuffered(w io.Writer, r io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[copyBufferSize]byte)
	defer copyBuffers.Put(buf)
	var n int64
	for {
		nr, err := r.Read(buf[:])
		if nr > 0 {
			nw, werr := w.Write(buf[:nr])
			n += int64(nw)
			if werr != nil {
				return n, werr
			}
			if nw < nr {
				return n, io.ErrShortWrite
			}
		}
		if err == io.EOF || isTTYEnd(err) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// isTTYEnd: reading a terminal whose other side is gone gives EIO on Linux.
func isTTYEnd(err error) bool { return errors.Is(err, syscall.EIO) }

func isClosedPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EIO) || errors.Is(err, fs.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

// ignoreClosed drops the error of a stream that Wait closed first.
func ignoreClosed(err error) error {
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// sameWriter reports whether two writers are one; writers that cannot be
// compared are not.
func sameWriter(a, b io.Writer) (same bool) {
	defer func() {
		if recover() != nil {
			same = false
		}
	}()
	return a == b
}

// pipe is a stream handed out before Start. It blocks nobody: before Start has
// been called, reads and writes fail.
type pipe struct {
	mu     sync.Mutex
	r      io.ReadCloser
	w      io.WriteCloser
	err    error
	closed bool
	pick   func(p *pipe, proc driver.Process)
}

var errNotStarted = errors.New("sandbox: the command has not been started")

func (p *pipe) set(proc driver.Process, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err = err; err != nil {
		return
	}
	p.pick(p, proc)
	if p.closed {
		_ = p.closeLocked()
	}
}

func (p *pipe) reader() (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.r, p.state(p.r == nil)
}

func (p *pipe) writer() (io.WriteCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.w, p.state(p.w == nil)
}

func (p *pipe) state(unset bool) error {
	switch {
	case p.err != nil:
		return p.err
	case p.closed:
		return fs.ErrClosed
	case unset:
		return errNotStarted
	}
	return nil
}

func (p *pipe) Read(b []byte) (int, error) {
	r, err := p.reader()
	if err != nil {
		return 0, err
	}
	n, err := r.Read(b)
	if isTTYEnd(err) {
		err = io.EOF
	}
	return n, err
}

func (p *pipe) Write(b []byte) (int, error) {
	w, err := p.writer()
	if err != nil {
		return 0, err
	}
	return w.Write(b)
}

// Close closes this side of the stream. Before Start it takes effect then.
func (p *pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.closeLocked()
}

func (p *pipe) closeLocked() error {
	switch {
	case p.r != nil:
		return ignoreClosed(p.r.Close())
	case p.w != nil:
		return ignoreClosed(p.w.Close())
	}
	return nil
}

// StdinPipe returns a stream to the command's input, open once it has started.
// The caller closes it to give the command its end of file; Wait closes it too.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil || c.wantIn {
		return nil, c.fail(errors.New("Stdin is already set"))
	}
	c.wantIn = true
	return c.newPipe(func(p *pipe, proc driver.Process) { p.w = proc.Stdin() })
}

// StdoutPipe returns a stream of the command's output, open once it has
// started. Read it to its end before Wait, which closes it. Closing it early
// makes the command's next write fail.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) {
	if c.Stdout != nil || c.wantOut {
		return nil, c.fail(errors.New("Stdout is already set"))
	}
	c.wantOut = true
	return c.newPipe(func(p *pipe, proc driver.Process) { p.r = proc.Stdout() })
}

// StderrPipe is StdoutPipe for the command's stderr. The ExitError has no tail then.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) {
	if c.Stderr != nil || c.wantErr {
		return nil, c.fail(errors.New("Stderr is already set"))
	}
	c.wantErr = true
	return c.newPipe(func(p *pipe, proc driver.Process) { p.r = proc.Stderr() })
}

func (c *Cmd) newPipe(pick func(*pipe, driver.Process)) (*pipe, error) {
	if c.proc != nil {
		return nil, c.fail(errors.New("already started"))
	}
	p := &pipe{pick: pick}
	c.pending = append(c.pending, p)
	return p, nil
}
