//go:build linux && (amd64 || arm64)

// Package setup is the role that a process has first in its new namespaces: it
// makes the sandbox's file system, gives every right up, and becomes the helper
// by running this program once more, so that nothing that had rights is left.
package setup

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/helper"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reexec"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/rootfs"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/seccomp"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// Role is the name under which this package takes a process over.
const Role = "setup"

// Processes is how many processes and threads the helper itself needs, on top
// of those the sandbox may have.
const Processes = 16

func init() { reexec.Hook(Role, run) }

// Attr starts a process in namespaces of its own in which it may do what this
// role does, and nothing outside. Inside it is rootfs.UID; outside it is uid
// and gid.
func Attr(uid, gid int, privileged bool) *syscall.SysProcAttr {
	const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
		unix.CLONE_NEWIPC | unix.CLONE_NEWUTS // and NEWCGROUP, once it is in its cgroup
	return &syscall.SysProcAttr{
		Cloneflags:  namespaces,
		Setsid:      true,
		Pdeathsig:   syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: rootfs.UID, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: rootfs.UID, HostID: gid, Size: 1}},
		// Without it the groups of the host program would stay; only root may.
		GidMappingsEnableSetgroups: privileged,
		Credential:                 &syscall.Credential{Uid: rootfs.UID, Gid: rootfs.UID, NoSetGroups: !privileged},
		AmbientCaps:                []uintptr{unix.CAP_SETPCAP, unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN},
	}
}

// AttrRoot is Attr for a sandbox whose root is made of layers: inside it is
// root, outside first, and with privileged the size users from first on are
// the users inside.
func AttrRoot(uid, gid, size int, privileged bool) *syscall.SysProcAttr {
	attr := Attr(uid, gid, privileged)
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: size}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: size}}
	attr.Credential.Uid, attr.Credential.Gid = 0, 0
	return attr
}

func run(uc *net.UnixConn) int {
	// Rights belong to threads: everything happens on this one.
	runtime.LockOSThread()
	conn := wire.NewConn(uc)
	var s wire.Setup
	fds, err := conn.Receive(&s)
	var spec *rootfs.Spec
	if err == nil {
		spec, err = newSpec(&s, fds)
	}
	if err == nil {
		err = build(&s, spec)
	}
	if err == nil && s.Probe {
		_ = conn.Send(&wire.Status{})
		return 0
	}
	if err == nil && spec.Image != nil {
		err = handOut(conn, spec.Image)
	}
	if err == nil {
		err = become(&s, spec, uc)
	}
	status := &wire.Status{Step: "set up", Err: wire.NewError(err)}
	var step *rootfs.StepError
	if errors.As(err, &step) {
		status.Step, status.Err = step.Step, wire.NewError(step.Err)
	}
	_ = conn.Send(status)
	return 125
}

func step(name string, err error) error {
	if err == nil {
		return nil
	}
	return &rootfs.StepError{Step: name, Err: err}
}

// exe is this program, opened before its file is out of sight.
var exe int

func build(s *wire.Setup, spec *rootfs.Spec) error {
	var err error
	if exe, err = openSelf(); err != nil {
		return step("open this program", err)
	}
	// The memory of this process and its /proc directory are nobody's business.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return step("hide", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return step("make a cgroup namespace", err)
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return step("set the host name", err)
	}
	if err := loopbackUp(); err != nil {
		return step("bring the loopback interface up", err)
	}
	unix.Umask(0o022)
	return rootfs.Build(spec)
}

// openSelf keeps clear of descriptor 3, where the socket goes.
func openSelf() (int, error) {
	fd, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 16)
}

// loopbackUp brings up the only interface there is.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// become gives up every right and runs the helper in this process's place. It
// returns only when that fails.
func become(s *wire.Setup, spec *rootfs.Spec, uc *net.UnixConn) error {
	if err := limits(s); err != nil {
		return step("set limits", err)
	}
	makeDir := func(dir string) error { return os.MkdirAll(dir, 0o755) }
	if s.Root != nil {
		makeDir = rootfs.MakeDir
	}
	if err := makeDir(s.Dir); err != nil {
		return step("make the working directory", err)
	}
	if spec.Image != nil && spec.Image.Later {
		child, err := enterLater()
		if err != nil {
			return step("start what changes the root", err)
		}
		defer unix.Close(child)
	}
	if err := dropRights(s.Root != nil); err != nil {
		return step("give up rights", err)
	}
	// Credentials have changed for the last time, which had cleared it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return step("die with the keeper", err)
	}
	if err := seccomp.Install(seccomp.Options{Nonce: s.Nonce, KeepAffinity: len(s.CPUs) > 0}); err != nil {
		return step("install the filter", err)
	}
	if err := handDown(uc); err != nil {
		return step("keep the socket", err)
	}
	err := syscall.Exec("/proc/self/fd/"+strconv.Itoa(exe), []string{reexec.Name(helper.Role)}, helper.Environ())
	if errors.Is(err, syscall.ENOENT) {
		err = fmt.Errorf("this program is linked to a loader that is not below /usr or /lib; build it with CGO_ENABLED=0: %w", err)
	}
	return step("run the helper", err)
}

// handDown makes the socket the helper's descriptor 3, whatever was there: all
// else is closed by exec.
func handDown(uc *net.UnixConn) error {
	f, err := uc.File()
	if err != nil {
		return err
	}
	if fd := int(f.Fd()); fd != reexec.SocketFD {
		return unix.Dup3(fd, reexec.SocketFD, 0)
	}
	_, err = unix.FcntlInt(reexec.SocketFD, unix.F_SETFD, 0)
	runtime.KeepAlive(f)
	return err
}

func limits(s *wire.Setup) error {
	set := func(resource int, value uint64) error {
		var old unix.Rlimit
		if err := unix.Getrlimit(resource, &old); err != nil {
			return err
		}
		value = min(value, old.Max)
		return unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value})
	}
	const files = 1 << 16
	all := []struct {
		resource int
		value    uint64
		skip     bool
	}{
		{unix.RLIMIT_CORE, 0, false},
		{unix.RLIMIT_NICE, 0, false},
		{unix.RLIMIT_RTPRIO, 0, false},
		{unix.RLIMIT_MEMLOCK, 8 << 20, false},
		{unix.RLIMIT_MSGQUEUE, 800 << 10, false},
		{unix.RLIMIT_NOFILE, files, false},
		{unix.RLIMIT_FSIZE, uint64(s.Disk), false},
		{unix.RLIMIT_NPROC, uint64(s.Pids + Processes), s.Pids == 0},
		{unix.RLIMIT_DATA, uint64(s.DataMax), s.DataMax == 0},
	}
	for _, l := range all {
		if l.skip {
			continue
		}
		if err := set(l.resource, l.value); err != nil {
			return fmt.Errorf("resource %d: %w", l.resource, err)
		}
	}
	return affinity(s.CPUs)
}

func affinity(cpus []int) error {
	if len(cpus) == 0 {
		return nil
	}
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("processors: %w", err)
	}
	return nil
}
