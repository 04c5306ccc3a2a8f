//go:build linux

package probe

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func processProbes() []Probe {
	return []Probe{
		{Name: "leaked file descriptors", run: leakedFiles},
		{Name: "own environment", run: ownEnvironment},
		{Name: "environment of other processes", run: otherEnvironment},
		{Name: "host processes visible", run: hostProcess},
		{Name: "host process signalled", run: hostSignal},
		{Name: "host process by pidfd", run: hostPidfd},
		{Name: "host process traced", run: hostTrace},
		{Name: "host process through cwd and root", run: magicLinks},
		{Name: "priority raised", run: priority},
		{Name: "real-time scheduling", run: realTime},
		{Name: "real-time disk priority", run: diskPriority},
		{Name: "capabilities", run: capabilities},
		{Name: "new privileges", run: newPrivileges},
		{Name: "limits raised", run: raiseLimits},
	}
}

// openFiles lists what the process has open beyond its three streams and what
// Go's own start opened.
func openFiles() []string {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var list []string
	for _, name := range names {
		fd, _ := strconv.Atoi(name)
		to, err := os.Readlink("/proc/self/fd/" + name)
		own := strings.HasPrefix(to, "anon_inode:[event") || strings.HasSuffix(to, "/cpu.max") || strings.HasPrefix(filepath.Base(to), "cpu.cfs_")
		if err != nil || fd <= 2 || fd == int(dir.Fd()) || own {
			continue
		}
		list = append(list, name+" is "+to)
	}
	return list
}

func leakedFiles(*Facts) (string, bool) {
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			found = append(found, fmt.Sprintf("%d is a directory", fd))
		}
	}
	if len(found) > 0 {
		return got("%s", strings.Join(found, ", "))
	}
	return held("none is open")
}

func ownEnvironment(f *Facts) (string, bool) {
	if f.EnvName == "" {
		return skip()
	}
	if _, ok := os.LookupEnv(f.EnvName); ok {
		return got("%s is set", f.EnvName)
	}
	return held("%d variables, none of the host's", len(os.Environ()))
}

// processes gives the pids that /proc shows.
func processes() (pids []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func procFile(pid int, name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }

func otherEnvironment(f *Facts) (string, bool) {
	if f.EnvName == "" {
		return skip()
	}
	n := 0
	for _, pid := range processes() {
		b, err := os.ReadFile(procFile(pid, "environ"))
		if err != nil || pid == os.Getpid() {
			continue
		}
		n++
		if bytes.Contains(b, []byte(f.EnvName+"=")) {
			return got("process %d has %s", pid, f.EnvName)
		}
	}
	return held("%d environments are readable, none is the host's", n)
}

// hostPid says where /proc shows the host's process. The inside's own command
// lines hold the facts, and so the marker too.
func hostPid(f *Facts) (pid int, ok bool) {
	for _, pid := range processes() {
		b, err := os.ReadFile(procFile(pid, "cmdline"))
		args := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
		if err == nil && args[len(args)-1] == f.Marker {
			return pid, true
		}
	}
	return 0, false
}

func hostProcess(f *Facts) (string, bool) {
	if f.Marker == "" {
		return skip()
	}
	if pid, ok := hostPid(f); ok {
		return got("it is process %d here", pid)
	}
	return held("%d processes are visible, none is the host's", len(processes()))
}

// stranger reports whether a pid is no process of the sandbox's own: its number
// may be in use on both sides.
func stranger(f *Facts) bool {
	pid, visible := hostPid(f)
	if visible {
		return pid == f.Pid
	}
	_, err := os.Stat(fmt.Sprintf("/proc/%d", f.Pid))
	return err != nil
}

func hostSignal(f *Facts) (string, bool) {
	if f.Pid == 0 {
		return skip()
	}
	if err := unix.Kill(f.Pid, 0); err != nil || !stranger(f) {
		return held("%v, or a process of the inside", err)
	}
	return got("process %d takes signals", f.Pid)
}

func hostPidfd(f *Facts) (string, bool) {
	if f.Pid == 0 {
		return skip()
	}
	fd, err := unix.PidfdOpen(f.Pid, 0)
	if err != nil || !stranger(f) {
		return held("%v, or a process of the inside", err)
	}
	defer unix.Close(fd)
	return judge(unix.PidfdSendSignal(fd, 0, nil, 0))
}

func hostTrace(f *Facts) (string, bool) {
	if f.Pid == 0 {
		return skip()
	}
	const seize = 0x4206
	if _, err := call(unix.SYS_PTRACE, seize, uintptr(f.Pid), 0, 0); err != nil || !stranger(f) {
		return held("%v, or a process of the inside", err)
	}
	return got("process %d is traced", f.Pid) // until this process ends
}

func magicLinks(f *Facts) (string, bool) {
	if f.SecretFile == "" {
		return skip()
	}
	up := strings.Repeat("../", 32)
	for _, pid := range processes() {
		for _, link := range []string{"root", "cwd", "cwd/" + up, "root/" + up} {
			if _, err := os.Stat(procFile(pid, link) + "/" + f.SecretFile); err == nil {
				return got("by /proc/%d/%s", pid, link)
			}
		}
	}
	return held("none of them leads there")
}

func priority(*Facts) (string, bool) {
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 - nice
	if err != nil {
		return held("%v", err)
	}
	return judge(unix.Setpriority(unix.PRIO_PROCESS, 0, 20-now-1))
}

func realTime(*Facts) (string, bool) {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	return judge(unix.SchedSetAttr(0, &attr, 0))
}

func diskPriority(*Facts) (string, bool) {
	const process, realTimeClass = 1, 1 << 13
	_, err := call(unix.SYS_IOPRIO_SET, process, 0, realTimeClass)
	return judge(err)
}

// status reads a field of /proc/self/status.
func status(field string) string {
	b, _ := os.ReadFile("/proc/thread-self/status")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && name == field {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func capabilities(f *Facts) (string, bool) {
	for set, may := range map[string]uint64{"CapInh": 0, "CapPrm": f.Rights, "CapEff": f.Rights, "CapBnd": f.Rights, "CapAmb": 0} {
		v := status(set)
		if n, err := strconv.ParseUint(v, 16, 64); err != nil || n&^may != 0 {
			return got("%s is %s", set, v)
		}
	}
	return held("no set has more than it may: %x", f.Rights)
}

func newPrivileges(*Facts) (string, bool) {
	if status("NoNewPrivs") == "1" {
		return held("setuid programs and file capabilities have no effect")
	}
	return got("a setuid program would be root")
}

func raiseLimits(*Facts) (string, bool) {
	var text string
	for _, which := range []int{unix.RLIMIT_NPROC, unix.RLIMIT_NOFILE, unix.RLIMIT_CORE, unix.RLIMIT_MEMLOCK} {
		var lim unix.Rlimit
		if err := unix.Prlimit(0, which, nil, &lim); err != nil {
			return held("%v", err)
		}
		if lim.Max == unix.RLIM_INFINITY {
			continue
		}
		lim.Max++
		if err := unix.Prlimit(0, which, &lim, nil); err == nil {
			return got("limit %d was raised", which)
		} else {
			text = err.Error()
		}
	}
	return held("%s", text)
}
