//go:build linux && (amd64 || arm64)

// Package seccomp is the filter of system calls that a sandbox's processes
// live under: a deny list of what reaches the kernel's less travelled parts,
// and of what could undo the sandbox. Everything else a program may do.
package seccomp

import (
	"fmt"
	"math"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options vary the filter.
type Options struct {
	// Nonce lets a process that knows it change RLIMIT_RTTIME (see package
	// lineage), and the limits of other processes.
	Nonce uint64
	// KeepAffinity denies sched_setaffinity, for a sandbox whose CPU limit is
	// the set of processors it may run on.
	KeepAffinity bool
}

// namespaceFlags are the flags of clone(2) that make a namespace.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWTIME

// lastKnown is the newest system call that was looked at for the list. Later
// ones do not exist for the inside, so that a new kernel opens no new door;
// programs fall back. From 424 on the architectures share their numbers.
const lastKnown = 470

// personalities that change nothing for the kernel: PER_LINUX, the query, and
// those that uname26, linux32 -R and debuggers (ADDR_NO_RANDOMIZE) use.
var personalities = []uint32{0, 0x0008, 0x20000, 0x20008, 0x40000, math.MaxUint32}

// socketFamilies that the inside may open: UNIX, INET, INET6. NETLINK is looked
// at more closely.
var socketFamilies = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6}

// Program assembles the filter.
func Program(o Options) []unix.SockFilter {
	deny := errno(unix.EPERM)
	p := []unix.SockFilter{
		load(offArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		ret(retKill), // i386 on amd64, arm on arm64: other numbers, other doors
		load(offNr),
		jump(unix.BPF_JGT, lastKnown, 0, 1), // x32 numbers are above it too
		ret(errno(unix.ENOSYS)),
	}
	p = append(p, cloneRules(deny)...)
	p = append(p, limitRules(o.Nonce, deny)...)
	p = append(p, priorityRules(deny)...)
	p = append(p, socketRule()...)
	p = append(p, allowOnly(unix.SYS_PERSONALITY, 0, personalities, deny)...)
	// TIOCSTI types into the terminal, TIOCLINUX does so on a console.
	p = append(p, denyOnly(unix.SYS_IOCTL, 1, []uint32{unix.TIOCSTI, unix.TIOCLINUX}, deny)...)
	// A debugger may trace what it started; it may not take hold of others.
	p = append(p, denyOnly(unix.SYS_PTRACE, 0, []uint32{unix.PTRACE_ATTACH, unix.PTRACE_SEIZE}, deny)...)
	if o.KeepAffinity {
		p = append(p, forCall(unix.SYS_SCHED_SETAFFINITY, ret(deny))...)
	}
	for _, nr := range absent {
		p = append(p, forCall(nr, ret(errno(unix.ENOSYS)))...)
	}
	for _, list := range [][]uint32{denied, deniedHere} {
		for _, nr := range list {
			p = append(p, forCall(nr, ret(deny))...)
		}
	}
	return append(p, ret(retAllow))
}

func cloneRules(deny uint32) []unix.SockFilter {
	p := forCall(unix.SYS_CLONE,
		load(low(0)),
		jump(unix.BPF_JSET, namespaceFlags, 0, 1),
		ret(deny),
		ret(retAllow))
	// clone3's flags are behind a pointer, where a filter cannot look; C
	// libraries fall back to clone on ENOSYS.
	return append(p, forCall(unix.SYS_CLONE3, ret(errno(unix.ENOSYS)))...)
}

// limitRules keep the mark of package lineage from being changed, and the limits
// of other processes: those of process 1, the same user's, would end its service.
func limitRules(nonce uint64, deny uint32) []unix.SockFilter {
	p := forCall(unix.SYS_PRLIMIT64,
		load(low(2)),
		jump(unix.BPF_JEQ, 0, 0, 2),
		load(high(2)),
		jump(unix.BPF_JEQ, 0, 8, 0), // no new value: only asking
		load(low(4)),
		jump(unix.BPF_JEQ, uint32(nonce), 0, 2),
		load(high(4)),
		jump(unix.BPF_JEQ, uint32(nonce>>32), 4, 0),
		load(low(1)),
		jump(unix.BPF_JEQ, unix.RLIMIT_RTTIME, 3, 0),
		load(low(0)),
		jump(unix.BPF_JEQ, 0, 0, 1), // its own limits
		ret(retAllow),
		ret(deny))
	return append(p, denyOnly(unix.SYS_SETRLIMIT, 0, []uint32{unix.RLIMIT_RTTIME}, deny)...)
}

// ioprioProcess is IOPRIO_WHO_PROCESS (linux/ioprio.h).
const ioprioProcess = 1

// priorityRules keep process 1, the same user's, from being starved: priorities
// go down only, so changing another's never helps it. Threads are named by
// numbers of their own, so any number but 0 may be one of process 1. The normal
// class stays allowed, as threads libraries set it for threads by their numbers;
// affinity too: process 1 gets its share of any processor.
func priorityRules(deny uint32) []unix.SockFilter {
	var p []unix.SockFilter
	for _, c := range []struct{ nr, process uint32 }{
		{unix.SYS_SETPRIORITY, unix.PRIO_PROCESS},
		{unix.SYS_IOPRIO_SET, ioprioProcess},
	} {
		p = append(p, forCall(c.nr,
			load(low(0)),
			jump(unix.BPF_JEQ, c.process, 0, 3), // not of a group or a user
			load(low(1)),
			jump(unix.BPF_JEQ, 0, 0, 1),
			ret(retAllow),
			ret(deny))...)
	}
	p = append(p, forCall(unix.SYS_SCHED_SETSCHEDULER,
		load(low(0)),
		jump(unix.BPF_JEQ, 0, 2, 0),
		load(low(1)),
		jump(unix.BPF_JEQ, unix.SCHED_NORMAL, 0, 1),
		ret(retAllow),
		ret(deny))...)
	// Its class is behind a pointer.
	return append(p, allowOnly(unix.SYS_SCHED_SETATTR, 0, []uint32{0}, deny)...)
}

func socketRule() []unix.SockFilter {
	n := uint8(len(socketFamilies))
	body := []unix.SockFilter{load(low(0))}
	for i, f := range socketFamilies {
		body = append(body, jump(unix.BPF_JEQ, f, n-uint8(i)+3, 0))
	}
	body = append(body,
		jump(unix.BPF_JEQ, unix.AF_NETLINK, 0, 2),
		load(low(2)),
		jump(unix.BPF_JEQ, unix.NETLINK_ROUTE, 1, 0), // getaddrinfo(3) asks for the addresses
		ret(errno(unix.EAFNOSUPPORT)),
		ret(retAllow))
	return forCall(unix.SYS_SOCKET, body...)
}

// Install puts the calling thread, and what it starts, under the filter for
// good. It sets no_new_privs, without which the kernel refuses.
func Install(o Options) error {
	prog := Program(o)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&fprog)), 0, 0)
	runtime.KeepAlive(prog)
	if err != nil {
		return fmt.Errorf("seccomp filter: %w", err)
	}
	return nil
}
