//go:build linux && (amd64 || arm64)

package seccomp

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// interpret runs a filter as the kernel does, over struct seccomp_data.
func interpret(t *testing.T, prog []unix.SockFilter, arch uint32, nr uint64, args ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.LittleEndian.PutUint32(data[offNr:], uint32(nr))
	binary.LittleEndian.PutUint32(data[offArch:], arch)
	for i, a := range args {
		binary.LittleEndian.PutUint64(data[offArgs+8*i:], a)
	}
	var acc uint32
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		taken := false
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.LittleEndian.Uint32(data[in.K:])
			continue
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			taken = acc == in.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			taken = acc > in.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			taken = acc&in.K != 0
		default:
			t.Fatalf("instruction %d: unknown code %#x", pc, in.Code)
		}
		if taken {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	t.Fatal("the filter runs off its end")
	return 0
}

func TestProgram(t *testing.T) {
	const nonce = 0xdeadbeef_12345678
	eperm, enosys, family := errno(unix.EPERM), errno(unix.ENOSYS), errno(unix.EAFNOSUPPORT)
	for _, c := range []struct {
		name string
		want uint32
		nr   uint64
		args []uint64
	}{
		{"read", retAllow, unix.SYS_READ, nil},
		{"openat2", retAllow, unix.SYS_OPENAT2, nil},
		{"execve", retAllow, unix.SYS_EXECVE, nil},
		{"fork", retAllow, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}},
		{"thread", retAllow, unix.SYS_CLONE, []uint64{0x3d0f00}},
		{"clone with a user namespace", eperm, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}},
		{"clone with a time namespace", eperm, unix.SYS_CLONE, []uint64{unix.CLONE_NEWTIME}},
		{"clone with noise above", eperm, unix.SYS_CLONE, []uint64{1<<32 | unix.CLONE_NEWNET}},
		{"clone3", enosys, unix.SYS_CLONE3, nil},
		{"mount", eperm, unix.SYS_MOUNT, nil},
		{"setns", eperm, unix.SYS_SETNS, nil},
		{"keyctl", eperm, unix.SYS_KEYCTL, nil},
		{"last of the list", eperm, unix.SYS_MOVE_PAGES, nil},
		{"io_uring", enosys, unix.SYS_IO_URING_SETUP, nil},
		{"a call of tomorrow", enosys, lastKnown + 1, nil},
		{"x32", enosys, 0x40000000 | unix.SYS_READ, nil},
		{"minus one", enosys, math.MaxUint32, nil},
		{"TIOCSTI", eperm, unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}},
		{"TIOCSTI with noise above", eperm, unix.SYS_IOCTL, []uint64{0, 1<<32 | unix.TIOCSTI}},
		{"TIOCLINUX", eperm, unix.SYS_IOCTL, []uint64{0, unix.TIOCLINUX}},
		{"TCGETS", retAllow, unix.SYS_IOCTL, []uint64{0, unix.TCGETS}},
		{"PTRACE_TRACEME", retAllow, unix.SYS_PTRACE, []uint64{unix.PTRACE_TRACEME}},
		{"PTRACE_ATTACH", eperm, unix.SYS_PTRACE, []uint64{unix.PTRACE_ATTACH}},
		{"PTRACE_SEIZE", eperm, unix.SYS_PTRACE, []uint64{unix.PTRACE_SEIZE}},
		{"personality query", retAllow, unix.SYS_PERSONALITY, []uint64{math.MaxUint32}},
		{"personality linux", retAllow, unix.SYS_PERSONALITY, []uint64{0}},
		{"personality odd", eperm, unix.SYS_PERSONALITY, []uint64{0x0400000}},
		{"socket unix", retAllow, unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_STREAM}},
		{"socket inet", retAllow, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM}},
		{"socket inet6", retAllow, unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_STREAM}},
		{"socket route", retAllow, unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}},
		{"socket audit", family, unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}},
		{"socket vsock", family, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK}},
		{"socket alg", family, unix.SYS_SOCKET, []uint64{unix.AF_ALG}},
		{"socket packet", family, unix.SYS_SOCKET, []uint64{unix.AF_PACKET}},
		{"prlimit of files", retAllow, unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_NOFILE, 0x7fff0000}},
		{"prlimit asks for the mark", retAllow, unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_RTTIME, 0, 0x7fff0000}},
		{"prlimit sets the mark", eperm, unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_RTTIME, 0x7fff0000}},
		{"prlimit with a high pointer", eperm, unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_RTTIME, 0x7fff << 32}},
		{"prlimit with the nonce", retAllow, unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_RTTIME, 0x7fff0000, 0, nonce}},
		{"prlimit with half the nonce", eperm, unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_RTTIME, 0x7fff0000, 0, nonce & math.MaxUint32}},
		{"prlimit with the other half", eperm, unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_RTTIME, 0x7fff0000, 0, nonce &^ math.MaxUint32}},
		{"setrlimit of the mark", eperm, unix.SYS_SETRLIMIT, []uint64{unix.RLIMIT_RTTIME}},
		{"setrlimit of files", retAllow, unix.SYS_SETRLIMIT, []uint64{unix.RLIMIT_NOFILE}},
		{"prlimit of process 1", eperm, unix.SYS_PRLIMIT64, []uint64{1, unix.RLIMIT_NOFILE, 0x7fff0000}},
		{"prlimit of process 1 with a high pointer", eperm, unix.SYS_PRLIMIT64, []uint64{1, unix.RLIMIT_NOFILE, 0x7fff << 32}},
		{"prlimit of oneself with noise above", retAllow, unix.SYS_PRLIMIT64, []uint64{1 << 32, unix.RLIMIT_NOFILE, 0x7fff0000}},
		{"prlimit of process 1 with the nonce", retAllow, unix.SYS_PRLIMIT64, []uint64{1, unix.RLIMIT_NOFILE, 0x7fff0000, 0, nonce}},
		{"prlimit asks for limits of process 1", retAllow, unix.SYS_PRLIMIT64, []uint64{1, unix.RLIMIT_NOFILE, 0, 0x7fff0000}},
		{"own priority", retAllow, unix.SYS_SETPRIORITY, []uint64{unix.PRIO_PROCESS, 0, 19}},
		{"priority of process 1", eperm, unix.SYS_SETPRIORITY, []uint64{unix.PRIO_PROCESS, 1, 19}},
		{"priority of a thread", eperm, unix.SYS_SETPRIORITY, []uint64{unix.PRIO_PROCESS, 5, 19}},
		{"priority of the user", eperm, unix.SYS_SETPRIORITY, []uint64{unix.PRIO_USER, 0, 19}},
		{"priority of the group", eperm, unix.SYS_SETPRIORITY, []uint64{unix.PRIO_PGRP, 0, 19}},
		{"own disk priority", retAllow, unix.SYS_IOPRIO_SET, []uint64{ioprioProcess, 0, 3 << 13}},
		{"disk priority of process 1", eperm, unix.SYS_IOPRIO_SET, []uint64{ioprioProcess, 1, 3 << 13}},
		{"disk priority of the user", eperm, unix.SYS_IOPRIO_SET, []uint64{3, 1000, 3 << 13}},
		{"own class", retAllow, unix.SYS_SCHED_SETSCHEDULER, []uint64{0, unix.SCHED_IDLE}},
		{"class of process 1", eperm, unix.SYS_SCHED_SETSCHEDULER, []uint64{1, unix.SCHED_IDLE}},
		{"normal class of a thread", retAllow, unix.SYS_SCHED_SETSCHEDULER, []uint64{5, unix.SCHED_NORMAL}},
		{"own attributes", retAllow, unix.SYS_SCHED_SETATTR, []uint64{0, 0x7fff0000}},
		{"attributes of process 1", eperm, unix.SYS_SCHED_SETATTR, []uint64{1, 0x7fff0000}},
		{"affinity", retAllow, unix.SYS_SCHED_SETAFFINITY, nil},
	} {
		prog := Program(Options{Nonce: nonce})
		if got := interpret(t, prog, auditArch, c.nr, c.args...); got != c.want {
			t.Errorf("%s: got %#x, want %#x", c.name, got, c.want)
		}
		if got := interpret(t, prog, unix.AUDIT_ARCH_I386, c.nr, c.args...); got != retKill {
			t.Errorf("%s on another architecture: got %#x", c.name, got)
		}
	}
	if got := interpret(t, Program(Options{KeepAffinity: true}), auditArch, unix.SYS_SCHED_SETAFFINITY); got != eperm {
		t.Errorf("affinity to be kept: got %#x", got)
	}
}

// TestInstall puts a child of this test under the filter.
func TestInstall(t *testing.T) {
	if os.Getenv("SECCOMP_TEST_CHILD") != "" {
		runtime.LockOSThread()
		if err := Install(Options{}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if err := unix.Unshare(unix.CLONE_NEWUSER); err != unix.EPERM {
			fmt.Println("unshare:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestInstall$")
	cmd.Env = append(os.Environ(), "SECCOMP_TEST_CHILD=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
