package helper

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// RootRights are the capabilities, by number, that root inside keeps where it is
// root: what installing software needs. They count for the sandbox's own user
// namespace and what belongs to it only; nothing of the machine does.
const RootRights = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID |
	1<<unix.CAP_KILL | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETPCAP |
	1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_SETFCAP

// OwnRights are those that the helper of such a sandbox has beside them: it reads
// the marks of processes of other users inside (see package lineage). They do
// not let it raise a limit, which takes the machine's root.
const OwnRights = 1 << unix.CAP_SYS_RESOURCE

// SetRights makes rights the calling thread's permitted and effective ones.
func SetRights(rights uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(rights), Permitted: uint32(rights)},
		{Effective: uint32(rights >> 32), Permitted: uint32(rights >> 32)},
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// limitThread gives up for the calling thread, and what it starts, the rights
// that commands may not have.
func limitThread() error {
	has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0)
	if err != nil {
		return os.NewSyscallError("prctl", err)
	}
	if has == 0 {
		return nil // what follows was done
	}
	if err := SetRights(RootRights); err != nil {
		return err
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_RESOURCE, 0, 0, 0))
}

// thread runs functions on one thread, which keeps the rights that the helper was
// started with: others lose them once they have forked.
type thread struct{ jobs chan func() }

// newThread starts the thread. It lives as long as the process.
func newThread() *thread {
	t := &thread{jobs: make(chan func())}
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(ready)
		for job := range t.jobs {
			job()
		}
	}()
	<-ready
	return t
}

// run runs do there; nil runs it here.
func (t *thread) run(do func()) {
	if t == nil {
		do()
		return
	}
	done := make(chan struct{})
	t.jobs <- func() {
		defer close(done)
		do()
	}
	<-done
}

const (
	// helperSlack is how late timers of the helper's threads may be, in
	// nanoseconds: the runtime's monitor, which wakes every 20 microseconds while
	// something runs, would take a good part of a processor otherwise.
	helperSlack = 500_000
	// commandSlack is the kernel's default (prctl(2), PR_SET_TIMERSLACK).
	commandSlack = 50_000
)

// Lazy makes the timers of this thread, and of all that a program has which is
// run in its place, the helper's.
func Lazy() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_TIMERSLACK, helperSlack, 0, 0, 0))
}

// forkExec starts a command, with a pidfd where the kernel has them. limited is
// for a helper with rights that commands may not have.
func forkExec(l *launch, args []string, limited bool) (pid, pidfd int, err error) {
	runtime.LockOSThread() // rights and slack are a thread's, and inherited
	defer runtime.UnlockOSThread()
	if limited {
		if err := limitThread(); err != nil {
			return 0, -1, err
		}
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, commandSlack, 0, 0, 0); err != nil {
		return 0, -1, os.NewSyscallError("prctl", err)
	}
	pidfd = -1
	l.attr.Sys.PidFD = &pidfd
	pid, err = syscall.ForkExec(l.path, args, &l.attr)
	return pid, pidfd, err
}
