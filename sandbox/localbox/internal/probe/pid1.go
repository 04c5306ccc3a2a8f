//go:build linux

package probe

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process 1 of a sandbox is the host's own program: what it holds is the host's.
func pid1Probes() []Probe {
	return []Probe{
		{Name: "pid 1 memory", run: func(*Facts) (string, bool) { return opens(os.O_RDONLY, "/proc/1/mem") }},
		{Name: "pid 1 memory map", run: pid1Maps},
		{Name: "pid 1 environment", run: func(*Facts) (string, bool) { return reads("/proc/1/environ") }},
		{Name: "pid 1 executable", run: pid1Exe},
		{Name: "pid 1 file descriptors", run: pid1Files},
		{Name: "pid 1 root and cwd", run: pid1Root},
		{Name: "pid 1 stack and system call", run: func(*Facts) (string, bool) { return reads("/proc/1/syscall", "/proc/1/stack") }},
		{Name: "pid 1 pidfd_getfd", run: pid1Getfd},
		{Name: "pid 1 process_vm_readv", run: func(*Facts) (string, bool) { return pid1Vm(unix.SYS_PROCESS_VM_READV) }},
		{Name: "pid 1 process_vm_writev", run: func(*Facts) (string, bool) { return pid1Vm(unix.SYS_PROCESS_VM_WRITEV) }},
		{Name: "pid 1 kcmp", run: pid1Kcmp},
		{Name: "pid 1 traced", Destructive: true, run: pid1Trace},
		{Name: "pid 1 limited", Destructive: true, run: pid1Limit},
		{Name: "pid 1 starved", Destructive: true, run: pid1Starve},
		{Name: "pid 1 memory reclaimed", run: pid1Madvise},
		{Name: "pid 1 namespaces", run: pid1Namespaces},
	}
}

// opens tries to open files. Nothing is read or written.
func opens(flag int, names ...string) (string, bool) {
	text := "no such file"
	for _, name := range names {
		f, err := os.OpenFile(name, flag|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != nil {
			text = err.Error()
			continue
		}
		hidden := covered(f, flag)
		f.Close()
		if !hidden {
			return got("%s is open", name)
		}
		text = name + " is covered"
	}
	return held("%s", text)
}

// covered reports whether a sandbox has put nothing in a file's place: the null
// device, or, where it is only to be read, an empty file in memory.
func covered(f *os.File, flag int) bool {
	var st unix.Stat_t
	var sys unix.Statfs_t
	if unix.Fstat(int(f.Fd()), &st) != nil || unix.Fstatfs(int(f.Fd()), &sys) != nil {
		return false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		return st.Rdev == unix.Mkdev(1, 3)
	case unix.S_IFREG:
		return flag == os.O_RDONLY && sys.Type == unix.TMPFS_MAGIC && st.Size == 0
	}
	return false
}

// reads tries to read a first byte.
func reads(names ...string) (string, bool) {
	text := "no such file"
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			var n int
			if n, err = f.Read(make([]byte, 1)); n > 0 {
				f.Close()
				return got("%s is readable", name)
			}
			f.Close()
		}
		if err != nil {
			text = err.Error()
		}
	}
	return held("%s", text)
}

func pid1Maps(*Facts) (string, bool) {
	f, err := os.Open("/proc/1/maps")
	if err != nil {
		return held("%v", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		return got("%s", s.Text())
	}
	return held("it is empty")
}

func pid1Exe(*Facts) (string, bool) {
	to, err := os.Readlink("/proc/1/exe")
	if err == nil {
		return got("it is %s", to)
	}
	return opens(os.O_RDONLY, "/proc/1/exe")
}

func pid1Files(*Facts) (string, bool) {
	dir, err := os.Open("/proc/1/fd")
	if err != nil {
		return held("%v", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		if to, err := os.Readlink("/proc/1/fd/" + name); err == nil {
			return got("%s is %s", name, to)
		}
	}
	return held("%d names, %v", len(names), err)
}

func pid1Root(f *Facts) (string, bool) {
	text := ""
	for _, name := range []string{"/proc/1/root", "/proc/1/cwd"} {
		if _, err := os.Stat(name + "/" + f.SecretFile); err == nil {
			return got("%s is open", name)
		} else {
			text = err.Error()
		}
	}
	return held("%s", text)
}

func pid1Getfd(*Facts) (string, bool) {
	pidfd, err := unix.PidfdOpen(1, 0)
	if err != nil {
		return held("%v", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 0, 0)
	if err == nil {
		unix.Close(fd)
	}
	return judge(err, unix.EBADF)
}

// pid1Vm asks for address 0, which is looked at after the right to look. For a
// write that means that none happens.
func pid1Vm(nr uintptr) (string, bool) {
	b := make([]byte, 1)
	local := []unix.Iovec{{Base: &b[0], Len: 1}}
	remote := []unix.RemoteIovec{{Base: 0, Len: 1}}
	var err error
	if nr == unix.SYS_PROCESS_VM_READV {
		_, err = unix.ProcessVMReadv(1, local, remote, 0)
	} else {
		_, err = unix.ProcessVMWritev(1, local, remote, 0)
	}
	return judge(err, unix.EFAULT)
}

func pid1Kcmp(*Facts) (string, bool) {
	const virtualMemory = 1
	_, err := call(unix.SYS_KCMP, uintptr(os.Getpid()), 1, virtualMemory, 0, 0)
	return judge(err)
}

func pid1Trace(*Facts) (string, bool) {
	const seize = 0x4206
	_, err := call(unix.SYS_PTRACE, seize, 1, 0, 0)
	return judge(err)
}

// pid1Limit leaves process 1 no descriptor for what it is asked next.
func pid1Limit(*Facts) (string, bool) {
	return judge(unix.Prlimit(1, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 8, Max: 8}, nil))
}

// pid1Starve gives process 1 the last place whenever anybody else wants to run.
func pid1Starve(*Facts) (string, bool) {
	var priority int32
	return first(map[string]func() error{
		"priority":             func() error { return unix.Setpriority(unix.PRIO_PROCESS, 1, 19) },
		"priority of the user": func() error { return unix.Setpriority(unix.PRIO_USER, os.Getuid(), 19) },
		"class": func() error {
			_, err := call(unix.SYS_SCHED_SETSCHEDULER, 1, unix.SCHED_IDLE, ptr(&priority))
			return err
		},
		"attributes": func() error {
			return unix.SchedSetAttr(1, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
		},
	})
}

func pid1Madvise(*Facts) (string, bool) {
	pidfd, err := unix.PidfdOpen(1, 0)
	if err != nil {
		return held("%v", err)
	}
	defer unix.Close(pidfd)
	iov := unix.Iovec{}
	_, err = call(unix.SYS_PROCESS_MADVISE, uintptr(pidfd), ptr(&iov), 1, unix.MADV_COLD, 0)
	return judge(err, unix.ENOMEM, unix.EINVAL)
}

func pid1Namespaces(*Facts) (string, bool) {
	var text string
	for _, name := range strings.Fields("mnt net pid ipc uts user cgroup time") {
		fd, err := unix.Open("/proc/1/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, 0)
			unix.Close(fd)
		}
		if err == nil {
			return got("entered %s", name)
		}
		text = name + ": " + strconv.Quote(err.Error())
	}
	pidfd, err := unix.PidfdOpen(1, 0)
	if err == nil {
		defer unix.Close(pidfd)
		if err = unix.Setns(pidfd, unix.CLONE_NEWNET); err == nil {
			return got("entered net by pidfd")
		}
	}
	return held("%s; by pidfd: %v", text, err)
}
