//go:build linux

package ociimage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// fetchers is how many layers are fetched at once.
const fetchers = 3

// fetch gets the layers of an image into files, some at a time, in the order in
// which they are unpacked.
type fetch struct {
	store  *Store
	layers []v1.Layer
	first  int
	cancel context.CancelFunc
	ctx    context.Context
	done   sync.WaitGroup
	room   chan struct{}
	blobs  []blob
}

type blob struct {
	start sync.Once
	ready chan struct{}
	file  *os.File
	err   error
}

// newFetch fetches the layers from first on. stop must be called.
func newFetch(ctx context.Context, s *Store, layers []v1.Layer, first int) *fetch {
	f := &fetch{store: s, layers: layers, first: first, room: make(chan struct{}, fetchers), blobs: make([]blob, len(layers))}
	f.ctx, f.cancel = context.WithCancel(ctx)
	for i := range f.blobs {
		f.blobs[i].ready = make(chan struct{})
	}
	f.done.Go(func() {
		for i := first; i < len(layers); i++ {
			select {
			case f.room <- struct{}{}:
				f.begin(i, func() { <-f.room })
			case <-f.ctx.Done():
				return
			}
		}
	})
	return f
}

// begin fetches a layer, if nobody does yet.
func (f *fetch) begin(i int, then func()) {
	began := false
	f.blobs[i].start.Do(func() {
		began = true
		f.done.Go(func() {
			b := &f.blobs[i]
			b.file, b.err = f.get(f.layers[i])
			close(b.ready)
			then()
		})
	})
	if !began {
		then()
	}
}

// wait returns the file of a layer, at its start. The caller closes it.
func (f *fetch) wait(i int) (*os.File, error) {
	if i < f.first { // it was there at first
		f.begin(i, func() {})
	}
	b := &f.blobs[i]
	select {
	case <-b.ready:
	case <-f.ctx.Done():
		return nil, f.ctx.Err()
	}
	file := b.file
	b.file = nil
	return file, b.err
}

// stop gives up what is not needed any more.
func (f *fetch) stop() {
	f.cancel()
	f.done.Wait()
	for i := range f.blobs {
		if file := f.blobs[i].file; file != nil {
			file.Close()
		}
	}
}

// get fetches a layer into a file that has no name any more.
func (f *fetch) get(layer v1.Layer) (file *os.File, err error) {
	defer func() {
		if err != nil && file != nil {
			file.Close()
			file = nil
		}
	}()
	if size, err := layer.Size(); err != nil || size > f.store.opts.MaxBytes {
		return nil, errors.Join(err, (&limits{bytes: f.store.opts.MaxBytes}).take(size))
	}
	r, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	path := filepath.Join(f.store.dir, "tmp", "blob-"+rand.Text())
	if file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		return file, err
	}
	// The reader checks size and digest, and says at its end.
	if _, err := io.Copy(file, &ctxReader{ctx: f.ctx, r: r}); err != nil {
		var mine *fs.PathError
		switch {
		case errors.As(err, &mine):
			err = plain(err, f.store.dir)
		case !isNetwork(err) && f.ctx.Err() == nil:
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return file, err
	}
	_, err = file.Seek(0, io.SeekStart)
	return file, err
}

// decompress tells by the first bytes how a layer is compressed.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	head, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return zr, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		zr, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return zr.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}
