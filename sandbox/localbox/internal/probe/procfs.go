//go:build linux

package probe

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func procfsProbes() []Probe {
	write := func(names ...string) func(*Facts) (string, bool) {
		return func(*Facts) (string, bool) { return opens(os.O_WRONLY, names...) }
	}
	read := func(names ...string) func(*Facts) (string, bool) {
		return func(*Facts) (string, bool) { return reads(names...) }
	}
	return []Probe{
		{Name: "sysrq", run: write("/proc/sysrq-trigger")},
		{Name: "core_pattern", run: write("/proc/sys/kernel/core_pattern")},
		{Name: "modprobe path", run: write("/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug")},
		{Name: "uevent_helper", run: write("/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled")},
		{Name: "binfmt_misc", run: write("/proc/sys/fs/binfmt_misc/register", "/proc/sys/fs/binfmt_misc/status")},
		{Name: "any setting of /proc/sys", run: sysctls},
		{Name: "any file of /proc", run: procWrites},
		{Name: "any file of /sys", run: sysWrites},
		{Name: "kernel memory", run: read("/proc/kcore", "/dev/mem", "/dev/kmem")},
		{Name: "keys listed", run: read("/proc/keys", "/proc/key-users")},
		{Name: "timers listed", run: read("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/kernel/debug/sched/debug")},
		{Name: "kernel addresses", run: kernelAddresses},
		{Name: "kernel log", run: kernelLog},
		{Name: "kernel log device", run: func(*Facts) (string, bool) { return opens(os.O_RDONLY, "/dev/kmsg", "/proc/kmsg") }},
		{Name: "page tables of the machine", run: read("/proc/kpageflags", "/proc/kpagecount", "/proc/kpagecgroup")},
		{Name: "cgroup made or joined", run: cgroups},
		{Name: "cgroup release agent", run: releaseAgent},
		{Name: "kernel tracing", run: read("/sys/kernel/tracing/trace", "/sys/kernel/debug/tracing/trace", "/sys/kernel/security/lockdown")},
		{Name: "firmware and disks listed", run: read("/proc/scsi/scsi", "/sys/firmware/dmi/tables/DMI", "/sys/class/dmi/id/product_uuid")},
	}
}

// writable walks a tree for a file that opens for writing. Nothing is written.
func writable(root string, skip func(name string) bool) (string, bool) {
	var hit string
	seen := 0
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // what cannot be looked at is passed over
		case skip(name) && d.IsDir():
			return fs.SkipDir
		case skip(name) || !d.Type().IsRegular():
			return nil
		}
		seen++
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o222 == 0 {
			return nil //nolint:nilerr // likewise
		}
		if _, through := opens(os.O_WRONLY, name); through {
			hit = name
			return fs.SkipAll
		}
		return nil
	})
	if hit != "" {
		return got("%s is open for writing", hit)
	}
	return held("%d files, none of them (%v)", seen, err)
}

func sysctls(*Facts) (string, bool) {
	return writable("/proc/sys", func(string) bool { return false })
}

// procWrites leaves out processes: their files are their user's own.
func procWrites(*Facts) (string, bool) {
	return writable("/proc", func(name string) bool {
		first, _, _ := strings.Cut(strings.TrimPrefix(name, "/proc/"), "/")
		own := first == "self" || first == "thread-self" || first == "sys"
		return own || strings.Trim(first, "0123456789") == "" && name != "/proc"
	})
}

func sysWrites(*Facts) (string, bool) {
	return writable("/sys", func(name string) bool { return false })
}

func kernelAddresses(*Facts) (string, bool) {
	for _, name := range []string{"/proc/kallsyms", "/proc/iomem", "/proc/modules"} {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		defer f.Close()
		s := bufio.NewScanner(f)
		for range 100 {
			if !s.Scan() {
				break
			}
			at, _, _ := strings.Cut(strings.TrimSpace(s.Text()), " ")
			if name == "/proc/modules" {
				at = s.Text()[strings.LastIndexByte(s.Text(), ' ')+1:]
				at = strings.TrimPrefix(at, "0x")
			}
			if hex := strings.Trim(at, "0123456789abcdef-"); hex == "" && strings.Trim(at, "0-") != "" {
				return got("%s: %s", name, s.Text())
			}
		}
	}
	return held("all are zero")
}

func kernelLog(*Facts) (string, bool) {
	const readAll = 3
	_, err := unix.Klogctl(readAll, make([]byte, 64))
	return judge(err)
}

// cgroups tries to make a group in, and to be moved within, every hierarchy
// that is in sight.
func cgroups(*Facts) (string, bool) {
	text := "no hierarchy is mounted"
	for _, m := range mountPoints() {
		if m.kind != "cgroup" && m.kind != "cgroup2" {
			continue
		}
		dir := filepath.Join(m.at, "vivarium-probe")
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			os.Remove(dir)
			return got("%s was made", dir)
		}
		if detail, through := opens(os.O_WRONLY, filepath.Join(m.at, "cgroup.procs"), filepath.Join(m.at, "tasks"), filepath.Join(m.at, "memory.max")); through {
			return detail, through
		}
		text = err.Error()
	}
	return held("%s", text)
}

func releaseAgent(*Facts) (string, bool) {
	names := []string{"/sys/fs/cgroup/release_agent"}
	for _, m := range mountPoints() {
		if m.kind == "cgroup" {
			names = append(names, filepath.Join(m.at, "release_agent"))
		}
	}
	return opens(os.O_WRONLY, names...)
}
