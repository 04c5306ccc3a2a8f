//go:build unix

package helper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/lineage"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// A program that was just written can be busy for as long as a process that is
// being started somewhere else has its file open: between its fork and its exec.
const (
	busyTries = 20
	busyPause = 5 * time.Millisecond
)

// killPatience is how long Kill waits for killed processes to be gone.
const killPatience = 10 * time.Second

// command is a running command.
type command struct {
	pid  int // also its process group and session
	ooms uint64
}

// start starts a command. The reply and, later, its exit are queued under the
// reaper's lock, so that the one never overtakes the other.
func (s *session) start(req *wire.Request, fds []int) {
	attr, spare, err := s.box.prepare(req, fds)
	if err == nil {
		err = s.fork(req, attr, spare)
	}
	wire.CloseFDs(fds)
	if err != nil {
		if spare >= 0 {
			unix.Close(spare)
		}
		s.push(wire.Reply{ID: req.ID, Err: wire.NewError(err)})
	}
}

// launch is a command made ready to fork.
type launch struct {
	path  string
	attr  syscall.ProcAttr
	close []int // the child's own descriptors, closed here after the fork
}

func (b *box) prepare(req *wire.Request, fds []int) (l *launch, master int, err error) {
	if len(req.Args) == 0 || req.Args[0] == "" {
		return nil, -1, fmt.Errorf("no command: %w", driver.ErrInvalid)
	}
	l = &launch{}
	l.attr.Env = mergeEnv(b.environ(), req.Env)
	l.attr.Dir = req.Dir
	if l.attr.Dir == "" {
		l.attr.Dir = b.boot.Dir
	}
	info, err := os.Stat(l.attr.Dir)
	if err != nil {
		return nil, -1, err
	}
	if !info.IsDir() {
		return nil, -1, &fs.PathError{Op: "chdir", Path: l.attr.Dir, Err: syscall.ENOTDIR}
	}
	if l.path, err = lookPath(req.Args[0], l.attr.Env, l.attr.Dir); err != nil {
		return nil, -1, err
	}
	l.attr.Sys = &syscall.SysProcAttr{Setsid: true}
	if b.work != nil {
		l.attr.Sys.Credential = b.user.credential()
	}
	if req.TTY {
		return b.terminal(l, req)
	}
	return l, -1, l.streams(req, fds)
}

// streams lays the descriptors out that came with the request: one for each of
// Stdin, Stdout and Stderr that was asked for.
func (l *launch) streams(req *wire.Request, fds []int) error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open /dev/null", err)
	}
	l.close = append(l.close, null)
	next := func(asked bool) (uintptr, error) {
		if !asked {
			return uintptr(null), nil
		}
		if len(fds) == 0 {
			return 0, fmt.Errorf("a stream is missing: %w", driver.ErrInvalid)
		}
		fd := fds[0]
		fds = fds[1:]
		return uintptr(fd), nil
	}
	for _, asked := range []bool{req.Stdin, req.Stdout, req.Stderr && !req.Merge} {
		fd, err := next(asked)
		if err != nil {
			wire.CloseFDs(l.close)
			return err
		}
		l.attr.Files = append(l.attr.Files, fd)
	}
	if req.Merge {
		l.attr.Files[2] = l.attr.Files[1]
	}
	return nil
}

func (b *box) terminal(l *launch, req *wire.Request) (*launch, int, error) {
	master, slave, err := openTerminal(b.boot.Plain, req.Rows, req.Columns)
	if err != nil {
		return nil, -1, err
	}
	l.close = append(l.close, slave)
	if b.work != nil {
		if err := os.NewSyscallError("fchown", unix.Fchown(slave, int(b.user.uid), -1)); err != nil {
			wire.CloseFDs([]int{master, slave})
			return nil, -1, err
		}
	}
	l.attr.Files = []uintptr{uintptr(slave), uintptr(slave), uintptr(slave)}
	l.attr.Sys.Setctty = true
	return l, master, nil
}

