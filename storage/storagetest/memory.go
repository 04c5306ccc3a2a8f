package storagetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/storage"
)

// Memory is a storage.Bucket in memory. The zero value is empty and ready. It is
// safe for concurrent use and must not be copied.
type Memory struct {
	mu      sync.Mutex
	objects map[string]stored
}

type stored struct {
	data     []byte
	modified time.Time
}

var _ storage.Bucket = (*Memory)(nil)

func refused(op, key string, err error) error {
	return &fs.PathError{Op: "memory: " + op, Path: key, Err: err}
}

func check(ctx context.Context, key string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return storage.CheckKey(key)
}

// look finds an object. The bytes of a stored object never change.
func (m *Memory) look(ctx context.Context, op, key string) (stored, error) {
	if err := check(ctx, key); err != nil {
		return stored{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	if !ok {
		return o, refused(op, key, fs.ErrNotExist)
	}
	return o, nil
}

// Get implements storage.Bucket.
func (m *Memory) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	o, err := m.look(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, refused("get", key, fs.ErrInvalid)
	}
	data := o.data[min(offset, int64(len(o.data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(&cancellable{ctx, bytes.NewReader(data)}), nil
}

// cancellable is a reader that ends with its context.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if cause := context.Cause(c.ctx); cause != nil && errors.Is(err, io.EOF) {
		err = cause
	}
	return n, err
}

// Put implements storage.Bucket.
func (m *Memory) Put(ctx context.Context, key string, r io.Reader, opts *storage.PutOptions) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	if err := opts.Check(); err != nil {
		return err
	}
	data, err := readAll(opts.Body(&cancellable{ctx, r}), opts)
	if err != nil {
		return refused("put", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.objects[key]; there && opts != nil && opts.IfAbsent {
		return refused("put", key, fs.ErrExist)
	}
	if m.objects == nil {
		m.objects = map[string]stored{}
	}
	m.objects[key] = stored{data, time.Now().UTC().Round(0)}
	return nil
}

// readAll reads r, into one piece where its size is known.
func readAll(r io.Reader, opts *storage.PutOptions) ([]byte, error) {
	if opts == nil || opts.Size == 0 {
		return io.ReadAll(r)
	}
	var buf bytes.Buffer
	buf.Grow(int(min(opts.Size, 64<<20)) + bytes.MinRead)
	_, err := buf.ReadFrom(r)
	return buf.Bytes(), err
}

// Stat implements storage.Bucket.
func (m *Memory) Stat(ctx context.Context, key string) (storage.Object, error) {
	o, err := m.look(ctx, "stat", key)
	if err != nil {
		return storage.Object{}, err
	}
	return o.object(key), nil
}

func (o stored) object(key string) storage.Object {
	return storage.Object{Key: key, Size: int64(len(o.data)), Modified: o.modified}
}

// List implements storage.Bucket. It gives the objects of the moment it starts.
func (m *Memory) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		m.mu.Lock()
		now := maps.Clone(m.objects)
		m.mu.Unlock()
		if err := context.Cause(ctx); err != nil {
			yield(storage.Object{}, err)
			return
		}
		for _, key := range slices.Sorted(maps.Keys(now)) {
			if strings.HasPrefix(key, prefix) && !yield(now[key].object(key), nil) {
				return
			}
		}
	}
}

// Delete implements storage.Bucket.
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}
