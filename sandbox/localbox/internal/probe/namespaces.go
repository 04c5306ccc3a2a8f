//go:build linux

package probe

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func namespaceProbes() []Probe {
	kinds := []struct {
		name string
		flag uintptr
	}{
		{"user", unix.CLONE_NEWUSER}, {"mount", unix.CLONE_NEWNS}, {"pid", unix.CLONE_NEWPID}, {"network", unix.CLONE_NEWNET},
		{"ipc", unix.CLONE_NEWIPC}, {"host name", unix.CLONE_NEWUTS}, {"cgroup", unix.CLONE_NEWCGROUP},
	}
	list := []Probe{
		{Name: "clone3 with a user namespace", run: func(*Facts) (string, bool) { return clone3(unix.CLONE_NEWUSER) }},
		{Name: "clone3 past the filter", run: func(*Facts) (string, bool) { return clone3(0) }},
		{Name: "a process in another cgroup", run: clone3Cgroup},
		{Name: "time namespace by unshare", run: func(*Facts) (string, bool) { return unshare(unix.CLONE_NEWTIME) }},
	}
	for _, k := range kinds {
		list = append(list,
			Probe{Name: k.name + " namespace by unshare", run: func(*Facts) (string, bool) { return unshare(k.flag) }},
			Probe{Name: k.name + " namespace by clone", run: func(*Facts) (string, bool) { return clone(k.flag) }})
	}
	return list
}

// unshare is tried in a child with one thread, as a user namespace requires.
func unshare(flag uintptr) (string, bool) { return judge(inChild(unix.SYS_UNSHARE, flag)) }

func clone(flag uintptr) (string, bool) {
	cmd := exec.Command("/proc/self/exe", child, "nothing")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flag}
	if err := cmd.Start(); err != nil {
		return judge(err)
	}
	return got("a child ran: %v", cmd.Wait())
}

// cloneArgs is struct clone_args of linux/sched.h.
type cloneArgs struct {
	flags      uint64
	_          [3]uint64 // pidfd, child_tid, parent_tid
	exitSignal uint64
	_          [5]uint64 // stack, stack_size, tls, set_tid, set_tid_size
	cgroup     uint64
}

func clone3(flags uint64) (string, bool) {
	args := &cloneArgs{flags: flags, exitSignal: uint64(unix.SIGCHLD)}
	pid, err := fork(unix.SYS_CLONE3, ptr(args), unsafe.Sizeof(*args))
	if err == nil {
		end(pid)
	}
	return judge(err)
}

// clone3Cgroup starts a process in a cgroup without that cgroup's leave: here,
// in what is no cgroup.
func clone3Cgroup(*Facts) (string, bool) {
	dir, err := os.Open("/")
	if err != nil {
		return held("%v", err)
	}
	defer dir.Close()
	const intoCgroup = 0x200000000
	args := &cloneArgs{flags: intoCgroup, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(dir.Fd())}
	pid, err := fork(unix.SYS_CLONE3, ptr(args), unsafe.Sizeof(*args))
	if err == nil {
		end(pid)
	}
	return judge(err, unix.EBADF)
}

// fork makes a bare child that waits to be killed. It shares no memory with
// this process and runs no Go code but the loop here.
//
//go:norace
func fork(nr uintptr, args ...uintptr) (int, error) {
	var a [6]uintptr
	copy(a[:], args)
	pid, _, e := syscall.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if e != 0 {
		return 0, e
	}
	for pid == 0 {
		_, _, _ = syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	return int(pid), nil
}

// end kills a child that fork made.
func end(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	_, _ = unix.Wait4(pid, nil, 0, nil)
}

// inChild makes a system call in a bare child and gives its error.
//
//go:norace
func inChild(nr uintptr, arg uintptr) error {
	pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 {
		return e
	}
	if pid == 0 {
		_, _, e = syscall.RawSyscall6(nr, arg, 0, 0, 0, 0, 0)
		for {
			_, _, _ = syscall.RawSyscall6(unix.SYS_EXIT_GROUP, uintptr(e), 0, 0, 0, 0, 0)
		}
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(int(pid), &ws, 0, nil); err != nil {
		return err
	}
	switch {
	case ws.Signaled():
		return fmt.Errorf("the child was ended by %v", ws.Signal())
	case ws.ExitStatus() != 0:
		return syscall.Errno(ws.ExitStatus())
	}
	return nil
}

func itoa(n int) string { return strconv.Itoa(n) }
