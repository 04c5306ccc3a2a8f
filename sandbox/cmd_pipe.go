package sandbox

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"sync"
)

// StdinPipe returns a stream to the command's input. A Write before Start
// waits for it. The caller closes it to give the command its end of file; Wait
// closes it too.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil || c.in != nil {
		return nil, c.fail(errors.New("Stdin is already set"))
	}
	return c.newPipe(&c.in)
}

// StdoutPipe returns a stream of the command's output. A Read before Start
// waits for it. Read it to its end before Wait, which closes it. Closing it
// early makes the command's next write fail.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) {
	if c.Stdout != nil || c.out != nil {
		return nil, c.fail(errors.New("Stdout is already set"))
	}
	return c.newPipe(&c.out)
}

// StderrPipe is StdoutPipe for the command's stderr. The ExitError has no tail then.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) {
	if c.Stderr != nil || c.err != nil {
		return nil, c.fail(errors.New("Stderr is already set"))
	}
	return c.newPipe(&c.err)
}

func (c *Cmd) newPipe(field **pipe) (*pipe, error) {
	if c.started {
		return nil, c.fail(errStarted)
	}
	*field = newPipe()
	return *field, nil
}

// pipe is a stream that is handed out before Start and tied to the process's
// by it. Until then reads and writes wait, and Close takes effect at once.
type pipe struct {
	mu     sync.Mutex
	tied   sync.Cond
	r      io.ReadCloser
	w      io.WriteCloser
	err    error // why the command did not start
	closed bool
}

func newPipe() *pipe {
	p := &pipe{}
	p.tied.L = &p.mu
	return p
}

// tie gives the pipe its stream, one of r and w, or the error that there is none.
func (p *pipe) tie(r io.ReadCloser, w io.WriteCloser, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.r, p.w, p.err = r, w, err
	if p.closed {
		_ = p.closeStream()
	}
	p.tied.Broadcast()
}

// await waits until the pipe is tied or closed.
func (p *pipe) await() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.r == nil && p.w == nil && p.err == nil && !p.closed {
		p.tied.Wait()
	}
	if p.closed {
		return fs.ErrClosed
	}
	return p.err
}

// Read, Write and WriteTo use r and w without the lock: they do not change
// once await has returned without an error.

func (p *pipe) Read(b []byte) (int, error) {
	if err := p.await(); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}

// WriteTo makes io.Copy use a buffer that suits a wide pipe.
func (p *pipe) WriteTo(w io.Writer) (int64, error) {
	if err := p.await(); err != nil {
		return 0, err
	}
	n, readErr, writeErr := copyStream(w, p.r)
	return n, cmp.Or(readErr, writeErr)
}

func (p *pipe) Write(b []byte) (int, error) {
	if err := p.await(); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}

// Close closes this side of the stream. Closing again does nothing.
func (p *pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	p.tied.Broadcast()
	return p.closeStream()
}

func (p *pipe) closeStream() error {
	switch {
	case p.r != nil:
		return ignoreClosed(p.r.Close())
	case p.w != nil:
		return ignoreClosed(p.w.Close())
	}
	return nil
}
