package helper

import (
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxrssUnit is the unit of ru_maxrss (getrusage(2)).
const maxrssUnit = 1024

// hide closes this process's memory, environment and descriptors to processes
// of the same user: it holds the secrets of the sandbox.
func hide() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// ignoreSignals leaves process 1 deaf to what the inside sends it: the kernel
// drops every signal to the first process of a process namespace that has no
// handler, but the runtime has one for each. Commands start with the same
// defaults, which they would not if the signals were ignored. What stays is the
// reaper's SIGCHLD and the runtime's own SIGURG.
func ignoreSignals() {
	const lastSignal = 64
	var byDefault [64]byte // struct sigaction with SIG_DFL, whatever its layout
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		switch unix.Signal(sig) {
		case unix.SIGCHLD, unix.SIGURG:
			continue
		}
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
	}
}

// warmThreads makes the runtime start the threads that it may ever need: when
// the inside has used up the limit on processes, a new thread could not be
// started, and the runtime would give up. Idle threads are kept for ever.
func warmThreads() {
	var wg sync.WaitGroup
	for range maxFileOps + 1 {
		wg.Go(func() {
			ts := unix.NsecToTimespec(int64(2 * time.Millisecond))
			_ = unix.Nanosleep(&ts, nil)
		})
	}
	wg.Wait()
}

// openTerminal makes a terminal: inside, of the sandbox's own devpts.
func openTerminal(plain bool, rows, cols uint16) (master, slave int, err error) {
	path := "/dev/pts/ptmx"
	if plain {
		path = "/dev/ptmx"
	}
	master, err = unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err == nil {
		err = unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}
	if err == nil {
		slave, err = terminalPeer(master)
	}
	if err != nil {
		unix.Close(master)
		return -1, -1, fmt.Errorf("make a terminal: %w", err)
	}
	return master, slave, nil
}

// terminalPeer opens the other side without a path (ioctl_tty(2), TIOCGPTPEER).
func terminalPeer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER,
		unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func mkfifoAt(dir *os.File, base string, mode uint32) error {
	return unix.Mkfifoat(int(dir.Fd()), base, mode)
}
