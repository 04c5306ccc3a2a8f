//go:build linux

package probe

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

func terminalProbes() []Probe {
	return []Probe{
		{Name: "input pushed into a terminal", run: terminal},
		{Name: "console paste", run: consolePaste},
		{Name: "terminals of others", run: otherTerminals},
		{Name: "terminal of the host", run: func(*Facts) (string, bool) { return opens(os.O_RDWR, "/dev/tty") }},
	}
}

// openTerminal makes a terminal and gives both of its ends.
func openTerminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

// terminal pushes input into the terminal that a child has for its own.
func terminal(*Facts) (string, bool) {
	master, slave, err := openTerminal()
	if err != nil {
		return held("%v", err)
	}
	defer master.Close()
	defer slave.Close()
	cmd := exec.Command("/proc/self/exe", child, "terminal")
	cmd.Stdin = slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return held("%s", out)
	}
	return judge(err)
}

func pushInput() error {
	b := []byte("x")
	_, err := call(unix.SYS_IOCTL, 0, unix.TIOCSTI, ptr(&b[0]))
	if err == nil {
		return nil
	}
	// A filter that compares all 64 bits of the request is passed by one whose
	// upper half, which the kernel does not look at, is different.
	_, err = call(unix.SYS_IOCTL, 0, 1<<32|unix.TIOCSTI, ptr(&b[0]))
	return err
}

// consolePaste asks for what only a console has: to paste its selection. Of a
// terminal that is none, the kernel says so, once the call has reached it.
func consolePaste(*Facts) (string, bool) {
	master, slave, err := openTerminal()
	if err != nil {
		return held("%v", err)
	}
	defer master.Close()
	defer slave.Close()
	paste := []byte{3, 0}
	const linux = 0x541C // TIOCLINUX
	_, err = call(unix.SYS_IOCTL, slave.Fd(), linux, ptr(&paste[0]))
	return judge(err, unix.ENOTTY, unix.EINVAL)
}

// otherTerminals: the private /dev/pts begins empty.
func otherTerminals(*Facts) (string, bool) {
	entries, err := os.ReadDir("/dev/pts")
	if err != nil {
		return held("%v", err)
	}
	own, _ := os.Readlink("/proc/self/fd/0")
	for _, e := range entries {
		name := "/dev/pts/" + e.Name()
		if e.Name() != "ptmx" && name != own {
			return got("%s is there", name)
		}
	}
	return held("none is there")
}
