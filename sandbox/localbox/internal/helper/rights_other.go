//go:build unix && !linux

package helper

import "syscall"

// thread is for sandboxes with an image, which this system has not.
type thread struct{}

func newThread() *thread { return nil }

func (*thread) run(do func()) { do() }

func forkExec(l *launch, args []string, _ bool) (pid, pidfd int, err error) {
	pid, err = syscall.ForkExec(l.path, args, &l.attr)
	return pid, -1, err
}
