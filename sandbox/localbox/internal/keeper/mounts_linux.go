//go:build linux && (amd64 || arm64)

package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reexec"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/rootfs"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/setup"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// openMounts opens the sources with this process's rights where it has more
// than the sandbox's user. Links are followed here, outside, before anything
// inside could have made one.
func (s *isolatedSeat) openMounts(mounts []driver.Mount) error {
	for _, m := range mounts {
		source, err := filepath.EvalSymlinks(m.Source)
		if err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		sm := wire.SetupMount{Source: source, Target: m.Target, Writable: m.Writable, Owned: m.Writable || m.Owned, Passed: s.place.privileged}
		if m.Writable && !sm.Passed {
			if err := checkOwner(source); err != nil {
				return err
			}
		}
		if sm.Passed {
			open := rootfs.Source
			if m.Writable {
				open = rootfs.WritableSource
			}
			fd, err := open(source)
			if err != nil {
				return fmt.Errorf("mount: %w", err)
			}
			s.mounts = append(s.mounts, fd)
		}
		s.setup.Mounts = append(s.setup.Mounts, sm)
	}
	return nil
}

// checkOwner refuses a writable source in which files would get another owner
// than the source has.
func checkOwner(source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return &driver.UnsupportedError{Setting: "Mounts.Writable", Reason: source + " does not belong to this user; only root can map owners"}
	}
	return nil
}

// mapMounts makes the owner of each source that is Owned the sandbox's user
// inside.
func (s *isolatedSeat) mapMounts(b *box) error {
	for i, m := range s.setup.Mounts {
		if !m.Owned || !m.Passed {
			continue
		}
		ns, err := s.ownerNamespace(b, s.mounts[i])
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Source, err)
		}
		err = mapUsers(s.mounts[i], ns, m.Source)
		ns.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// ownerNamespace gives a user namespace in which the owner of an open file is
// the sandbox's user.
func (s *isolatedSeat) ownerNamespace(b *box, fd int) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if s.setup.Root != nil && st.Uid == 0 && st.Gid == 0 {
		return userNamespace(b.pid) // there root is root already, and others are themselves
	}
	return s.newNamespace(b, int(st.Uid), int(st.Gid))
}

// newNamespace makes a user namespace in which uid and gid are the sandbox's
// user, and there is nobody else.
func (s *isolatedSeat) newNamespace(b *box, uid, gid int) (*os.File, error) {
	mine, theirs, err := reexec.Pair()
	if err != nil {
		return nil, err
	}
	defer mine.Close() // ends the process, which waits to be told what to do
	var pid int
	err = b.k.reaper.Start(func() (int, error) {
		return b.k.onMain(func() (int, error) {
			return reexec.Start(setup.Role, theirs, nil, reexec.Environ(), &syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER,
				Pdeathsig:   syscall.SIGKILL,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: s.uid, Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: s.gid, Size: 1}},
			})
		})
	}, func(p int) { pid = p }, func(syscall.WaitStatus, *syscall.Rusage) {})
	theirs.Close()
	if err != nil {
		return nil, forkError(err)
	}
	return userNamespace(pid)
}

func userNamespace(pid int) (*os.File, error) { return os.Open(fmt.Sprintf("/proc/%d/ns/user", pid)) }
