//go:build unix

package process

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// reader gives what r has next: the buffer, how much of it, and the error. From
// a pipe it takes a buffer only when there is something to read.
func reader(r io.Reader) func() ([]byte, int, error) {
	file, ok := r.(syscall.Conn)
	if !ok {
		return plainReader(r)
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return plainReader(r)
	}
	return func() (buf []byte, n int, err error) {
		waitErr := conn.Read(func(fd uintptr) bool {
			buf = chunks.Get().(*[largeChunk]byte)[:]
			for {
				n, err = syscall.Read(int(fd), buf)
				if err != syscall.EINTR {
					break
				}
			}
			if err != syscall.EAGAIN {
				return true
			}
			chunks.Put((*[largeChunk]byte)(buf))
			buf = nil
			return false
		})
		switch {
		case waitErr != nil:
			// Without deadlines there is no other reason, and this one has no
			// name outside of the standard library.
			return nil, 0, errors.Join(fs.ErrClosed, waitErr)
		case err != nil:
			return buf, 0, os.NewSyscallError("read", err)
		case n == 0:
			return buf, 0, io.EOF
		}
		return buf, n, nil
	}
}
