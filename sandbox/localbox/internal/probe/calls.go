//go:build linux

package probe

import (
	"os"

	"golang.org/x/sys/unix"
)

// callProbes are system calls that nothing in a sandbox needs and that have led
// out of sandboxes, or that act on the machine.
func callProbes() []Probe {
	return []Probe{
		{Name: "bpf", run: bpf},
		{Name: "perf_event_open", run: perfEvent},
		{Name: "io_uring", run: ioUring},
		{Name: "userfaultfd", run: userfault},
		{Name: "init_module", run: func(*Facts) (string, bool) {
			_, err := call(unix.SYS_INIT_MODULE, 0, 0, cstr(""))
			return judge(err, unix.ENOEXEC, unix.EFAULT)
		}},
		{Name: "finit_module", run: func(*Facts) (string, bool) {
			_, err := call(unix.SYS_FINIT_MODULE, ^uintptr(0), cstr(""), 0)
			return judge(err, unix.EBADF)
		}},
		{Name: "delete_module", run: func(*Facts) (string, bool) {
			return judge(unix.DeleteModule("vivarium_probe", unix.O_NONBLOCK), unix.ENOENT)
		}},
		{Name: "kexec_load", run: func(*Facts) (string, bool) {
			_, err := call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0x8000)
			return judge(err, unix.EINVAL)
		}},
		{Name: "reboot", run: func(*Facts) (string, bool) {
			_, err := call(unix.SYS_REBOOT, 0, 0, 0, 0)
			return judge(err, unix.EINVAL)
		}},
		{Name: "clock set", run: clockAdjust},
		{Name: "host name set", run: hostName},
		{Name: "domain name set", run: func(*Facts) (string, bool) {
			var u unix.Utsname
			if err := unix.Uname(&u); err != nil {
				return held("%v", err)
			}
			return judge(unix.Setdomainname([]byte(unix.ByteSliceToString(u.Domainname[:]))))
		}},
		{Name: "process accounting", run: func(*Facts) (string, bool) { return judge(unix.Acct("/nowhere"), unix.ENOENT) }},
		{Name: "fanotify", run: fanotify},
		{Name: "odd personality", run: personality},
		{Name: "setuid to root", run: func(*Facts) (string, bool) { return setID(0) }},
		{Name: "setuid to another user", run: func(*Facts) (string, bool) { return setID(os.Getuid() + 1) }},
		{Name: "groups set", run: func(*Facts) (string, bool) {
			// syscall.Setgroups would set those of every thread and fail hard.
			var gid uint32
			_, err := call(unix.SYS_SETGROUPS, 1, ptr(&gid))
			return judge(err)
		}},
		{Name: "memory of other nodes moved", run: func(*Facts) (string, bool) {
			var nodes uint64 = 1
			_, err := call(unix.SYS_MIGRATE_PAGES, 1, 64, ptr(&nodes), ptr(&nodes))
			return judge(err)
		}},
		{Name: "listing of mounts by id", run: func(*Facts) (string, bool) {
			const openTreeAttr = 467 // the same on every architecture; Linux 6.15
			_, err := call(openTreeAttr, ^uintptr(0), cstr("/nowhere"), unix.OPEN_TREE_CLONE, 0, 0)
			return judge(err, unix.ENOENT)
		}},
	}
}

// bpf makes a map of one entry.
func bpf(*Facts) (string, bool) {
	const mapCreate, array = 0, 2
	attr := struct{ kind, keySize, valueSize, entries, flags, inner uint32 }{array, 4, 4, 1, 0, 0}
	fd, err := call(unix.SYS_BPF, mapCreate, ptr(&attr), 24)
	if err == nil {
		unix.Close(int(fd))
	}
	return judge(err)
}

func perfEvent(*Facts) (string, bool) {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: 128, Config: unix.PERF_COUNT_SW_TASK_CLOCK, Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv}
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	return judge(err)
}

func ioUring(*Facts) (string, bool) {
	var params [120]byte
	fd, err := call(unix.SYS_IO_URING_SETUP, 1, ptr(&params))
	if err == nil {
		unix.Close(int(fd))
	}
	return judge(err, unix.EFAULT, unix.EINVAL)
}

func userfault(*Facts) (string, bool) {
	const userModeOnly = 1
	fd, err := call(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|userModeOnly)
	if err == nil {
		unix.Close(int(fd))
	}
	return judge(err)
}

// clockAdjust sets the clock's tick to what it is.
func clockAdjust(*Facts) (string, bool) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return held("%v", err)
	}
	const tick = 0x4000
	t.Modes = tick
	_, err := unix.Adjtimex(&t)
	return judge(err)
}

func hostName(*Facts) (string, bool) {
	name, err := os.Hostname()
	if err != nil {
		return held("%v", err)
	}
	return judge(unix.Sethostname([]byte(name)))
}

func fanotify(*Facts) (string, bool) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err == nil {
		unix.Close(fd)
	}
	return judge(err)
}

// personality asks for readable memory to be executable, as programs of other
// systems expect.
func personality(*Facts) (string, bool) {
	const readImpliesExec = 0x0400000
	_, err := call(unix.SYS_PERSONALITY, readImpliesExec)
	return judge(err)
}

// setID is tried on this thread alone; the process ends soon after.
func setID(uid int) (string, bool) {
	if os.Getuid() == uid {
		return got("it is user %d", uid)
	}
	_, err := call(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
	return judge(err)
}
