//go:build unix

// Package keeper is the role that looks after the sandboxes of one host
// process: it starts them, ends them when their time is up, serves their way
// out and their ports, and removes all they held. It goes on when the host
// process is gone, until the last sandbox has ended.
package keeper

import (
	"context"
	"net"
	"sync"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reap"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reexec"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// Role is the name under which this package takes a process over.
const Role = "keeper"

func init() { reexec.Hook(Role, run) }

// keeper is the state of the role.
type keeper struct {
	host   *wire.Conn
	reaper *reap.Reaper
	place  place
	forks  chan func()   // run on the main thread, which lives as long as the process
	idle   chan struct{} // closed when the host is gone and nothing is left

	mu      sync.Mutex
	dir     *state.Dir
	creates map[uint64]context.CancelFunc
	boxes   int
	gone    bool // the host is
}

func run(uc *net.UnixConn) int {
	k := &keeper{
		host:    wire.NewConn(uc),
		reaper:  reap.New(),
		forks:   make(chan func()),
		idle:    make(chan struct{}),
		creates: make(map[uint64]context.CancelFunc),
	}
	k.place.init()
	go k.serve()
	for {
		select {
		case fork := <-k.forks:
			fork()
		case <-k.idle:
			return 0
		}
	}
}

// onMain runs do on the thread that children are to die with (PR_SET_PDEATHSIG).
func (k *keeper) onMain(do func() (int, error)) (pid int, err error) {
	done := make(chan struct{})
	k.forks <- func() {
		pid, err = do()
		close(done)
	}
	<-done
	return pid, err
}

func (k *keeper) serve() {
	for {
		req := new(wire.KeeperRequest)
		fds, err := k.host.Receive(req)
		if err != nil {
			break
		}
		wire.CloseFDs(fds)
		k.handle(req)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = true
	for _, cancel := range k.creates {
		cancel() // nobody would know of what they make
	}
	k.leaveIfIdle()
	k.host.Close()
}

// leaveIfIdle must be called with the lock held.
func (k *keeper) leaveIfIdle() {
	if k.gone && k.boxes == 0 && len(k.creates) == 0 {
		select {
		case <-k.idle:
		default:
			k.place.leave() // before the host hears that this end is closed
			close(k.idle)
		}
	}
}

func (k *keeper) handle(req *wire.KeeperRequest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if req.Op == wire.KeeperCancel {
		if cancel := k.creates[req.ID]; cancel != nil {
			cancel()
		}
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	k.creates[req.ID] = cancel
	go k.answer(ctx, req)
}

func (k *keeper) answer(ctx context.Context, req *wire.KeeperRequest) {
	reply := &wire.KeeperReply{ID: req.ID}
	var err error
	switch req.Op {
	case wire.KeeperProbe:
		err = k.probe(ctx)
	case wire.KeeperCreate:
		reply.Sandbox, err = k.create(ctx, req)
	}
	reply.Err = wire.NewError(err)
	_ = k.host.Send(reply)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.creates[req.ID]()
	delete(k.creates, req.ID)
	k.leaveIfIdle()
}

// open opens the state directory, once.
func (k *keeper) open(path string) (*state.Dir, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dir != nil {
		return k.dir, nil
	}
	dir, err := state.Open(path)
	if err == nil {
		k.dir = dir
	}
	return dir, err
}

// count counts the sandboxes that keep the keeper.
func (k *keeper) count(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.boxes += n
	k.leaveIfIdle()
}
