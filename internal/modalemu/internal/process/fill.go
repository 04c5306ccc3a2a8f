package process

import (
	"errors"
	"io"
	"io/fs"
	"sync"
)

const (
	// largeChunk is how much is read at once from a command that writes much.
	largeChunk = 512 << 10
	// smallChunk is held by a stream that is silent, where it has to hold one.
	smallChunk = 4 << 10
)

var chunks = sync.Pool{New: func() any { return new([largeChunk]byte) }}

// fill adds all of r. The error is why something could not be kept; a reader
// that was closed from this side ended as it should.
func (o *Output) fill(r io.Reader) error {
	next := reader(r)
	for {
		buf, n, err := next()
		var werr error
		if n > 0 {
			_, werr = o.Write(buf[:n])
		}
		if len(buf) == largeChunk {
			chunks.Put((*[largeChunk]byte)(buf))
		}
		switch {
		case werr != nil:
			return werr
		case errors.Is(err, io.EOF), errors.Is(err, fs.ErrClosed):
			return nil
		case err != nil:
			return err
		}
	}
}

// plainReader reads into a large buffer only while the last read filled what it
// was given: a command that is silent should not hold one.
func plainReader(r io.Reader) func() ([]byte, int, error) {
	small, last := make([]byte, smallChunk), 0
	return func() (buf []byte, n int, err error) {
		buf = small
		if last >= len(small) {
			buf = chunks.Get().(*[largeChunk]byte)[:]
		}
		n, err = r.Read(buf)
		last = n
		return buf, n, err
	}
}
