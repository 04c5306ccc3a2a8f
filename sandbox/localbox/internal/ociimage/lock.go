//go:build linux

package ociimage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			return os.NewSyscallError("flock", err)
		}
	}
}

// lockSoon takes a lock as soon as nobody else has it, or returns ctx's error.
func lockSoon(ctx context.Context, f *os.File, how int) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := flock(f, how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// Lock holds what is made once under a name until the file is closed. Who
// closes it may be another one than who asked.
func (s *Store) Lock(ctx context.Context, name string) (*os.File, error) {
	path := filepath.Join(s.dir, "locks", name)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		err = lockSoon(ctx, f, unix.LOCK_EX)
		if err == nil && sameFile(f, path) {
			return f, nil
		}
		f.Close() // collect has removed it meanwhile
		if err != nil {
			return nil, err
		}
	}
}

// Locked reports whether somebody holds the lock of that name.
func (s *Store) Locked(name string) bool { return held(filepath.Join(s.dir, "locks", name)) }

func sameFile(f *os.File, path string) bool {
	there, err := os.Stat(path)
	if err != nil {
		return false
	}
	mine, err := f.Stat()
	return err == nil && os.SameFile(there, mine)
}

// begin says that something is being made, so that nobody removes it before a
// record refers to it. end must be called once; it removes what was left for
// later while this went on.
func (s *Store) begin(ctx context.Context) (end func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "work"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockSoon(ctx, f, unix.LOCK_SH); err != nil {
		f.Close()
		return nil, err
	}
	return func() {
		f.Close()
		if s.hasGone() {
			_ = s.collect() // Open or the next Delete tries again
		}
	}, nil
}

// Hold keeps the layers of root from being removed until the file, or the last
// copy of its descriptor, is closed. It matches driver.ErrNotFound when the
// image is deleted already.
func Hold(root *Root) (*os.File, error) {
	f, err := os.Open(root.Record)
	if err == nil {
		err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
	}
	switch {
	case err == nil && sameFile(f, root.Record):
		return f, nil
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EWOULDBLOCK):
		err = fmt.Errorf("image %s: %w", root.ID, driver.ErrNotFound)
	}
	if f != nil {
		f.Close()
	}
	return nil, err
}
