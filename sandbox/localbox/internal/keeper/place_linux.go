//go:build linux && (amd64 || arm64)

package keeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/cgroup"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reexec"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/setup"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// place is what is known of this machine.
type place struct {
	privileged bool // root outside of any user namespace, with what it takes to map users
	ownCount   bool // processes are counted for each user namespace by itself (Linux 5.14)
	groups     *cgroup.Hierarchy
	users      users
	skeleton   skeleton
	cpus       []int
	nextCPU    int
	cpuMu      sync.Mutex
}

func (p *place) init() {
	p.privileged = isPrivileged()
	p.ownCount = kernelAtLeast(5, 14)
	var err error
	if p.groups, err = cgroup.Find(); err != nil {
		p.groups = &cgroup.Hierarchy{}
	}
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) == nil {
		for i := 0; len(p.cpus) < set.Count(); i++ {
			if set.IsSet(i) {
				p.cpus = append(p.cpus, i)
			}
		}
		p.nextCPU = rand.IntN(max(len(p.cpus), 1))
	}
	if p.privileged {
		_ = reexec.UseReadable()
	}
}

// leave removes what was made for all sandboxes.
func (p *place) leave() { p.skeleton.close() }

// processors picks n of the processors this process may use, others each time.
func (p *place) processors(n int) (picked []int) {
	p.cpuMu.Lock()
	defer p.cpuMu.Unlock()
	for range min(n, len(p.cpus)) {
		picked = append(picked, p.cpus[p.nextCPU%len(p.cpus)])
		p.nextCPU++
	}
	return picked
}

// isPrivileged reports whether this process can map a sandbox to any user of
// the machine. User 0 of a user namespace cannot.
func isPrivileged() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || os.Geteuid() != 0 {
		return false
	}
	if f := strings.Fields(string(text)); len(f) != 3 || f[0] != "0" || f[1] != "0" || f[2] != "4294967295" {
		return false
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return false
	}
	const need = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_SYS_ADMIN
	return data[0].Effective&need == need
}

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	return err == nil && (a > major || a == major && b >= minor)
}

// probe tries what every sandbox needs, and says what is missing and what helps.
func (k *keeper) probe(ctx context.Context) error {
	err := k.tryIsolation(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %s (%w)", driver.ErrNoIsolation, lookAround(&k.place).remedy(err), err)
}

// errRootUser: a fork bomb, or anything that gets out, must not be root's.
var errRootUser = errors.New("this is root without the right to give a sandbox another user")

func (k *keeper) tryIsolation(ctx context.Context) error {
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 && !k.place.privileged && identityMapped() {
		return errRootUser
	}
	if k.place.privileged {
		uid, gid = firstUser, firstUser
	}
	mine, theirs, err := reexec.Pair()
	if err != nil {
		return err
	}
	defer mine.Close()
	exited := make(chan struct{})
	var pid int
	err = k.reaper.Start(func() (int, error) {
		return k.onMain(func() (int, error) {
			return reexec.Start(setup.Role, theirs, nil, append(reexec.Environ(), "GOMAXPROCS=1"),
				setup.Attr(uid, gid, k.place.privileged))
		})
	}, func(p int) { pid = p }, func(syscall.WaitStatus, *syscall.Rusage) { close(exited) })
	theirs.Close()
	if err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	defer func() { <-exited }()
	kill := func() { _ = k.reaper.Signal(pid, syscall.SIGKILL) }
	defer kill()
	defer context.AfterFunc(ctx, kill)()
	return askProbe(mine)
}

func askProbe(sock *os.File) error {
	fd, err := unix.FcntlInt(sock.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	uc, err := reexec.Conn(fd)
	if err != nil {
		return err
	}
	conn := wire.NewConn(uc)
	defer conn.Close()
	if err := conn.Send(&wire.Setup{Probe: true, Hostname: "probe", Disk: minDisk}); err != nil {
		return err
	}
	var st wire.Status
	if _, err := conn.Receive(&st); err != nil {
		return fmt.Errorf("the probe ended: %w", err)
	}
	if st.Err != nil {
		return &stepError{st.Step, st.Err}
	}
	return nil
}

func identityMapped() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(text))
	return err == nil && len(f) == 3 && f[0] == "0" && f[1] == "0"
}
