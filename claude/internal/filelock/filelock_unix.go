//go:build unix && !solaris && !aix

package filelock

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Try takes the lock of the file at path, which it creates where needed and
// never removes. It does not wait: the error matches [ErrLocked] where it is
// taken. The caller calls unlock once; calling it again does nothing.
func Try(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close() // the lock's error says more
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", path, ErrLocked)
		}
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return sync.OnceFunc(func() { _ = f.Close() }), nil // closing lets go
}
