package reexec

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// readable, when set, is a copy of this program that every user may run.
var readable *os.File

// Executable is the path from which this program is started again. The kernel's
// link leads to the running program even when its file was moved or replaced.
func Executable() (string, error) {
	if readable != nil {
		return fmt.Sprintf("/proc/self/fd/%d", readable.Fd()), nil
	}
	return "/proc/self/exe", nil
}

// UseReadable makes Start work for processes of another user when this
// program's file may be run by its owner only: they run a copy in memory.
func UseReadable() error {
	info, err := os.Stat("/proc/self/exe")
	if err != nil || info.Mode().Perm()&0o005 == 0o005 {
		return err
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer exe.Close()
	fd, err := unix.MemfdCreate("program", unix.MFD_CLOEXEC|unix.MFD_EXEC|unix.MFD_ALLOW_SEALING)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 every memfd can be run
		fd, err = unix.MemfdCreate("program", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "program")
	if _, err := io.Copy(f, exe); err != nil {
		f.Close()
		return err
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return err
	}
	readable = f
	return nil
}
