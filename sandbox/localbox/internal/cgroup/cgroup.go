//go:build linux

// Package cgroup puts a sandbox into control groups of its own where this
// process may make some: version 2 where its controllers can be had (root, or
// delegated to a user by systemd), version 1 for the controllers that are
// there. What cannot be had is reported, not ignored.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a group. A zero value is no limit.
type Limits struct {
	Memory int64   // bytes
	Pids   int     // processes and threads
	CPU    float64 // cores
}

// Controllers, by the kernel's names.
const (
	Memory = "memory"
	Pids   = "pids"
	CPU    = "cpu"
)

var controllers = []string{Memory, Pids, CPU}

// Hierarchy is where groups can be made on this machine.
type Hierarchy struct {
	v1 map[string]string // controller to the directory below which groups are made
	v2 []string          // directories to try, from this process's own up
}

// Find reads where this process is.
func Find() (*Hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return parse(string(mounts), string(own)), nil
}

// parse reads proc_pid_mountinfo(5) and /proc/[pid]/cgroup (cgroups(7)).
func parse(mountinfo, own string) *Hierarchy {
	h := &Hierarchy{v1: make(map[string]string)}
	paths := make(map[string]string) // controller, or "" for version 2, to this process's group
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			paths[c] = f[2]
		}
	}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		root, point := unescape(f[3]), unescape(f[4])
		switch g[0] {
		case "cgroup":
			for _, c := range controllers {
				if path, ok := paths[c]; ok && slices.Contains(strings.Split(g[2], ","), c) {
					h.v1[c] = below(point, root, path)
				}
			}
		case "cgroup2":
			if path, ok := paths[""]; ok && h.v2 == nil {
				h.v2 = upwards(point, below(point, root, path))
			}
		}
	}
	return h
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// below is where the group path is seen, when a mount shows root at point.
func below(point, root, path string) string {
	rel, err := filepath.Rel(root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return point
	}
	dir := filepath.Join(point, rel)
	if _, err := os.Stat(dir); err != nil {
		return point
	}
	return dir
}

func upwards(top, dir string) (dirs []string) {
	for {
		dirs = append(dirs, dir)
		if dir == top || len(dir) <= len(top) {
			return dirs
		}
		dir = filepath.Dir(dir)
	}
}

// Group is a group in one or more hierarchies.
type Group struct {
	// Dirs are its directories; Remove with the same directories removes what
	// another process made.
	Dirs []string
	// OOM is the file that counts kills for lack of memory, "" where there is none.
	OOM string
	// Missing says of each controller that could not be had why.
	Missing map[string]string

	holds map[string][]string // directory to its controllers
}

// Candidates are the directories that Create may make for a group called name:
// whoever notes them before knows where to look for what was made.
func (h *Hierarchy) Candidates(name string) (dirs []string) {
	for _, parent := range h.v2 {
		dirs = append(dirs, filepath.Join(parent, name))
	}
	for _, c := range controllers {
		if parent, ok := h.v1[c]; ok && !slices.Contains(dirs, filepath.Join(parent, name)) {
			dirs = append(dirs, filepath.Join(parent, name))
		}
	}
	return dirs
}

// Create makes a group called name with these limits. It never fails: what
// cannot be had is in Missing.
func (h *Hierarchy) Create(name string, l Limits) *Group {
	g := &Group{Missing: make(map[string]string), holds: make(map[string][]string)}
	want := l.wanted()
	if dir, have := h.createV2(name, want); dir != "" {
		g.Dirs = append(g.Dirs, dir)
		g.holds[dir] = have
		for _, c := range have {
			g.apply(c, setV2(dir, c, l))
		}
		if slices.Contains(have, Memory) {
			g.OOM = filepath.Join(dir, "memory.events")
		}
		want = slices.DeleteFunc(want, func(c string) bool { return slices.Contains(have, c) })
	}
	for _, c := range want {
		g.apply(c, h.createV1(g, name, c, l))
	}
	return g
}

func (g *Group) apply(controller string, err error) {
	if err != nil {
		g.Missing[controller] = err.Error()
	}
}

func (l Limits) wanted() (want []string) {
	if l.Memory > 0 {
		want = append(want, Memory)
	}
	if l.Pids > 0 {
		want = append(want, Pids)
	}
	if l.CPU > 0 {
		want = append(want, CPU)
	}
	return want
}

var errNone = errors.New("this user has no cgroup controller for it")

