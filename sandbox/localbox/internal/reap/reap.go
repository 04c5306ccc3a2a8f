//go:build unix

// Package reap waits for the processes of a process that starts many, in one
// place and without a thread for each.
package reap

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Reaper waits for every child of this process; nothing else may. It reaps
// orphans that were handed to this process too.
type Reaper struct {
	mu    sync.Mutex
	waits map[int]func(syscall.WaitStatus, *syscall.Rusage)
}

// New starts a reaper. It runs until the process ends.
func New() *Reaper {
	r := &Reaper{waits: make(map[int]func(syscall.WaitStatus, *syscall.Rusage))}
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
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return err
	}
	r.waits[pid] = exited
	if began != nil {
		began(pid)
	}
	return nil
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
	var ws syscall.WaitStatus
	var ru syscall.Rusage
	pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, &ru)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if exited := r.waits[pid]; exited != nil {
		delete(r.waits, pid)
		exited(ws, &ru)
	}
	return true
}
