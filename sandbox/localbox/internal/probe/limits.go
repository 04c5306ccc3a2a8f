//go:build linux

package probe

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func limitProbes() []Probe {
	return []Probe{
		{Name: "fork bomb", Destructive: true, run: forkBomb},
		{Name: "thread bomb", Destructive: true, run: threadBomb},
		{Name: "memory of one process", Destructive: true, run: func(f *Facts) (string, bool) { return memory(f, "private", 1) }},
		{Name: "memory of several processes", Destructive: true, run: func(f *Facts) (string, bool) { return memory(f, "private", 6) }},
		{Name: "memory in nameless files", Destructive: true, run: func(f *Facts) (string, bool) { return memory(f, "file", 3) }},
		{Name: "memory in System V segments", Destructive: true, run: func(f *Facts) (string, bool) { return memory(f, "system v", 3) }},
		{Name: "disk filled", Destructive: true, run: fillDisk},
		{Name: "disk filled by one file", Destructive: true, run: fillOne},
		{Name: "inodes used up", Destructive: true, run: fillInodes},
		{Name: "cores beyond the limit", Destructive: true, run: cores},
	}
}

// forkBomb counts how many processes can exist at once.
func forkBomb(f *Facts) (string, bool) {
	if f.Pids == 0 {
		return skip()
	}
	var pids []int
	var err error
	for len(pids) <= 2*f.Pids {
		var pid int
		if pid, err = fork(unix.SYS_CLONE, uintptr(unix.SIGCHLD)); err != nil {
			break
		}
		pids = append(pids, pid)
	}
	for _, pid := range pids {
		end(pid)
	}
	if len(pids) >= f.Pids { // beside this process itself
		return got("%d processes, %d are allowed", len(pids)+1, f.Pids)
	}
	return held("%d processes, then %v", len(pids)+1, err)
}

// threadBomb counts threads, each a process to the limit; each holds still in
// a read that does not return.
func threadBomb(f *Facts) (string, bool) {
	if f.Pids == 0 {
		return skip()
	}
	cmd := exec.Command("/proc/self/exe", child, "threads", itoa(2*f.Pids))
	out, err := cmd.Output() // Go ends a process that cannot have a thread
	if n, _ := strconv.Atoi(string(out)); n >= f.Pids {
		return got("%d threads, %d are allowed", n, f.Pids)
	}
	return held("no %d threads: %v", f.Pids, err)
}

// threads holds n threads at once and prints how many there were.
func threads(arg string) int {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return 2
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 2
	}
	fd := int(r.Fd()) // blocking from here on
	ready := make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread()
			ready <- struct{}{}
			_, _ = unix.Read(fd, make([]byte, 1))
		}()
	}
	for range n {
		<-ready
	}
	entries, _ := os.ReadDir("/proc/self/task")
	w.Close()
	fmt.Print(len(entries))
	return 0
}

// memory has processes hold three times the limit between them, all at once.
func memory(f *Facts, how string, processes int) (string, bool) {
	if f.Memory == 0 {
		return skip()
	}
	each := 3 * f.Memory / int64(processes)
	stay, hold, err := os.Pipe()
	if err != nil {
		return held("%v", err)
	}
	defer stay.Close()
	var outs []*bufio.Reader
	var cmds []*exec.Cmd
	for range processes {
		cmd := exec.Command("/proc/self/exe", child, "touch", how, strconv.FormatInt(each, 10))
		cmd.Stdin = stay
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			break
		}
		cmds, outs = append(cmds, cmd), append(outs, bufio.NewReader(out))
	}
	held := 0
	for _, out := range outs {
		if line, err := out.ReadString('\n'); err == nil && line == "held\n" {
			held++
		}
	}
	alive := 0
	for _, cmd := range cmds {
		if unix.Kill(cmd.Process.Pid, 0) == nil && !zombie(cmd.Process.Pid) {
			alive++
		}
	}
	hold.Close()
	for _, cmd := range cmds {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return fmt.Sprintf("%d of %d processes held %d bytes each, %d at once", held, processes, each, alive),
		int64(min(held, alive))*each > f.Memory
}

