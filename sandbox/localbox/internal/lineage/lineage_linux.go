package lineage

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Set gives this process the mark, for what it forks from now on. nonce gets it
// past the seccomp filter of an isolated sandbox. It fails with EPERM when the
// mark is higher than the one it has.
func Set(t Tag, nonce uint64) error {
	lim := unix.Rlimit{Cur: uint64(t), Max: uint64(t)}
	// The fifth argument is no argument of prlimit64: the filter reads it, the
	// kernel does not.
	_, _, errno := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_RTTIME,
		uintptr(unsafe.Pointer(&lim)), 0, uintptr(nonce), 0)
	if errno != 0 {
		return os.NewSyscallError("prlimit64", errno)
	}
	return nil
}

// Processes lists the living processes, other than this one, whose mark match
// selects.
func Processes(match func(limit uint64) bool) ([]int, error) {
	var pids []int
	err := each(match, func(pid, _ int) { pids = append(pids, pid) })
	return pids, err
}

// each calls do with the processes that match, each held by a pidfd.
func each(match func(limit uint64) bool, do func(pid, pidfd int)) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return err
	}
	self := os.Getpid()
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == self || !selected(pid, match) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// Asked again while the pidfd holds the number, which may have been
		// given to another process in between.
		if selected(pid, match) && !dead(name) {
			do(pid, fd)
		}
		unix.Close(fd)
	}
	return nil
}

func selected(pid int, match func(limit uint64) bool) bool {
	var lim unix.Rlimit
	return unix.Prlimit(pid, unix.RLIMIT_RTTIME, nil, &lim) == nil && match(lim.Max)
}

// dead reports whether the process has ended and only its parent has not asked.
func dead(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return true
	}
	// The command's name may hold anything; the state follows its last ")".
	i := bytes.LastIndexByte(stat, ')')
	return i < 0 || i+2 >= len(stat) || stat[i+2] == 'Z' || stat[i+2] == 'X'
}

// Kill kills every process that match selects, until none is left or patience
// has passed. It returns how many are left.
func Kill(match func(limit uint64) bool, patience time.Duration) (left int, err error) {
	deadline := time.Now().Add(patience)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		left = 0
		err = each(match, func(_, pidfd int) {
			left++
			_ = unix.PidfdSendSignal(pidfd, syscall.SIGKILL, nil, 0)
		})
		if err != nil || left == 0 || time.Now().After(deadline) {
			return left, err
		}
		time.Sleep(pause) // a process dies on its way out of the kernel, not in kill(2)
	}
}
