package sandbox

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"sync"
	"syscall"
)

// endOfTransmission is ^D: what ends the input on a terminal.
const endOfTransmission = 4

// connect ties the process's streams to readers, writers and pipes.
func (c *Cmd) connect(merge bool) {
	c.connectIn()
	stdout, stderr := c.proc.Stdout(), c.proc.Stderr()
	if c.TTY != nil {
		stdout = ttyOutput{stdout}
	}
	switch {
	case c.out != nil:
		c.streams = append(c.streams, stdout)
		c.out.tie(stdout, nil, nil)
	case stdout != nil:
		w := c.Stdout
		if w == nil {
			w = io.Discard // a terminal nobody reads must still be drained
		}
		if merge && c.Stderr != nil {
			c.tail = &tail{}
			w = io.MultiWriter(w, c.tail)
		}
		c.copyOut(w, stdout)
	}
	switch {
	case c.err != nil:
		c.streams = append(c.streams, stderr)
		c.err.tie(stderr, nil, nil)
	case c.Stderr != nil && !merge:
		c.tail = &tail{}
		c.copyOut(io.MultiWriter(c.Stderr, c.tail), stderr)
	case stderr != nil:
		c.keepTail(stderr)
	}
}

func (c *Cmd) connectIn() {
	stdin := c.proc.Stdin()
	if stdin == nil {
		return
	}
	c.streams = append(c.streams, stdin)
	switch {
	case c.in != nil:
		c.in.tie(nil, stdin, nil)
	case c.Stdin != nil:
		c.copyIn(stdin, c.Stdin)
	default: // a terminal at which nobody types
		c.copyIn(stdin, bytes.NewReader(nil))
	}
}

func (c *Cmd) copyIn(w io.WriteCloser, stdin io.Reader) {
	in := &input{w: w, terminal: c.TTY != nil, lineStart: true}
	c.copiedIn = make(chan error, 1)
	go func() {
		_, readErr, writeErr := copyStream(in, stdin)
		if readErr == nil && writeErr == nil {
			writeErr = in.end()
		}
		if isBrokenPipe(writeErr) { // the command need not read it all
			writeErr = nil
		}
		c.copiedIn <- cmp.Or(readErr, writeErr, ignoreClosed(w.Close()))
	}()
}

// input is the command's stdin, written to from Cmd.Stdin.
type input struct {
	w         io.Writer
	terminal  bool
	lineStart bool // what was written last ended a line
}

func (in *input) Write(p []byte) (int, error) {
	n, err := in.w.Write(p)
	if n > 0 {
		in.lineStart = p[n-1] == '\n' || p[n-1] == '\r'
	}
	return n, err
}

// end types ^D on a terminal. In the middle of a line the first one only
// completes what was typed (termios(3), VEOF), so it takes two.
func (in *input) end() error {
	if !in.terminal {
		return nil
	}
	end := []byte{endOfTransmission, endOfTransmission}
	if in.lineStart {
		end = end[:1]
	}
	_, err := in.Write(end)
	return err
}

func (c *Cmd) copyOut(w io.Writer, r io.ReadCloser) {
	c.streams = append(c.streams, r)
	c.copying++
	go func() {
		_, readErr, writeErr := copyStream(w, r)
		// Closing tells the command that nobody listens any more.
		c.copied <- cmp.Or(writeErr, ignoreClosed(readErr), ignoreClosed(r.Close()))
	}()
}

// keepTail keeps the end of a stderr that nobody asked for. It goes on after
// Wait while a background process keeps the stream open, so that this neither
// holds up Wait nor breaks that process.
func (c *Cmd) keepTail(r io.ReadCloser) {
	kept := &tail{}
	c.tail, c.tailed = kept, make(chan struct{})
	c.tailStream = r
	go func() {
		defer close(c.tailed)
		_, _, _ = copyStream(kept, r)
		_ = r.Close()
	}()
}

// A copy starts with a small buffer, since most streams are idle most of the
// time, and takes a large one for a stream that fills it: on a pipe widened to
// 1 MiB large reads halve the cost of a byte.
const (
	smallCopyBuffer = 16 << 10
	largeCopyBuffer = 256 << 10
)

var largeCopyBuffers = sync.Pool{New: func() any { return new([largeCopyBuffer]byte) }}

// copyStream is io.Copy that tells the reader's error from the writer's. It
// passes on what has come at once.
func copyStream(w io.Writer, r io.Reader) (n int64, readErr, writeErr error) {
	buf := make([]byte, smallCopyBuffer)
	for {
		nr, err := r.Read(buf)
		if nr > 0 {
			nw, werr := w.Write(buf[:nr])
			n += int64(nw)
			if werr == nil && nw < nr {
				werr = io.ErrShortWrite
			}
			if werr != nil {
				return n, nil, werr
			}
		}
		if err == io.EOF {
			return n, nil, nil
		}
		if err != nil {
			return n, err, nil
		}
		if nr == smallCopyBuffer && len(buf) == smallCopyBuffer {
			large := largeCopyBuffers.Get().(*[largeCopyBuffer]byte)
			defer largeCopyBuffers.Put(large)
			buf = large[:]
		}
	}
}

// ttyOutput is a terminal's output. Reading a terminal whose other side is
// gone gives EIO on Linux, which is its end of file.
type ttyOutput struct{ io.ReadCloser }

func (t ttyOutput) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if errors.Is(err, syscall.EIO) {
		err = io.EOF
	}
	return n, err
}

func isBrokenPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EIO) ||
		errors.Is(err, fs.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

// ignoreClosed drops the error of a stream that Wait closed first.
func ignoreClosed(err error) error {
	if errors.Is(err, fs.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
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
