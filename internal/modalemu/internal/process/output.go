package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

const (
	// inMemory is how much of an output is kept without a file: what most
	// commands write. One byte more moves all of it to the file.
	inMemory = 64 << 10
	// allInMemory bounds what all outputs together keep without files.
	allInMemory = 64 << 20
)

// held is how much all outputs keep in memory.
var held atomic.Int64

// reserve counts n bytes more in memory, if there is room for them.
func reserve(n int) bool {
	if held.Add(int64(n)) <= allInMemory {
		return true
	}
	held.Add(-int64(n))
	return false
}

// ErrFull is what a reader gets behind the last byte that could be kept.
var ErrFull = errors.New("the rest of the output was lost: no room to keep it")

// Output is what a process wrote to one stream, from its first byte to its last
// so far. It can be read from any offset, by many at once, while the process
// runs and after. The zero value is an empty output that goes on.
type Output struct {
	dir     string
	written func(off int64, n int)

	mu    sync.Mutex
	wake  chan struct{} // closed at the next change; nil while nobody waits
	size  int64
	ended bool
	err   error    // instead of io.EOF
	mem   []byte   // all of it while file is nil
	file  *os.File // all of it from then on
	other Source   // all of it, instead of both
	freed bool
}

// Source is a file that something else keeps.
type Source interface {
	io.ReaderAt
	io.Closer
}

// Size is how many bytes there are now, and whether no more will come.
func (o *Output) Size() (n int64, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.size, o.ended
}

// Await returns nil when ReadAt would not wait, or ctx's error.
func (o *Output) Await(ctx context.Context, off int64) error {
	for {
		o.mu.Lock()
		if off < o.size || o.ended || o.freed {
			o.mu.Unlock()
			return nil
		}
		wake := o.waker()
		o.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ReadAt reads what is there from offset off on, at least one byte, and waits
// for it if need be. At the end it returns io.EOF, or ErrFull; when ctx is done
// first, its error.
func (o *Output) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at offset %d: %w", off, os.ErrInvalid)
	}
	if err := o.Await(ctx, off); err != nil {
		return 0, err
	}
	o.mu.Lock()
	switch {
	case o.freed:
		o.mu.Unlock()
		return 0, os.ErrClosed
	case off >= o.size:
		err := o.err
		o.mu.Unlock()
		if err == nil {
			err = io.EOF
		}
		return 0, err
	case o.file == nil && o.other == nil:
		n := copy(p, o.mem[off:])
		o.mu.Unlock()
		return n, nil
	}
	var src io.ReaderAt = o.file
	if o.other != nil {
		src = o.other
	}
	n := min(int64(len(p)), o.size-off)
	o.mu.Unlock()
	k, err := src.ReadAt(p[:n], off)
	if k > 0 {
		err = nil // what follows is for the next call
	}
	return k, err
}

// Adopt makes the first size bytes of src the whole output, of which nothing was
// written yet. It saves a copy of what is kept already; what changes in src
// changes in the output, and where src ends early so does the output. src is
// closed by Drop, or with the process.
func (o *Output) Adopt(src Source, size int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || o.freed || o.size > 0 {
		return errors.Join(os.ErrClosed, src.Close())
	}
	o.other, o.size = src, size
	o.changed()
	return nil
}

// Adopted reports whether Adopt was called, and Drop was not.
func (o *Output) Adopted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.other != nil
}

// Drop gives up an output that was adopted. Reads end with os.ErrClosed.
func (o *Output) Drop() error {
	if !o.Adopted() {
		return nil
	}
	return o.free()
}

// Discard gives up what was kept of an output that has ended. Reads end with
// os.ErrClosed.
func (o *Output) Discard() error { return o.free() }

// waker is closed at the next change. The caller holds mu.
func (o *Output) waker() <-chan struct{} {
	if o.wake == nil {
		o.wake = make(chan struct{})
	}
	return o.wake
}

// changed wakes who waits. The caller holds mu.
func (o *Output) changed() {
	if o.wake != nil {
		close(o.wake)
		o.wake = nil
	}
}

// Write adds p. It is for one writer at a time.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	off, file := o.size, o.file
	if o.ended || o.freed {
		o.mu.Unlock()
		return 0, os.ErrClosed
	}
	if o.other != nil {
		o.mu.Unlock()
		return 0, os.ErrInvalid
	}
	if file == nil && len(o.mem)+len(p) <= inMemory && reserve(len(p)) {
		o.mem = append(o.mem, p...)
		o.grown(len(p))
		return len(p), nil
	}
	o.mu.Unlock()
	if file == nil {
		var err error
		if file, err = o.spill(); err != nil {
			return 0, err
		}
	}
	// Readers look no further than size, so no lock is held over the writing.
	n, err := file.WriteAt(p, off)
	o.mu.Lock()
	o.grown(n)
	return n, full(err)
}

// grown counts n bytes more and unlocks.
func (o *Output) grown(n int) {
	off := o.size
	o.size += int64(n)
	o.changed()
	o.mu.Unlock()
	if n > 0 && o.written != nil {
		o.written(off, n)
	}
}

// spill moves what is in memory to a file.
func (o *Output) spill() (*os.File, error) {
	file, err := unnamed(o.dir)
	if err != nil {
		return nil, full(err)
	}
	if _, err := file.WriteAt(o.mem, 0); err != nil {
		return nil, errors.Join(full(err), file.Close())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.freed {
		return nil, errors.Join(os.ErrClosed, file.Close())
	}
	held.Add(-int64(len(o.mem)))
	o.file, o.mem = file, nil
	return file, nil
}

// full says what an error of the file system means to the reader.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) ||
		errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// end says that no more will come, and why if that was not the writer's wish.
func (o *Output) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.ended {
		o.ended, o.err = true, err
		if cap(o.mem) > len(o.mem)+len(o.mem)/4 {
			o.mem = append([]byte(nil), o.mem...)
		}
		o.changed()
	}
}

// free gives up what was kept.
func (o *Output) free() error {
	o.end(nil)
	o.mu.Lock()
	defer o.mu.Unlock()
	held.Add(-int64(len(o.mem)))
	file, other := o.file, o.other
	o.freed, o.mem, o.file, o.other = true, nil, nil, nil
	o.changed()
	var err error
	if file != nil {
		err = file.Close()
	}
	if other != nil {
		err = errors.Join(err, other.Close())
	}
	return err
}
