//go:build unix

package localbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/keeper"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reexec"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// keeperConn is this process's connection to its keeper.
type keeperConn struct {
	dir    string
	pid    int
	conn   *wire.Conn
	down   chan struct{} // closed when the connection is gone
	served chan struct{} // closed when serve has returned

	mu    sync.Mutex
	next  uint64
	calls map[uint64]chan *wire.KeeperReply
}

// startKeeper starts a keeper. It is in a session of its own, so that nothing
// typed at this program's terminal reaches it.
func startKeeper(dir string) (*keeperConn, error) {
	reapKeepers()
	mine, theirs, err := reexec.Pair()
	if err != nil {
		return nil, err
	}
	defer mine.Close()
	defer theirs.Close()
	pid, err := reexec.Start(keeper.Role, theirs, nil, reexec.Environ(), &syscall.SysProcAttr{Setsid: true})
	if err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(mine.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	uc, err := reexec.Conn(fd)
	if err != nil {
		return nil, err
	}
	k := &keeperConn{dir: dir, pid: pid, conn: wire.NewConn(uc), down: make(chan struct{}),
		served: make(chan struct{}), calls: make(map[uint64]chan *wire.KeeperReply)}
	go k.serve(uc)
	return k, nil
}

func (k *keeperConn) serve(uc *net.UnixConn) {
	defer close(k.served)
	for {
		r := new(wire.KeeperReply)
		fds, err := k.conn.Receive(r)
		if err != nil {
			break
		}
		wire.CloseFDs(fds)
		k.mu.Lock()
		ch := k.calls[r.ID]
		delete(k.calls, r.ID)
		k.mu.Unlock()
		if ch != nil {
			ch <- r
		}
	}
	uc.Close()
	close(k.down)
	forgetKeeper(k.pid)
}

func (k *keeperConn) isDown() bool {
	select {
	case <-k.down:
		return true
	default:
		return false
	}
}

var errKeeperGone = errors.New("the keeper of the sandboxes has ended")

// ask sends a request and returns its reply. When ctx ends it asks the keeper
// to give up, and still waits: until then something may be left.
func (k *keeperConn) ask(ctx context.Context, req *wire.KeeperRequest) (*wire.KeeperReply, error) {
	ch := make(chan *wire.KeeperReply, 1)
	k.mu.Lock()
	k.next++
	req.ID, req.Dir = k.next, k.dir
	k.calls[req.ID] = ch
	k.mu.Unlock()
	if err := k.conn.Send(req); err != nil {
		k.conn.Close() // whatever half of it was sent
		<-k.down
		return nil, fmt.Errorf("%w: %w: %w", driver.ErrUnavailable, errKeeperGone, err)
	}
	done := ctx.Done()
	for {
		select {
		case r := <-ch:
			return r, nil
		case <-k.down:
			return nil, fmt.Errorf("%w: %w", driver.ErrUnavailable, errKeeperGone)
		case <-done:
			done = nil
			_ = k.conn.Send(&wire.KeeperRequest{ID: req.ID, Op: wire.KeeperCancel})
		}
	}
}

func (k *keeperConn) probe(ctx context.Context) error {
	r, err := k.ask(ctx, &wire.KeeperRequest{Op: wire.KeeperProbe})
	if err == nil && r.Err != nil {
		err = r.Err
	}
	return err
}

// create returns the id when a sandbox was made, also with ctx's error.
func (k *keeperConn) create(ctx context.Context, req *wire.KeeperRequest) (id string, err error) {
	req.Op = wire.KeeperCreate
	r, err := k.ask(ctx, req)
	switch {
	case err != nil:
		return "", err
	case r.Err != nil && ctx.Err() != nil:
		return "", ctx.Err()
	case r.Err != nil:
		return "", r.Err
	}
	return r.Sandbox, ctx.Err()
}

// close lets go of the keeper, which ends when it has no sandbox left. It waits
// for that if it happens at once.
func (k *keeperConn) close() error {
	// The keeper hears that this end is closed, closes its own, and then serve
	// returns.
	if err := k.conn.Unix().CloseWrite(); err != nil {
		k.conn.Close()
	}
	<-k.served
	return nil
}

// Keepers are children of this process and must be waited for, but one with
// sandboxes may live on after Close. No goroutine waits for it; whoever comes
// next looks whether it has ended.
var keepers = struct {
	sync.Mutex
	pids map[int]bool
}{pids: make(map[int]bool)}

// forgetKeeper waits for a keeper whose connection is gone, briefly.
func forgetKeeper(pid int) {
	for wait := time.Duration(0); wait < 20*time.Millisecond; wait += time.Millisecond {
		if reaped(pid) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	keepers.Lock()
	defer keepers.Unlock()
	keepers.pids[pid] = true
}

func reapKeepers() {
	keepers.Lock()
	defer keepers.Unlock()
	for pid := range keepers.pids {
		if reaped(pid) {
			delete(keepers.pids, pid)
		}
	}
}

func reaped(pid int) bool {
	var ws syscall.WaitStatus
	got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
	return got == pid || errors.Is(err, syscall.ECHILD)
}
