package modalbox

import (
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"syscall"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Read implements io.Reader.
func (o *file) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return 0, fs.ErrClosed
	case !o.reads():
		return 0, syscall.EBADF
	case o.isDir:
		return 0, syscall.EISDIR
	case len(p) == 0:
		return 0, nil
	}
	if err := o.flush(); err != nil {
		return 0, err
	}
	for {
		n, again, err := o.readOn(p)
		if !again {
			return n, err
		}
	}
}

// readOn reads from the command that prints, starting it if need be. again says
// that one has printed its part, and that there may be more.
func (o *file) readOn(p []byte) (n int, again bool, err error) {
	if o.reader == nil {
		if err := o.startReader(window); err != nil {
			return 0, false, err
		}
	}
	n, err = o.reader.cp.Stdout.Read(p)
	o.at += int64(n)
	o.reader.left -= int64(n)
	if n > 0 || err == nil {
		return n, err == nil && n == 0, nil
	}
	r := o.reader
	if err == io.EOF {
		err = o.whole(r.cp)
	}
	o.stopReader()
	if err == io.EOF && r.left == 0 {
		return 0, true, nil
	}
	return 0, false, err
}

// whole tells the end of the file, io.EOF, from that of a command that could not
// print all of it, because its sandbox has ended for one.
func (o *file) whole(cp *modal.ContainerProcess) error {
	var code int
	err := insist(o.ctx, func() (err error) { code, err = cp.Wait(o.ctx, nil); return err })
	switch {
	case err != nil:
		return o.f.b.explain(o.ctx, "read a file", err)
	case code != 0 && code < 128:
		if _, err := o.f.follow(o.ctx, o.name); err != nil {
			return err // as when it has been removed
		}
		fallthrough
	case code != 0:
		return o.f.b.explain(o.ctx, "read a file", fmt.Errorf("%w: the command that reads it ended with %d", driver.ErrUnavailable, code))
	}
	return io.EOF
}

func (o *file) startReader(size int64) error {
	cp, err := o.f.b.run(o.ctx, readScript, o.name, strconv.FormatInt(size, 10), strconv.FormatInt(o.at, 10))
	if err != nil {
		return o.f.b.explain(o.ctx, "read a file", err)
	}
	o.reader = &fileReader{cp: cp, stop: closing(o.ctx, cp.Stdout), left: size}
	return nil
}

func (o *file) stopReader() {
	if o.reader != nil {
		o.reader.stop()
		o.reader = nil
	}
}

// ReadAt implements io.ReaderAt.
func (o *file) ReadAt(p []byte, off int64) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return 0, fs.ErrClosed
	case !o.reads():
		return 0, syscall.EBADF
	case o.isDir:
		return 0, syscall.EISDIR
	case off < 0:
		return 0, syscall.EINVAL
	case len(p) == 0:
		return 0, nil
	}
	if err := o.flush(); err != nil {
		return 0, err
	}
	cp, err := o.f.b.run(o.ctx, readScript, o.name, strconv.Itoa(len(p)), strconv.FormatInt(off, 10))
	if err != nil {
		return 0, o.f.b.explain(o.ctx, "read a file", err)
	}
	defer closing(o.ctx, cp.Stdout)()
	n, err := io.ReadFull(cp.Stdout, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return n, o.whole(cp)
	}
	return n, o.f.b.explain(o.ctx, "read a file", err)
}
