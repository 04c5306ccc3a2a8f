//go:build linux

package probe

import (
	"bufio"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func ipcProbes() []Probe {
	return []Probe{
		{Name: "host's System V memory", run: systemV},
		{Name: "host's System V objects listed", run: systemVListed},
		{Name: "host's POSIX message queue", run: messageQueue},
		{Name: "kernel keyring", run: addKey},
		{Name: "keyring of the user", run: userKeyring},
		{Name: "keys requested", run: func(*Facts) (string, bool) {
			_, err := call(unix.SYS_REQUEST_KEY, cstr("user"), cstr("vivarium-probe"), 0, 0)
			return judge(err, unix.ENOKEY)
		}},
	}
}

func systemV(f *Facts) (string, bool) {
	if f.ShmKey == 0 {
		return skip()
	}
	id, err := call(unix.SYS_SHMGET, uintptr(f.ShmKey), 0, 0)
	if err == nil {
		return got("segment %d", id)
	}
	return held("%v", err)
}

func systemVListed(f *Facts) (string, bool) {
	if f.ShmKey == 0 {
		return skip()
	}
	file, err := os.Open("/proc/sysvipc/shm")
	if err != nil {
		return held("%v", err)
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 0 && fields[0] == itoa(f.ShmKey) {
			return got("the segment is listed")
		}
	}
	return held("the segment is not listed")
}

func messageQueue(f *Facts) (string, bool) {
	if f.Queue == "" {
		return skip()
	}
	fd, err := call(unix.SYS_MQ_OPEN, cstr(f.Queue), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0)
	if err == nil {
		unix.Close(int(fd))
	}
	return judge(err)
}

func addKey(*Facts) (string, bool) {
	const processKeyring = -2
	_, err := unix.AddKey("user", "vivarium-probe", []byte("x"), processKeyring) // gone with the process
	return judge(err)
}

func userKeyring(*Facts) (string, bool) {
	const userRing = -4
	_, err := unix.KeyctlGetKeyringID(userRing, false)
	return judge(err, unix.ENOKEY)
}
