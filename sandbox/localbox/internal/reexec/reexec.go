//go:build unix

// Package reexec runs a part of this program in a process of its own: the same
// binary is started again under a role's name, and that role's init takes over
// before the host program's main, or its tests, see anything of it.
package reexec

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// prefix starts the argv[0] of every role; it is long so that no program is
// called like that by chance.
const prefix = "vivarium-localbox-"

// SocketFD is the descriptor of a role's socket to the process that started it.
const SocketFD = 3

// Name is the argv[0] that selects role.
func Name(role string) string { return prefix + role }

// Hook is called from the init function of the package that implements a role.
// It does nothing unless this process was started as that role: argv[0] is the
// role's name and descriptor 3 is a unix socket. Then it runs the role and
// exits with what run returns, so that no later init function runs at all.
func Hook(role string, run func(sock *net.UnixConn) int) {
	if len(os.Args) != 1 || os.Args[0] != Name(role) || !isUnixSocket(SocketFD) {
		return
	}
	unix.CloseOnExec(SocketFD)
	closeInherited()
	conn, err := Conn(SocketFD)
	if err != nil {
		fmt.Fprintln(os.Stderr, "localbox:", role, err)
		os.Exit(125)
	}
	os.Exit(run(conn))
}

// closeInherited closes what leaked into this process: the host program, or a C
// library in it, may have descriptors that are not closed on exec. Those that
// the runtime has opened meanwhile are.
func closeInherited() {
	dir, err := os.Open("/dev/fd")
	if err != nil {
		return
	}
	names, _ := dir.Readdirnames(-1)
	dir.Close()
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= SocketFD {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

func isUnixSocket(fd int) bool {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	_, ok := sa.(*unix.SockaddrUnix)
	return ok
}

// Conn makes a connection of a unix stream socket's descriptor and closes the
// descriptor.
func Conn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor %d is no unix socket", fd)
	}
	return uc, nil
}

// Pair makes two connected unix stream sockets, closed on exec.
func Pair() (a, b *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// Start starts this program again as role with sock as its descriptor 3, and
// returns the process's id; the caller waits for it. env is its whole
// environment. Standard input and output are /dev/null, standard error is
// stderr, or /dev/null when that is nil.
func Start(role string, sock, stderr *os.File, env []string, attr *syscall.SysProcAttr) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	if stderr == nil {
		stderr = null
	}
	path, err := Executable()
	if err != nil {
		return 0, err
	}
	return syscall.ForkExec(path, []string{Name(role)}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   env,
		Files: []uintptr{null.Fd(), null.Fd(), stderr.Fd(), sock.Fd()},
		Sys:   attr,
	})
}

// GODEBUG settings change how a program behaves, and a test binary with
// coverage wants GOCOVERDIR; nothing else of the environment matters to a role.
func Environ() []string {
	var env []string
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "GODEBUG=") || strings.HasPrefix(kv, "GOCOVERDIR=") {
			env = append(env, kv)
		}
	}
	return env
}
