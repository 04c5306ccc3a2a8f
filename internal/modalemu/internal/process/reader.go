package process

import (
	"context"
	"io"
)

// Reader is the standard input of a Func. It is for one goroutine.
type Reader struct {
	ctx   context.Context
	stdin *Stdin
	rest  []byte
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (n int, err error) {
	if len(r.rest) == 0 {
		if r.rest, err = r.stdin.next(r.ctx); err != nil {
			return 0, err
		}
	}
	n = copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo: w gets the pieces as they came.
func (r *Reader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if len(r.rest) == 0 {
			if r.rest, err = r.stdin.next(r.ctx); err == io.EOF {
				return n, nil
			} else if err != nil {
				return n, err
			}
		}
		k, err := w.Write(r.rest)
		n += int64(k)
		r.rest = r.rest[k:]
		if err != nil {
			return n, err
		}
	}
}

// Discard reads to the end and returns nil then, or ctx's error.
func (r *Reader) Discard(ctx context.Context) error {
	for {
		r.rest = nil
		if _, err := r.stdin.next(ctx); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
