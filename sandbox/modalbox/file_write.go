package modalbox

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Write implements io.Writer.
func (o *file) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return 0, fs.ErrClosed
	case !o.writes():
		return 0, syscall.EBADF
	case o.written != nil:
		return 0, o.written
	}
	o.known = nil
	o.stopReader()
	if o.writer == nil {
		if err := o.startWriter(); err != nil {
			return 0, err
		}
	}
	n := 0
	for n < len(p) {
		part := p[n:min(n+maxPending, len(p))]
		if err := o.send(part); err != nil {
			return n, err
		}
		n += len(part)
		o.at += int64(len(part))
	}
	return n, nil
}

func (o *file) startWriter() error {
	cp, err := o.f.b.run(o.ctx, "exec 2>&1;LC_ALL=C;export LC_ALL\n"+writeScript, o.name, o.place(o.at))
	if err != nil {
		return o.f.b.explain(o.ctx, "write a file", err)
	}
	o.writer = &fileWriter{cp: cp, stop: closing(o.ctx, cp.Stdout)}
	return nil
}

// send gives the writing command its input. Where it does not take it, it has
// ended, and says why.
func (o *file) send(part []byte) error {
	sent := make(chan error, 1)
	own := bytes.Clone(part) // it may outlive this call
	go func(w io.Writer) {
		sent <- insist(o.ctx, func() error { _, err := w.Write(own); return err })
	}(o.writer.cp.Stdin)
	select {
	case err := <-sent:
		if err == nil {
			return nil
		}
		return o.failed(err)
	case <-o.ctx.Done():
		o.written = o.ctx.Err()
		return o.written
	}
}

// failed is why the writing command does not take its input: as a rule it has
// ended, and says so. One that waits for more is left, and ends by its timeout.
func (o *file) failed(err error) error {
	if !isGone(err) {
		o.writer.stop()
		o.writer = nil
	} else if ferr := o.flush(); ferr != nil {
		return ferr
	}
	o.written = o.f.b.explain(o.ctx, "write a file", err)
	return o.written
}

// flush ends the writing command and returns what went wrong with it.
func (o *file) flush() error {
	if o.writer == nil {
		return o.written
	}
	w := o.writer
	o.writer = nil
	defer w.stop()
	if err := o.ctx.Err(); err != nil {
		o.written = err
		return err
	}
	eof := make(chan error, 1)
	go func() {
		err := insist(o.ctx, w.cp.Stdin.Close)
		if err != nil && !isGone(err) {
			w.stop() // it waits for an end that does not come
		}
		eof <- err
	}()
	out, err := io.ReadAll(w.cp.Stdout)
	if err != nil {
		if lost := <-eof; lost != nil {
			err = lost
		}
		o.written = o.f.b.explain(o.ctx, "write a file", err)
		return o.written
	}
	i := bytes.LastIndexByte(out, '\n')
	if string(out[i+1:]) == "0" {
		return nil
	}
	if i < 0 {
		o.written = o.f.b.explain(o.ctx, "write a file", fmt.Errorf("%w: the command that wrote it has ended", driver.ErrUnavailable))
		return o.written
	}
	o.written = parseError(lastLine(out[:i]))
	return o.written
}
