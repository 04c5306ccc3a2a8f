//go:build linux

package probe

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func mountProbes() []Probe {
	return []Probe{
		{Name: "mount", run: mountTmpfs},
		{Name: "mount proc", run: func(f *Facts) (string, bool) { return mountKind(f, "proc", unix.MS_RDONLY) }},
		{Name: "bind mount", run: bindMount},
		{Name: "unmount", run: func(*Facts) (string, bool) { return judge(unix.Unmount("/usr/bin/.", 0), unix.EINVAL) }},
		{Name: "remount /usr writable", Destructive: true, run: remount},
		{Name: "mount_setattr /usr writable", Destructive: true, run: setAttr},
		{Name: "pivot_root", run: func(*Facts) (string, bool) { return judge(unix.PivotRoot("/nowhere/a", "/nowhere/b"), unix.ENOENT) }},
		{Name: "chroot", run: func(*Facts) (string, bool) { return judge(unix.Chroot("/")) }},
		{Name: "fsopen", run: fsopen},
		{Name: "fsmount and fsconfig", run: func(*Facts) (string, bool) {
			_, err := unix.Fsmount(-1, 0, 0)
			return judge(err, unix.EBADF)
		}},
		{Name: "open_tree", run: openTree},
		{Name: "move_mount", run: func(*Facts) (string, bool) {
			return judge(unix.MoveMount(unix.AT_FDCWD, "/nowhere/a", unix.AT_FDCWD, "/nowhere/b", 0), unix.ENOENT)
		}},
		{Name: "writable mounts of the host", run: writableMounts},
		{Name: "mounts with devices", run: deviceMounts},
		{Name: "swapon", run: func(*Facts) (string, bool) {
			_, err := call(unix.SYS_SWAPON, cstr("/nowhere"), 0)
			return judge(err, unix.ENOENT)
		}},
		{Name: "quotactl", run: quotactl},
	}
}

func mountTmpfs(f *Facts) (string, bool) { return mountKind(f, "tmpfs", 0) }

// mountKind mounts over a directory of its own and takes it down again.
func mountKind(f *Facts, kind string, flags uintptr) (string, bool) {
	dir, err := os.MkdirTemp(f.Workspace, ".probe-")
	if err != nil {
		return held("%v", err)
	}
	defer os.Remove(dir)
	if err = unix.Mount(kind, dir, kind, flags, ""); err == nil {
		return got("mounted, and unmounted: %v", unix.Unmount(dir, unix.MNT_DETACH))
	}
	return judge(err)
}

func bindMount(f *Facts) (string, bool) {
	dir, err := os.MkdirTemp(f.Workspace, ".probe-")
	if err != nil {
		return held("%v", err)
	}
	defer os.Remove(dir)
	if err = unix.Mount("/usr", dir, "", unix.MS_BIND, ""); err == nil {
		return got("mounted, and unmounted: %v", unix.Unmount(dir, unix.MNT_DETACH))
	}
	return judge(err)
}

func remount(*Facts) (string, bool) {
	text := ""
	for _, dir := range []string{"/usr", "/", "/opt/probe", "/etc"} {
		err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND, "")
		if err == nil {
			return got("%s", dir)
		}
		text = err.Error()
	}
	return held("%s", text)
}

func setAttr(*Facts) (string, bool) {
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	return judge(unix.MountSetattr(unix.AT_FDCWD, "/usr", 0, &attr), unix.EINVAL)
}

func fsopen(*Facts) (string, bool) {
	fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	return judge(err)
}

func openTree(*Facts) (string, bool) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/usr", unix.OPEN_TREE_CLONE|unix.O_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	return judge(err)
}

// quotactl asks about a file system that is none.
func quotactl(*Facts) (string, bool) {
	const setInfo = 0x800006 << 8
	_, err := call(unix.SYS_QUOTACTL, setInfo, cstr("/dev/null"), 0, 0)
	return judge(err, unix.ENOTBLK, unix.ENODEV, unix.ESRCH, unix.EINVAL)
}

// mountPoint is a line of /proc/self/mountinfo.
type mountPoint struct {
	at, options, kind, super string
}

func mountPoints() (list []mountPoint) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if len(b) >= 6 && len(a) >= 3 {
			list = append(list, mountPoint{b[4], b[5], a[0], a[2]})
		}
	}
	return list
}

func has(options, option string) bool { return strings.Contains(","+options+",", ","+option+",") }

// writableMounts looks for a mount that takes writes and is neither a file
// system in memory nor below the workspace, the home or what is in memory.
func writableMounts(f *Facts) (string, bool) {
	own := []string{f.Workspace, "/home", "/tmp", "/dev", "/proc", "/var/tmp", "/run"}
	for _, m := range mountPoints() {
		if has(m.options, "ro") || has(m.super, "ro") || m.kind == "tmpfs" || m.kind == "mqueue" {
			continue
		}
		if f.Root && m.kind == "overlay" && strings.Contains(m.super, "upperdir=.disk/") {
			continue // what is written goes to memory of its own
		}
		if !below(own, m.at) {
			return got("%s (%s) is writable", m.at, m.kind)
		}
	}
	return held("none but its own")
}

func below(dirs []string, name string) bool {
	for _, dir := range dirs {
		if rel, err := filepath.Rel(dir, name); dir != "" && err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return true
		}
	}
	return false
}

// deviceMounts: a device node on a mount that honours them would be a device.
// The few bound nodes of /dev themselves need it.
func deviceMounts(*Facts) (string, bool) {
	for _, m := range mountPoints() {
		if has(m.options, "nodev") || m.kind == "proc" || m.kind == "sysfs" || strings.HasPrefix(m.at, "/dev/") {
			continue
		}
		return got("%s (%s) honours device nodes", m.at, m.kind)
	}
	return held("none does")
}
