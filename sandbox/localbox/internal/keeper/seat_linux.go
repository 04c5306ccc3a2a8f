//go:build linux && (amd64 || arm64)

package keeper

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/cgroup"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reexec"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/rootfs"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/setup"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// isolatedSeat is that of a sandbox in namespaces of its own.
type isolatedSeat struct {
	place    *place
	uid, gid int // outside; with an image the first of size
	size     int
	claimed  bool
	hold     *os.File // keeps the layers of the image
	group    *cgroup.Group
	setup    wire.Setup
	mounts   []int // opened here, as the inside could not
}

// takeIsolated finds a user, groups and limits for the sandbox.
func (b *box) takeIsolated(boot *wire.Boot) error {
	p := &b.k.place
	s := &isolatedSeat{place: p, uid: os.Geteuid(), gid: os.Getegid(), size: 1, group: &cgroup.Group{}}
	b.seat = s
	if err := s.claim(b); err != nil {
		return err
	}
	if b.rec.Info.Dir == "" && b.req.Root != nil {
		b.rec.Info.Dir = b.req.Root.Dir
	}
	if b.rec.Info.Dir == "" {
		b.rec.Info.Dir, boot.MadeDir = rootfs.Workspace, true
	}
	s.setup = wire.Setup{Hostname: "sandbox", Dir: b.rec.Info.Dir, Nonce: nonce()}
	boot.Nonce = s.setup.Nonce
	name := groupName(b.rec.Info.ID)
	if err := b.dir.NoteCgroups(b.rec.Info.ID, p.groups.Candidates(name)); err != nil {
		return err
	}
	if err := s.limit(&b.req.Config, b.rec.Info.Unenforced, name); err != nil {
		return err
	}
	b.rec.Cgroups = s.group.Dirs
	if b.req.Root != nil {
		if err := s.takeImage(b.dir, b.req.Root, boot); err != nil {
			return err
		}
	}
	return s.openMounts(b.req.Config.Mounts)
}

// claim takes users that nobody else has, where that is possible.
func (s *isolatedSeat) claim(b *box) (err error) {
	users := &s.place.users
	switch {
	case !s.place.privileged:
		return nil
	case b.req.Root != nil:
		s.size = rangeSize
		s.uid, err = users.claimRange(b.dir.Path())
	default:
		s.uid, err = users.claim(b.dir.Path())
	}
	s.gid, s.claimed = s.uid, err == nil
	return err
}

// groupName is the name of a sandbox's control groups.
func groupName(id string) string { return "vivarium-" + id }

func nonce() uint64 {
	var n [8]byte
	_, _ = rand.Read(n[:]) // never fails, it says
	return binary.LittleEndian.Uint64(n[:])
}

// limit sets every limit by the best means there is.
func (s *isolatedSeat) limit(cfg *driver.Config, unenforced map[string]string, name string) error {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return os.NewSyscallError("sysinfo", err)
	}
	ram := int64(si.Totalram) * int64(si.Unit)
	memory, disk, pids := cfg.Memory, cfg.Disk, cfg.Pids
	if memory == 0 {
		memory = min(DefaultMemory, ram)
	}
	if disk == 0 {
		disk = min(DefaultDisk, ram/2) // it is in memory
	}
	if pids == 0 {
		pids = DefaultPids
	}
	s.setup.Disk, s.setup.Pids = disk, pids
	l := cgroup.Limits{Memory: memory, Pids: pids + setup.Processes}
	if cfg.CPU > 0 && cfg.CPU < float64(runtime.NumCPU()) {
		l.CPU = cfg.CPU
	}
	s.group = s.place.groups.Create(name, l)
	s.fallBack(cfg, unenforced)
	return nil
}

// fallBack does without the controllers that could not be had, as far as that
// goes, and says how far.
func (s *isolatedSeat) fallBack(cfg *driver.Config, unenforced map[string]string) {
	missing := s.group.Missing
	if why, ok := missing[cgroup.Memory]; ok {
		unenforced["Memory"] = "no memory cgroup: " + why
		if cfg.Memory > 0 {
			s.setup.DataMax = cfg.Memory
			unenforced["Memory"] = "each process may allocate as much, not all together; no memory cgroup: " + why
		}
	}
	if why, ok := missing[cgroup.Pids]; ok && !s.claimed && !s.place.ownCount {
		// RLIMIT_NPROC would count this user's processes outside too.
		s.setup.Pids = 0
		unenforced["Pids"] = "no pids cgroup, and Linux before 5.14 counts all processes of a user together: " + why
	} else if ok && s.size > 1 {
		unenforced["Pids"] = "each user inside may have as many, not all together; no pids cgroup: " + why
	}
	if why, ok := missing[cgroup.CPU]; ok {
		n := int(math.Ceil(cfg.CPU))
		s.setup.CPUs = s.place.processors(n)
		if float64(n) != cfg.CPU {
			unenforced["CPU"] = fmt.Sprintf("held to %d whole processors; no cpu cgroup: %s", n, why)
		}
	}
}

func (s *isolatedSeat) role() (string, []string, *syscall.SysProcAttr) {
	attr := setup.Attr(s.uid, s.gid, s.claimed)
	if s.setup.Root != nil {
		attr = setup.AttrRoot(s.uid, s.gid, s.size, s.claimed)
	}
	return setup.Role, append(reexec.Environ(), "GOMAXPROCS=1", "GOGC=off"), attr
}

func (s *isolatedSeat) setUp(conn *wire.Conn, b *box) error {
	s.group.Add(b.pid)
	if len(s.group.Dirs) < len(b.rec.Cgroups) { // it was not allowed into all
		b.rec.Cgroups = s.group.Dirs
		s.fallBack(&b.req.Config, b.rec.Info.Unenforced)
	}
	if err := s.mapMounts(b); err != nil {
		return err
	}
	if err := s.openImage(b.pid); err != nil {
		return err
	}
	err := conn.Send(&s.setup, s.mounts...)
	wire.CloseFDs(s.mounts)
	s.mounts = nil
	return err
}

func (s *isolatedSeat) oomFile() string { return s.group.OOM }

func (s *isolatedSeat) removeGroups() error { return cgroup.Remove(s.group.Dirs, 5*time.Second) }

func (s *isolatedSeat) leave() {
	wire.CloseFDs(s.mounts)
	s.mounts = nil
	if s.hold != nil {
		s.hold.Close()
		s.hold = nil
	}
	if s.claimed {
		s.place.users.release(s.uid)
		s.claimed = false
	}
}

// newStderr makes a file without a name.
func newStderr() (*os.File, error) {
	fd, err := unix.MemfdCreate("stderr", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), "stderr"), nil
}