func (h *Hierarchy) createV1(g *Group, name, c string, l Limits) error {
	parent, ok := h.v1[c]
	if !ok {
		return errNone
	}
	dir := filepath.Join(parent, name)
	if slices.Contains(g.Dirs, dir) { // controllers mounted together
		g.holds[dir] = append(g.holds[dir], c)
		return setV1(dir, c, l)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := setV1(dir, c, l); err != nil {
		return errors.Join(err, unix.Rmdir(dir))
	}
	g.Dirs = append(g.Dirs, dir)
	g.holds[dir] = append(g.holds[dir], c)
	if c == Memory {
		g.OOM = filepath.Join(dir, "memory.oom_control")
	}
	return nil
}

// createV2 makes the group where most of the controllers can be had: a group
// that holds processes cannot hand controllers down, so it may be an ancestor
// of this process's own.
func (h *Hierarchy) createV2(name string, want []string) (dir string, have []string) {
	if len(want) == 0 {
		return "", nil
	}
	for _, parent := range h.v2 {
		enableV2(parent, want)
		got := intersect(readWords(filepath.Join(parent, "cgroup.subtree_control")), want)
		if len(got) <= len(have) {
			continue
		}
		// Moving a process needs the right to write to the common ancestor too.
		if unix.Access(filepath.Join(parent, "cgroup.procs"), unix.W_OK) != nil {
			continue
		}
		d := filepath.Join(parent, name)
		if os.Mkdir(d, 0o755) != nil {
			continue
		}
		if dir != "" {
			_ = unix.Rmdir(dir)
		}
		dir, have = d, got
	}
	return dir, have
}

func enableV2(parent string, want []string) {
	control := filepath.Join(parent, "cgroup.subtree_control")
	on := readWords(control)
	for _, c := range intersect(readWords(filepath.Join(parent, "cgroup.controllers")), want) {
		if !slices.Contains(on, c) {
			_ = write(control, "+"+c)
		}
	}
}

func intersect(a, b []string) (both []string) {
	for _, s := range a {
		if slices.Contains(b, s) {
			both = append(both, s)
		}
	}
	return both
}

func readWords(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(text))
}

// write writes an existing file in one call, as cgroup files want it.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// period is over how long the use of processors is measured, in microseconds.
const period = 100_000

func quota(cores float64) string {
	return strconv.FormatInt(max(int64(cores*period), 1000), 10)
}

func setV2(dir, c string, l Limits) error {
	switch c {
	case Memory:
		if err := write(dir+"/memory.max", strconv.FormatInt(l.Memory, 10)); err != nil {
			return err
		}
		return optional(write(dir+"/memory.swap.max", "0"))
	case Pids:
		return write(dir+"/pids.max", strconv.Itoa(l.Pids))
	default:
		return write(dir+"/cpu.max", fmt.Sprintf("%s %d", quota(l.CPU), period))
	}
}

func setV1(dir, c string, l Limits) error {
	switch c {
	case Memory:
		bytes := strconv.FormatInt(l.Memory, 10)
		if err := write(dir+"/memory.limit_in_bytes", bytes); err != nil {
			return err
		}
		return optional(write(dir+"/memory.memsw.limit_in_bytes", bytes))
	case Pids:
		return write(dir+"/pids.max", strconv.Itoa(l.Pids))
	default:
		if err := write(dir+"/cpu.cfs_period_us", strconv.Itoa(period)); err != nil {
			return err
		}
		return write(dir+"/cpu.cfs_quota_us", quota(l.CPU))
	}
}

// optional forgives a file that this kernel does not have.
func optional(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Add moves a process, with all its threads, into the group. Where that is not
// allowed the directory is removed, and its controllers become Missing.
func (g *Group) Add(pid int) {
	g.Dirs = slices.DeleteFunc(g.Dirs, func(dir string) bool {
		err := write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid))
		if err == nil {
			return false
		}
		for _, c := range g.holds[dir] {
			g.apply(c, err)
			if c == Memory {
				g.OOM = ""
			}
		}
		_ = unix.Rmdir(dir)
		return true
	})
}

// Remove kills what is left in the directories of a group and removes them. A
// directory that is not there is no error.
func Remove(dirs []string, patience time.Duration) error {
	var errs []error
	deadline := time.Now().Add(patience)
	for _, dir := range dirs {
		errs = append(errs, remove(dir, deadline))
	}
	return errors.Join(errs...)
}

func remove(dir string, deadline time.Time) error {
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) || isMissing(dir) {
			return nil // a file system that is read-only says that first
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		kill(dir)
		time.Sleep(pause) // the kernel tells nobody when the last one is gone
	}
}

func isMissing(dir string) bool {
	_, err := os.Lstat(dir)
	return errors.Is(err, os.ErrNotExist)
}

func kill(dir string) {
	if write(filepath.Join(dir, "cgroup.kill"), "1") == nil {
		return
	}
	for _, word := range readWords(filepath.Join(dir, "cgroup.procs")) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
