package helper

import (
	"fmt"
	"os"
	"runtime"

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

// forker runs forks on a thread that has no more rights than commands have.
type forker struct{ jobs chan func() }

// newForker starts the thread. It lives as long as the process.
func newForker() (*forker, error) {
	f := &forker{jobs: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := os.NewSyscallError("prctl", unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_RESOURCE, 0, 0, 0))
		if err == nil {
			err = SetRights(RootRights)
		}
		ready <- err
		if err != nil {
			return // and the thread with it
		}
		for job := range f.jobs {
			job()
		}
	}()
	return f, <-ready
}

// run runs fork there; nil runs it here.
func (f *forker) run(fork func() (int, error)) (pid int, err error) {
	if f == nil {
		return fork()
	}
	done := make(chan struct{})
	f.jobs <- func() {
		pid, err = fork()
		close(done)
	}
	<-done
	return pid, err
}
