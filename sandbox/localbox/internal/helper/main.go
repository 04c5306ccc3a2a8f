//go:build unix

// Package helper is the role that runs in a sandbox: it starts commands, opens
// files and sockets and hands their descriptors out, and ends with the sandbox.
// In an isolated sandbox it is process 1, with no more rights than the commands
// have.
package helper

import (
	"errors"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/lineage"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reap"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reexec"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// Role is the name under which this package takes a process over.
const Role = "helper"

func init() {
	reexec.Hook(Role, func(uc *net.UnixConn) int {
		// The goroutine of init functions is bound to one thread, and each of
		// its waits would cost a change of threads.
		code := make(chan int)
		go func() { code <- run(uc) }()
		return <-code
	})
}

// Environ is the environment for a helper's runtime: it serves little, and
// there may be a thousand of them.
func Environ() []string {
	return append(reexec.Environ(), "GOMAXPROCS=1", "GOGC=50", "GOMEMLIMIT=64MiB")
}

// box is the sandbox as its helper sees it.
type box struct {
	boot   wire.Boot
	keeper *wire.Conn
	doneFD int // read end; its other end is the keeper's
	oomFD  int // -1: not known
	env    []string
	wayOut atomic.Pointer[[]string] // see wire.OpSetEnv
	tree   tree
	reaper *reap.Reaper
	forker *forker        // nil: any thread may fork
	user   *identity      // with an image, who commands run as
	work   chan func()    // runs file operations as that user; nil: any thread may
	uppers map[string]int // see wire.Boot
	files  chan struct{}  // bounds the threads that block in file operations

	seq   uint64
	marks bool // lineage works

	activity activity
	endOnce  sync.Once
}

func run(uc *net.UnixConn) int {
	if err := hide(); err != nil {
		return 125
	}
	b := &box{keeper: wire.NewConn(uc), oomFD: -1, files: make(chan struct{}, maxFileOps)}
	listener, err := b.start()
	if err != nil {
		_ = b.keeper.Send(&wire.Status{Step: "start the helper", Err: wire.NewError(err)})
		return 125
	}
	if err := b.keeper.Send(&wire.Status{}); err != nil {
		return 125
	}
	if !b.boot.Plain {
		go warmThreads()
	}
	go b.accept(listener)
	go b.watchIdle()
	// The keeper is a client that may do more, on the connection that started us.
	b.newSession(b.keeper).serve()
	b.end()
	return 0
}

// start receives the boot message and makes ready to serve.
func (b *box) start() (*net.UnixListener, error) {
	fds, err := b.keeper.Receive(&b.boot)
	if err != nil {
		return nil, err
	}
	if b.boot.Entering {
		if err := awaitRoot(); err != nil {
			return nil, err
		}
	}
	if !b.boot.Plain {
		ignoreSignals()
	}
	l, err := b.take(fds)
	if err != nil {
		return nil, err
	}
	if b.tree, err = newTree(&b.boot); err != nil {
		return nil, err
	}
	if b.boot.Image {
		if err := b.startImage(); err != nil {
			return nil, err
		}
	}
	b.env = baseEnv(&b.boot, b.user)
	b.boot.Env = nil
	b.reaper = reap.New()
	b.marks = b.mark() == nil
	b.activity.touch()
	debug.SetMaxStack(16 << 20)
	return l, nil
}

// take takes what came with the boot message.
func (b *box) take(fds []int) (*net.UnixListener, error) {
	want := 3
	if b.boot.OOM {
		want = 4
	}
	if len(fds) != want+len(b.boot.Uppers) {
		return nil, &wire.Error{Text: "helper got the wrong number of descriptors"}
	}
	b.doneFD = fds[1]
	// fds[2] is held open: its lock says that the sandbox lives.
	if b.boot.OOM {
		b.oomFD = fds[3]
	}
	b.uppers = make(map[string]int)
	for i, path := range b.boot.Uppers {
		b.uppers[path] = fds[want+i]
	}
	f := os.NewFile(uintptr(fds[0]), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l.(*net.UnixListener), nil
}

// startImage makes ready what only a sandbox with an image needs.
func (b *box) startImage() (err error) {
	if b.user, err = b.findUser(); err != nil {
		return err
	}
	if b.user.uid != 0 {
		if err := b.ownDir(b.user); err != nil {
			return err
		}
		if err := b.startWorkers(b.user); err != nil {
			return err
		}
	}
	b.forker, err = newForker()
	return err
}

// awaitRoot waits for the only child to have changed the root.
func awaitRoot() error {
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err == nil && ws.ExitStatus() != 0 {
			err = errors.New("the root could not be changed")
		}
		if err != nil {
			return err
		}
		return os.Chdir("/")
	}
}

// mark sets the first mark, so that it is known whether marks work.
func (b *box) mark() error {
	tag, err := lineage.Family(b.boot.Family).Tag(0)
	if err != nil {
		return err
	}
	return lineage.Set(tag, b.boot.Nonce)
}

func (b *box) accept(l *net.UnixListener) {
	for {
		uc, err := l.AcceptUnix()
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors: some will be closed
			continue
		}
		go b.newSession(wire.NewConn(uc)).serve()
	}
}

// environ is the environment of every command.
func (b *box) environ() []string {
	if more := b.wayOut.Load(); more != nil {
		return mergeEnv(*more, b.env)
	}
	return b.env
}

// tell tells the keeper why the sandbox ends; the keeper ends it.
func (b *box) tell(why driver.End) {
	_ = b.keeper.Send(&wire.Reply{ID: 0, Text: string(why)})
}

// end is the last thing the helper does when its keeper is gone. In an isolated
// sandbox the kernel kills the rest with process 1.
func (b *box) end() {
	b.endOnce.Do(func() {
		if b.boot.Plain {
			_ = lineage.Family(b.boot.Family).End(5 * time.Second) // a sweep tries again
		}
	})
}

// activity remembers when the sandbox was used last.
type activity struct {
	mu   sync.Mutex
	last time.Time
	busy int
}

func (a *activity) touch() {
	a.mu.Lock()
	a.last = time.Now()
	a.mu.Unlock()
}

// add counts what is going on.
func (a *activity) add(n int) {
	a.mu.Lock()
	a.busy += n
	a.last = time.Now()
	a.mu.Unlock()
}

func (a *activity) idleSince() (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last, a.busy == 0
}

// watchIdle ends the sandbox when nothing has run in it, and nobody has asked
// anything of it, for the idle limit.
func (b *box) watchIdle() {
	limit := time.Duration(b.boot.IdleTimeout)
	if limit <= 0 {
		return
	}
	for wait := limit; ; {
		time.Sleep(wait)
		last, quiet := b.activity.idleSince()
		rest := limit - time.Since(last)
		switch {
		case !quiet || b.occupied():
			b.activity.touch()
			wait = min(limit, time.Second)
		case rest > 0:
			wait = rest
		default:
			b.tell(driver.EndIdle)
			return
		}
	}
}

// occupied reports whether a process runs that no client waits for, such as
// one left in the background.
func (b *box) occupied() bool {
	if !b.marks {
		return false
	}
	pids, err := lineage.Processes(lineage.Family(b.boot.Family).Has)
	return err != nil || len(pids) > 0
}
