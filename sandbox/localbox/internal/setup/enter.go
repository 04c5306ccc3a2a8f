//go:build linux && (amd64 || arm64)

package setup

import (
	"debug/elf"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reexec"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/rootfs"
)

// enterRole is a child of process 1 that changes the root for both, once process
// 1 runs the helper: a program that needs a loader finds the machine's only
// where the machine's root is.
const enterRole = "enter"

func init() {
	reexec.Hook(enterRole, func(sock *net.UnixConn) int {
		var one [1]byte
		_, _ = sock.Read(one[:]) // ends when process 1 is the helper, and loaded
		if err := rootfs.Enter(); err != nil {
			return 125
		}
		return 0
	})
}

// dynamic reports whether this program needs a loader.
func dynamic() bool {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return true
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true
		}
	}
	return false
}

// enterLater starts the child. It waits until no copy of the descriptor it returns
// is open: the helper inherits it and closes it (reexec.Hook closes what it does
// not know), by when its loader is through with the machine's libraries.
func enterLater() (int, error) {
	mine, theirs, err := reexec.Pair()
	if err != nil {
		return -1, err
	}
	defer mine.Close()
	defer theirs.Close()
	_, err = syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(exe), []string{reexec.Name(enterRole)}, &syscall.ProcAttr{
		Env:   append(reexec.Environ(), "GOMAXPROCS=1", "GOGC=off"),
		Files: []uintptr{os.Stdin.Fd(), os.Stdout.Fd(), os.Stderr.Fd(), theirs.Fd()},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return -1, err
	}
	// Not closed on exec, and clear of descriptor 3, where the socket goes.
	fd, err := unix.FcntlInt(mine.Fd(), unix.F_DUPFD, 16)
	return fd, os.NewSyscallError("dup", err)
}
