package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// quiet is a socket whose process is woken when there is something to read, and
// not each time the other side has read something, as package net's are: each
// message would wake its sender once more, while another process needs the
// processor. The socket is watched by an epoll of its own, and that one by the
// runtime. Its methods are safe for concurrent use, but for read.
type quiet struct {
	mu     sync.RWMutex // held while fd is used, which never blocks
	fd     int
	closed bool

	ready    *os.File // the epoll
	wait     func(func(uintptr) bool) error
	deadline atomic.Pointer[time.Time]
}

// newQuiet takes the place of uc, which it closes, or returns nil.
func newQuiet(uc *net.UnixConn) *quiet {
	fd, err := dup(uc)
	if err != nil {
		return nil
	}
	q := &quiet{fd: fd}
	if err := q.watch(); err != nil {
		unix.Close(fd)
		return nil
	}
	uc.Close()
	return q
}

func dup(uc *net.UnixConn) (fd int, err error) {
	conn, err := uc.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := conn.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, cerr)
}

func (q *quiet) watch() error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, q.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP})
	if err == nil {
		err = unix.SetNonblock(ep, true) // or the runtime would not watch it
	}
	if err != nil {
		unix.Close(ep)
		return err
	}
	q.ready = os.NewFile(uintptr(ep), "epoll")
	conn, err := q.ready.SyscallConn()
	if err != nil {
		q.ready.Close()
		return err
	}
	q.wait = conn.Read
	return nil
}

// read waits for bytes, or the end, which is 0 bytes. It is for one goroutine.
func (q *quiet) read(p, oob []byte) (n, oobn int, err error) {
	werr := q.wait(func(uintptr) bool {
		n, oobn, err = q.recv(p, oob)
		return err != unix.EAGAIN
	})
	if werr != nil {
		return 0, 0, net.ErrClosed
	}
	return n, oobn, err
}

func (q *quiet) recv(p, oob []byte) (n, oobn int, err error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return 0, 0, net.ErrClosed
	}
	for {
		n, oobn, _, _, err = unix.RecvmsgBuffers(q.fd, [][]byte{p}, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			return max(n, 0), oobn, err
		}
	}
}

// Read implements io.Reader, for bytes without descriptors.
func (q *quiet) Read(p []byte) (int, error) {
	n, _, err := q.read(p, nil)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// write writes what there is room for, at least one byte. A peer that does not
// read what it is sent is looked at again, less and less often.
func (q *quiet) write(p, oob []byte) (n int, err error) {
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		n, err = q.send(p, oob)
		if err != unix.EAGAIN {
			return n, err
		}
		if until := q.deadline.Load(); until != nil && !until.IsZero() && time.Now().After(*until) {
			return 0, os.ErrDeadlineExceeded
		}
		time.Sleep(pause)
	}
}

func (q *quiet) send(p, oob []byte) (n int, err error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return 0, net.ErrClosed
	}
	for {
		n, err = unix.SendmsgN(q.fd, p, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (q *quiet) setWriteDeadline(t time.Time) error {
	q.deadline.Store(&t)
	return nil
}

func (q *quiet) close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return net.ErrClosed
	}
	q.closed = true
	err := unix.Close(q.fd)
	q.mu.Unlock() // a reader may need it before the epoll can be closed
	return errors.Join(err, q.ready.Close())
}
