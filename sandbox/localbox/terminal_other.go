//go:build unix && !linux

package localbox

import (
	"io"
	"syscall"
)

func (t *terminal) endOfInput() byte { return 0 }

// widen makes a stream of a pipe's end.
func widen(fd int, name string) io.ReadCloser { return stream(fd, name) }

// newPipe makes a pipe whose ends are closed on exec.
func newPipe(fds []int) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := syscall.Pipe(fds); err != nil {
		return err
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	return nil
}