// fork starts the command and tells the client, with the terminal if it has one.
func (s *session) fork(req *wire.Request, l *launch, master int) error {
	defer wire.CloseFDs(l.close)
	b := s.box
	cmd := &command{ooms: b.oomKills()}
	var seq uint64
	start := func() error {
		return b.reaper.Start(func() (int, error) {
			var err error
			if seq, err = b.nextMark(); err != nil {
				return 0, err
			}
			pid, err := b.forker.run(func() (int, error) { return syscall.ForkExec(l.path, req.Args, &l.attr) })
			return pid, startError(l, err)
		}, func(pid int) {
			cmd.pid = pid
			b.activity.add(1)
			s.remember(req.Proc, cmd)
			reply := wire.Reply{ID: req.ID, Proc: seq}
			if master >= 0 {
				s.push(reply, master)
			} else {
				s.push(reply)
			}
		}, func(ws syscall.WaitStatus, ru *syscall.Rusage) {
			b.activity.add(-1)
			s.forget(req.Proc)
			exit := exitOf(ws, ru)
			exit.OOM = b.oomKills() > cmd.ooms
			s.push(wire.Reply{Proc: req.Proc, Exit: wire.Exit{Exit: exit}})
		})
	}
	err := start()
	for try := 0; try < busyTries && errors.Is(err, syscall.ETXTBSY); try++ {
		time.Sleep(busyPause)
		err = start()
	}
	runtime.KeepAlive(l)
	return err
}

// nextMark gives this process the mark of the next command.
func (b *box) nextMark() (uint64, error) {
	b.seq++
	if !b.marks {
		return b.seq, nil
	}
	tag, err := lineage.Family(b.boot.Family).Tag(b.seq)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", driver.ErrExhausted, err)
	}
	return b.seq, lineage.Set(tag, b.boot.Nonce)
}

// startError tells apart what fork and exec report by numbers only.
func startError(l *launch, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return fmt.Errorf("%w: the sandbox may have no more processes or memory: %w", driver.ErrExhausted, err)
	case errors.Is(err, syscall.E2BIG):
		return fmt.Errorf("%w: arguments and environment are longer than the system allows: %w", driver.ErrInvalid, err)
	case errors.Is(err, syscall.ENOENT):
		// The file is there, lookPath has seen it: what is missing is the
		// interpreter it names.
		return &fs.PathError{Op: "exec", Path: l.path, Err: fmt.Errorf("its interpreter is missing: %w", err)}
	}
	return &fs.PathError{Op: "exec", Path: l.path, Err: err}
}

func (s *session) remember(proc uint64, c *command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands[proc] = c
}

func (s *session) forget(proc uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.commands, proc)
}

func (s *session) signal(req *wire.Request) error {
	s.mu.Lock()
	cmd := s.commands[req.Proc]
	s.mu.Unlock()
	if cmd == nil {
		return os.ErrProcessDone
	}
	return s.box.reaper.Signal(-cmd.pid, syscall.Signal(req.Num))
}

// kill kills everything that came from the command number req.Num, whether the
// command itself still runs or not.
func (b *box) kill(req *wire.Request) error {
	if !b.marks {
		return errors.ErrUnsupported
	}
	if req.Num <= 0 {
		return fmt.Errorf("no such command: %w", driver.ErrInvalid)
	}
	tag, err := lineage.Family(b.boot.Family).Tag(uint64(req.Num))
	if err != nil {
		return err
	}
	left, err := lineage.Kill(tag.Is, killPatience)
	if err == nil && left > 0 {
		err = fmt.Errorf("%d processes have not ended after SIGKILL within %v", left, killPatience)
	}
	return err
}

func exitOf(ws syscall.WaitStatus, ru *syscall.Rusage) driver.Exit {
	e := driver.Exit{
		Code:      ws.ExitStatus(),
		UserTime:  time.Duration(ru.Utime.Nano()),
		SysTime:   time.Duration(ru.Stime.Nano()),
		MaxMemory: int64(ru.Maxrss) * maxrssUnit,
	}
	if ws.Signaled() {
		e.Code, e.Signal = -1, driver.Signal(ws.Signal())
	}
	return e
}

// oomKills is how many processes of the sandbox the kernel has killed for memory.
func (b *box) oomKills() uint64 {
	if b.oomFD < 0 {
		return 0
	}
	var buf [512]byte
	n, err := unix.Pread(b.oomFD, buf[:], 0)
	if err != nil {
		return 0
	}
	return OOMKills(buf[:n])
}

// OOMKills reads the count out of memory.events (cgroup v2) or
// memory.oom_control (v1).
func OOMKills(text []byte) (n uint64) {
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
			return n
		}
	}
	return 0
}

// mergeEnv puts more over base: of two settings of one name the later counts.
func mergeEnv(base, more []string) []string {
	if len(more) == 0 {
		return base
	}
	env := slices.Concat(base, more)
	at := make(map[string]int, len(env))
	out := env[:0]
	for _, kv := range env {
		key, _, _ := strings.Cut(kv, "=")
		if i, ok := at[key]; ok {
			out[i] = kv
			continue
		}
		at[key] = len(out)
		out = append(out, kv)
	}
	return out
}
