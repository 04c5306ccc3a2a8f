//go:build unix

// Package reap waits for the processes of a process that starts many, in one
// place and without a thread for each.
package reap

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reaper waits for every child of this process; nothing else may. It reaps
// orphans that were handed to this process too.
type Reaper struct {
	mu    sync.Mutex
	waits map[int]*child
}

// child is a process that was started and has not been waited for.
type child struct {
	exited func(syscall.WaitStatus, *syscall.Rusage)
}

// New starts a reaper. It runs until the process ends.
func New() *Reaper {
	r := &Reaper{waits: make(map[int]*child)}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGCHLD)
	go func() {
		for range ch {
			r.reap()
		}
	}()
	return r
}

// Start runs fork, which starts a process, and began with its id; exited is
// called once when it has ended. began has returned before exited is called:
// both are called under the reaper's lock and must not block or call it.
func (r *Reaper) Start(fork func() (pid int, err error), began func(pid int), exited func(syscall.WaitStatus, *syscall.Rusage)) error {
	return r.StartWatched(func() (int, int, error) {
		pid, err := fork()
		return pid, -1, err
	}, began, exited)
}

// StartWatched is Start for a process whose end is to be known soon: fork returns
// a pidfd of it too, which becomes the reaper's, or -1 where there is none. The
// signal of an end goes through two more threads.
func (r *Reaper) StartWatched(fork func() (pid, pidfd int, err error), began func(pid int), exited func(syscall.WaitStatus, *syscall.Rusage)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, pidfd, err := fork()
	if err != nil {
		return err
	}
	c := &child{exited: exited}
	r.waits[pid] = c
	if began != nil {
		began(pid)
	}
	if pidfd >= 0 {
		go r.watch(pid, c, pidfd)
	}
	return nil
}

// watch waits for one child by its pidfd. Where that cannot be waited for, the
// signal remains.
func (r *Reaper) watch(pid int, c *child, pidfd int) {
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return
	}
	f := os.NewFile(uintptr(pidfd), "pidfd")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Read(func(uintptr) bool { return r.collect(pid, c) })
}

// collect waits for a child that may have ended, and reports whether it has.
func (r *Reaper) collect(pid int, c *child) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waits[pid] != c {
		return true // the signal was faster
	}
	got, _ := r.wait(pid)
	return got == pid
}

// Signal sends a signal to a child, or with a negative pid to the process group
// of that child, unless the child has been waited for: its number may be
// another's by then.
func (r *Reaper) Signal(pid int, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	child := pid
	if child < 0 {
		child = -child
	}
	if r.waits[child] == nil {
		return os.ErrProcessDone
	}
	return syscall.Kill(pid, sig)
}

func (r *Reaper) reap() {
	for r.one() {
	}
}

func (r *Reaper) one() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := r.wait(-1)
	return err == syscall.EINTR || err == nil && pid > 0
}

// wait waits for one child, or for any, if it has ended. The caller holds mu.
func (r *Reaper) wait(which int) (pid int, err error) {
	var ws syscall.WaitStatus
	var ru syscall.Rusage
	pid, err = syscall.Wait4(which, &ws, syscall.WNOHANG, &ru)
	if err != nil || pid <= 0 {
		return pid, err
	}
	if c := r.waits[pid]; c != nil {
		delete(r.waits, pid)
		c.exited(ws, &ru)
	}
	return pid, nil
}
