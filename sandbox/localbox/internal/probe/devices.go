//go:build linux

package probe

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func deviceProbes() []Probe {
	return []Probe{
		{Name: "mknod of a character device", run: func(f *Facts) (string, bool) { return mknod(f, unix.S_IFCHR, 1, 3) }},
		{Name: "mknod of a block device", run: func(f *Facts) (string, bool) { return mknod(f, unix.S_IFBLK, 8, 0) }},
		{Name: "device nodes", run: devices},
		{Name: "disks", run: blockDevices},
		{Name: "dangerous devices", run: func(*Facts) (string, bool) {
			return allowed("/dev/mem", "/dev/port", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/uinput",
				"/dev/loop-control", "/dev/mapper/control", "/dev/rtc0", "/dev/hpet", "/dev/userfaultfd", "/dev/snapshot", "/dev/tty0", "/dev/tty1",
				"/dev/console", "/dev/autofs", "/dev/btrfs-control", "/dev/cuse", "/dev/nvram", "/dev/watchdog", "/dev/input/event0")
		}},
	}
}

func mknod(f *Facts, kind uint32, major, minor uint32) (string, bool) {
	name := filepath.Join(f.Workspace, ".probe-node")
	err := unix.Mknod(name, kind|0o600, int(unix.Mkdev(major, minor)))
	if err == nil {
		os.Remove(name)
	}
	return judge(err)
}

// known are the devices that a sandbox may have, by number, under whatever name.
var known = map[[2]uint32]string{
	{1, 3}: "null", {1, 5}: "zero", {1, 7}: "full", {1, 8}: "random", {1, 9}: "urandom", {5, 0}: "tty", {5, 2}: "ptmx",
}

func devices(*Facts) (string, bool) {
	var odd string
	n := 0
	err := filepath.WalkDir("/dev", func(name string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || d.Type()&fs.ModeDevice == 0 || unix.Lstat(name, &st) != nil {
			return nil //nolint:nilerr // what cannot be looked at is passed over
		}
		n++
		number := [2]uint32{unix.Major(st.Rdev), unix.Minor(st.Rdev)}
		_, listed := known[number]
		pts := number[0] >= 136 && number[0] <= 143 && strings.HasPrefix(name, "/dev/pts/")
		if st.Mode&unix.S_IFMT != unix.S_IFCHR || !listed && !pts {
			odd = name
			return fs.SkipAll
		}
		return nil
	})
	if odd != "" {
		return got("%s is there", odd)
	}
	return held("%d devices, all of them harmless (%v)", n, err)
}

func blockDevices(*Facts) (string, bool) {
	names := []string{"/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/loop0", "/dev/dm-0", "/dev/ram0"}
	entries, _ := os.ReadDir("/sys/block")
	for _, e := range entries {
		names = append(names, "/dev/"+e.Name())
	}
	return allowed(names...)
}

// allowed looks for devices that may be opened, and opens none: that alone
// starts a watchdog, or loads a driver.
func allowed(names ...string) (string, bool) {
	for _, name := range names {
		if unix.Access(name, unix.R_OK) == nil {
			return got("%s may be opened", name)
		}
	}
	return held("none may be opened")
}
