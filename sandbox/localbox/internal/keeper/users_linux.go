//go:build linux && (amd64 || arm64)

package keeper

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Each sandbox that root makes has a user of its own outside, so that not even
// a process that got out could touch another's. The range is one that neither
// distributions nor systemd give to anybody (uid-gid.systemd.io: 1879048192 to
// 2147483647 is unused).
const (
	firstUser = 1_900_000_000
	userCount = 65_536

	// A sandbox with an image has as many users as images use, all of them
	// nobody else's either.
	firstRange = firstUser + userCount
	rangeSize  = 65_536
	rangeCount = 3_000
)

// users gives users out. A user is taken by a lock on one byte of a file that
// all processes of the machine share; the kernel takes the lock back when the
// process ends.
type users struct {
	shared string // the directory of that file; "" is sharedUsers

	mu     sync.Mutex
	file   *os.File
	single claims
	ranges claims
}

// claims are the numbers below count of which some are taken.
type claims struct {
	count, offset int // offset is where their locks begin in the file
	next          int
	mine          map[int]bool
}

// sharedUsers is where the file is, for all state directories of the machine.
const sharedUsers = "/run/vivarium"

// claim takes a user. dir is where the file is kept if it cannot be in
// sharedUsers. Keepers of other directories do not see it there, so each begins
// somewhere else in the range.
func (u *users) claim(dir string) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.open(dir); err != nil {
		return 0, err
	}
	n, err := u.take(&u.single)
	return firstUser + n, err
}

// claimRange takes rangeSize users and returns the first.
func (u *users) claimRange(dir string) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.open(dir); err != nil {
		return 0, err
	}
	n, err := u.take(&u.ranges)
	return firstRange + n*rangeSize, err
}

// take takes a number but 0, which is the probe's.
func (u *users) take(c *claims) (int, error) {
	for range c.count - 1 {
		c.next = c.next%(c.count-1) + 1
		if c.mine[c.next] {
			continue
		}
		err := u.lock(unix.F_WRLCK, c.offset+c.next)
		if err == nil {
			c.mine[c.next] = true
			return c.next, nil
		}
		if err != unix.EAGAIN && err != unix.EACCES {
			return 0, os.NewSyscallError("fcntl", err)
		}
	}
	return 0, fmt.Errorf("%w: all %d users for sandboxes are taken", driver.ErrExhausted, c.count)
}

// release gives back what claim or claimRange has returned.
func (u *users) release(uid int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c, n := &u.single, uid-firstUser
	if uid >= firstRange {
		c, n = &u.ranges, (uid-firstRange)/rangeSize
	}
	if c.mine[n] {
		delete(c.mine, n)
		_ = u.lock(unix.F_UNLCK, c.offset+n)
	}
}

func (u *users) lock(kind int16, n int) error {
	return unix.FcntlFlock(u.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: int64(n), Len: 1})
}

func (u *users) open(dir string) error {
	if u.file != nil {
		return nil
	}
	if u.shared == "" {
		u.shared = sharedUsers
	}
	f, err := openUsers(u.shared)
	if err != nil {
		if f, err = openUsers(dir); err != nil {
			return err
		}
		u.single.next, u.ranges.next = rand.IntN(userCount-1), rand.IntN(rangeCount-1)
	}
	u.file = f
	u.single.count, u.single.mine = userCount, make(map[int]bool)
	u.ranges.count, u.ranges.mine = rangeCount, make(map[int]bool)
	u.ranges.offset = 1 << 20
	return nil
}

func openUsers(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, "localbox-users"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}
