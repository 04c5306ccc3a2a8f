package helper

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mappedUsers is how many users there are inside, from 0 on.
func mappedUsers() uint64 {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return 1
	}
	var inside, outside, count uint64
	if n, err := fmt.Sscan(string(text), &inside, &outside, &count); err != nil || n != 3 || inside != 0 {
		return 1
	}
	return min(count, math.MaxUint32)
}

// startWorkers starts threads that are id to file systems, so that files belong
// to whom commands run as. They live as long as the process.
func (b *box) startWorkers(id *identity) error {
	b.work = make(chan func())
	ready := make(chan error)
	for range maxFileOps {
		go func() {
			runtime.LockOSThread()
			err := becomeToFiles(id)
			ready <- err
			if err != nil {
				return
			}
			for job := range b.work {
				job()
			}
		}()
		if err := <-ready; err != nil {
			return err
		}
	}
	return nil
}

// becomeToFiles changes the calling thread only, which package syscall never does.
func becomeToFiles(id *identity) error {
	groups := append([]uint32{id.gid}, id.groups...)
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
	if errno != 0 {
		return os.NewSyscallError("setgroups", errno)
	}
	_, _ = unix.SetfsgidRetGid(int(id.gid))
	_, _ = unix.SetfsuidRetUid(int(id.uid)) // takes the rights over others' files too
	if gid, _ := unix.SetfsgidRetGid(-1); gid != int(id.gid) {
		return os.NewSyscallError("setfsgid", unix.EPERM)
	}
	if uid, _ := unix.SetfsuidRetUid(-1); uid != int(id.uid) {
		return os.NewSyscallError("setfsuid", unix.EPERM)
	}
	return nil
}

// ownDir gives the working directory that was made for the sandbox to whom
// commands run as.
func (b *box) ownDir(id *identity) error {
	if !b.boot.MadeDir {
		return nil
	}
	fd, err := unix.Open(b.boot.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: b.boot.Dir, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Uid != 0 {
		return os.NewSyscallError("fstat", err)
	}
	err = unix.Fchownat(fd, "", int(id.uid), int(id.gid), unix.AT_EMPTY_PATH)
	return os.NewSyscallError("fchownat", err)
}