func zombie(pid int) bool {
	b, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return true
	}
	for i := len(b) - 1; i > 0; i-- {
		if b[i] == ')' && i+2 < len(b) {
			return b[i+2] == 'Z' || b[i+2] == 'X'
		}
	}
	return true
}

// touch holds memory until its standard input ends.
func touch(args []string) int {
	if len(args) != 2 {
		return 2
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return 2
	}
	for held, piece := 0, pieceOf(args[0], int(size)); held < int(size); held += piece {
		b, err := allocate(args[0], piece)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	}
	fmt.Println("held")
	return untilEOF()
}

// pieceOf is how much is asked for at a time: files are to stay below a limit
// of their size.
func pieceOf(how string, size int) int {
	if how == "file" {
		return min(size, 16<<20)
	}
	return size
}

func allocate(how string, size int) ([]byte, error) {
	const readWrite = unix.PROT_READ | unix.PROT_WRITE
	switch how {
	case "file":
		fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, err
		}
		if err := unix.Ftruncate(fd, int64(size)); err != nil {
			return nil, err
		}
		return unix.Mmap(fd, 0, size, readWrite, unix.MAP_SHARED)
	case "system v":
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, size, 0o600)
		if err != nil {
			return nil, err
		}
		defer func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) }() // it lives while it is attached
		return unix.SysvShmAttach(id, 0, 0)
	}
	return unix.Mmap(-1, 0, size, readWrite, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
}

// fillDisk writes many files, to four times the limit.
func fillDisk(f *Facts) (string, bool) {
	if f.Disk == 0 {
		return skip()
	}
	dir, err := os.MkdirTemp(f.Fill, ".probe-")
	if err != nil {
		return held("%v", err)
	}
	defer os.RemoveAll(dir)
	block := make([]byte, 1<<20)
	var total int64
	for i := 0; total < 4*f.Disk; i++ {
		if err = os.WriteFile(filepath.Join(dir, itoa(i)), block, 0o600); err != nil {
			break
		}
		total += int64(len(block))
	}
	return fmt.Sprintf("%d bytes in %s, %d are allowed; %v", total, f.Fill, f.Disk, err), total > f.Disk
}

// fillOne reserves the space at once. A process that passes a file size limit
// is ended by a signal.
func fillOne(f *Facts) (string, bool) {
	if f.Disk == 0 {
		return skip()
	}
	file, err := os.CreateTemp(f.Fill, ".probe-")
	if err != nil {
		return held("%v", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	return judge(unix.Fallocate(int(file.Fd()), 0, 0, 4*f.Disk))
}

// fillInodes makes files without content: one for each 256 bytes that the disk
// may hold, which no file system in memory has room for within its limit.
func fillInodes(f *Facts) (string, bool) {
	if f.Disk == 0 {
		return skip()
	}
	dir, err := os.MkdirTemp(f.Fill, ".probe-")
	if err != nil {
		return held("%v", err)
	}
	defer os.RemoveAll(dir)
	limit := int(f.Disk / 256)
	for i := range limit {
		var fd int
		if fd, err = unix.Open(filepath.Join(dir, itoa(i)), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600); err != nil {
			return held("%d files, then %v", i, err)
		}
		unix.Close(fd)
	}
	return got("%d files without content", limit)
}

// cores undoes a pinning to few cores and works on all of them for a second.
// A machine that is slow, busy or has one core makes it hold, never get through.
func cores(f *Facts) (string, bool) {
	if f.CPU == 0 {
		return skip()
	}
	var all unix.CPUSet
	for i := range 1024 {
		all.Set(i)
	}
	var pinned error
	for _, pid := range []int{0, os.Getpid()} {
		if err := unix.SchedSetaffinity(pid, &all); err != nil {
			pinned = err
		}
	}
	runtime.GOMAXPROCS(8)
	begin, used := time.Now(), processTime()
	stop := make(chan struct{})
	for range 8 {
		go func() {
			runtime.LockOSThread()
			_ = unix.SchedSetaffinity(0, &all)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
	}
	<-time.After(time.Second)
	close(stop)
	ratio := float64(processTime()-used) / float64(time.Since(begin))
	return fmt.Sprintf("%.2f cores busy, %.2f are allowed; affinity: %v", ratio, f.CPU, pinned), ratio > 1.3*f.CPU
}

func processTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
