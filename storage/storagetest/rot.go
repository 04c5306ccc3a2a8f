package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/vivarium-go/vivarium/storage"
)

// FlipByte changes one bit of a stored object's byte at offset, as bit rot does:
// it reads the object and puts it back. A negative offset counts from the end. An
// object that has no such byte gives an error that matches fs.ErrInvalid.
func FlipByte(ctx context.Context, b storage.Bucket, key string, offset int64) error {
	return rewrite(ctx, b, key, func(data []byte) ([]byte, error) {
		at := offset
		if at < 0 {
			at += int64(len(data))
		}
		if at < 0 || at >= int64(len(data)) {
			return nil, fmt.Errorf("storagetest: %s has %d bytes and so none at %d: %w", key, len(data), offset, fs.ErrInvalid)
		}
		data[at] ^= 1
		return data, nil
	})
}

// Truncate cuts a stored object to its first size bytes. An object that is not
// longer gives an error that matches fs.ErrInvalid.
func Truncate(ctx context.Context, b storage.Bucket, key string, size int64) error {
	return rewrite(ctx, b, key, func(data []byte) ([]byte, error) {
		if size < 0 || size >= int64(len(data)) {
			return nil, fmt.Errorf("storagetest: %s has %d bytes and so cannot be cut to %d: %w", key, len(data), size, fs.ErrInvalid)
		}
		return data[:size], nil
	})
}

func rewrite(ctx context.Context, b storage.Bucket, key string, change func([]byte) ([]byte, error)) error {
	r, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if data, err = change(data); err != nil {
		return err
	}
	return b.Put(ctx, key, bytes.NewReader(data), nil)
}
