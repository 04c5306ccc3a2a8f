//go:build unix

package helper

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

const (
	// maxFileOps is how many file operations run at once.
	maxFileOps = 3
	// maxRequests is how many requests of one client are served at once; more wait.
	maxRequests = 64
	// maxQueue is how many replies wait for a client that does not read; a
	// client with more is dropped.
	maxQueue = 1 << 16
	// patience is how long one send to a client may take.
	patience = 30 * time.Second
)

// session serves one client.
type session struct {
	box   *box
	conn  *wire.Conn
	slots chan struct{}

	mu       sync.Mutex
	changed  *sync.Cond
	queue    []outgoing
	closed   bool
	commands map[uint64]*command // running ones, by the client's numbers
}

// outgoing is a reply with the descriptors that go with it, closed once sent.
type outgoing struct {
	reply wire.Reply
	fds   []int
}

func (b *box) newSession(conn *wire.Conn) *session {
	s := &session{box: b, conn: conn,
		slots: make(chan struct{}, maxRequests), commands: make(map[uint64]*command)}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// serve returns when the client is gone. Its commands go on.
func (s *session) serve() {
	go s.send()
	for {
		req := new(wire.Request)
		fds, err := s.conn.Receive(req)
		if err != nil {
			break
		}
		s.slots <- struct{}{}
		go func() {
			defer func() { <-s.slots }()
			s.handle(req, fds)
		}()
	}
	s.close()
}

func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.changed.Broadcast()
	s.conn.Close()
}

// push queues a reply and never blocks.
func (s *session) push(r wire.Reply, fds ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.queue) >= maxQueue {
		wire.CloseFDs(fds)
		if !s.closed {
			s.closed = true
			s.conn.Close()
			s.changed.Broadcast()
		}
		return
	}
	s.queue = append(s.queue, outgoing{reply: r, fds: fds})
	s.changed.Broadcast()
}

// pushSlowly queues a reply once few are waiting; it is for long answers.
func (s *session) pushSlowly(r wire.Reply) {
	s.mu.Lock()
	for len(s.queue) > 8 && !s.closed {
		s.changed.Wait()
	}
	s.mu.Unlock()
	s.push(r)
}

func (s *session) send() {
	for {
		out, ok := s.pop()
		if !ok {
			return
		}
		_ = s.conn.SetWriteDeadline(time.Now().Add(patience))
		err := s.conn.Send(&out.reply, out.fds...)
		wire.CloseFDs(out.fds)
		if err != nil {
			s.close()
		}
	}
}

func (s *session) pop() (outgoing, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && !s.closed {
		s.changed.Wait()
	}
	if s.closed {
		for _, o := range s.queue {
			wire.CloseFDs(o.fds)
		}
		s.queue = nil
		return outgoing{}, false
	}
	out := s.queue[0]
	s.queue[0] = outgoing{}
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil
	}
	s.changed.Broadcast()
	return out, true
}

// handle answers one request. fds came with it.
func (s *session) handle(req *wire.Request, fds []int) {
	s.box.activity.add(1)
	defer s.box.activity.add(-1)
	if req.Op == wire.OpStart {
		s.start(req, fds)
		return
	}
	reply, out, err := s.dispatch(req, fds)
	wire.CloseFDs(fds)
	reply.ID = req.ID
	if err != nil {
		reply.Err = wire.NewError(err)
	}
	if req.ID != 0 {
		s.push(reply, out...)
	} else {
		wire.CloseFDs(out)
	}
}

func (s *session) dispatch(req *wire.Request, fds []int) (reply wire.Reply, out []int, err error) {
	b := s.box
	switch req.Op {
	case wire.OpHello:
		out, err = b.hello(req)
	case wire.OpSignal:
		err = s.signal(req)
	case wire.OpKill:
		err = b.kill(req)
	case wire.OpListen:
		reply.Text, out, err = b.listen(req.Path)
	case wire.OpDial:
		out, err = b.dial(req.Path)
	case wire.OpSave:
		err = b.save(fds)
	case wire.OpLoad:
		err = b.load(fds)
	case wire.OpSaveLayer:
		err = b.saveLayer(fds)
	case wire.OpSaveBelow:
		if err = checkPath(req.Path); err == nil {
			err = b.saveBelow(fds, req.Path)
		}
	case wire.OpOOMKills:
		reply.Proc = b.oomKills()
	case wire.OpSetEnv:
		b.wayOut.Store(&req.Env)
	case wire.OpWatch:
		return b.watch(s, req, fds)
	default:
		return b.fileOp(s, req)
	}
	return reply, out, err
}

// hello gives a client the end of the pipe that tells it when the sandbox is gone.
func (b *box) hello(req *wire.Request) ([]int, error) {
	if req.Num != wire.Version {
		return nil, &wire.Error{Text: "the sandbox was made by a program of another version"}
	}
	fd, err := unix.FcntlInt(uintptr(b.doneFD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return []int{fd}, nil
}
