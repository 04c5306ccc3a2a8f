package modalemu

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Fault is something that goes wrong with calls. It acts on the first calls that
// match it. Of several that match the first injected acts, and one at a time.
type Fault struct {
	// Method is the name of the calls, such as "SandboxCreateV2" or
	// "TaskExecStdioRead". Empty means any.
	Method string
	// After is how many matching calls go well first.
	After int
	// Times is how many calls it acts on; 0 means one, -1 all.
	Times int

	// Delay is how long the call is held up first.
	Delay time.Duration
	// Code is answered, and the call does not act. Zero means none.
	Code codes.Code
	// RetryAfter is what an answer of Code tells the client to wait before it
	// tries again; zero leaves that to the client.
	RetryAfter time.Duration
	// LoseAnswer lets the call act, and answers Unavailable then.
	LoseAnswer bool
	// DropAfter breaks a stream with Unavailable once so many bytes of messages
	// have gone through it, in either direction, the message that reaches the
	// number included. Zero means never; -1 before the first message.
	DropAfter int64
	// ExpireTokens makes every token issued so far for the call's service count as
	// expired, just before the call: it is refused, and so is each one until its
	// client has a new one. Modal's client gets another token of the router at
	// once, and one of the API only when its token is about to expire.
	ExpireTokens bool
}

// armed is a fault that may still act.
type armed struct {
	Fault
	skip, left int
}

// faults are the interceptors that let calls go wrong. Its methods are safe for
// concurrent use.
type faults struct {
	tokens *tokens

	mu    sync.Mutex
	armed []*armed
	conns map[net.Conn]struct{}
}

func newFaults(t *tokens) *faults { return &faults{tokens: t, conns: make(map[net.Conn]struct{})} }

// Inject lets calls go wrong as f says, until remove is called or f has acted
// as often as it should.
func (s *Server) Inject(f Fault) (remove func()) { return s.faults.inject(f) }

// CutConnections breaks every connection of clients, as if the network had.
func (s *Server) CutConnections() { s.faults.cut() }

func (f *faults) inject(fault Fault) (remove func()) {
	a := &armed{Fault: fault, skip: fault.After, left: fault.Times}
	if a.left == 0 {
		a.left = 1
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = append(f.armed, a)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.armed = slices.DeleteFunc(f.armed, func(b *armed) bool { return a == b })
	}
}

// take gives the fault that acts on a call, or nil.
func (f *faults) take(fullMethod string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.armed) == 0 {
		return nil
	}
	method := fullMethod[strings.LastIndexByte(fullMethod, '/')+1:]
	for _, a := range f.armed {
		if a.left == 0 || a.Method != "" && a.Method != method {
			continue
		}
		if a.skip > 0 {
			a.skip--
			continue
		}
		if a.left > 0 {
			a.left--
		}
		return &a.Fault
	}
	return nil
}

// before does what happens before a call acts.
func (f *faults) before(ctx context.Context, method string, fault *Fault) error {
	if fault.Delay > 0 {
		t := time.NewTimer(fault.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fault.ExpireTokens {
		service := forControlPlane
		if strings.HasPrefix(method, "/"+pb.TaskCommandRouter_ServiceDesc.ServiceName+"/") {
			service = forRouter
		}
		f.tokens.expireAll(service)
	}
	if fault.Code == codes.OK {
		return nil
	}
	st := status.New(fault.Code, "injected fault")
	if fault.RetryAfter > 0 {
		policy := pb.RPCRetryPolicy_builder{RetryAfterSecs: float32(fault.RetryAfter.Seconds())}.Build()
		if detailed, err := st.WithDetails(policy); err == nil {
			st = detailed
		}
	}
	return st.Err()
}

var errLost = status.Error(codes.Unavailable, "injected fault: the answer was lost")

func (f *faults) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	fault := f.take(info.FullMethod)
	if fault == nil {
		return next(ctx, req)
	}
	if err := f.before(ctx, info.FullMethod, fault); err != nil {
		return nil, err
	}
	resp, err := next(ctx, req)
	if fault.LoseAnswer {
		return nil, errLost
	}
	return resp, err
}

func (f *faults) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	fault := f.take(info.FullMethod)
	if fault == nil {
		return next(srv, ss)
	}
	if err := f.before(ss.Context(), info.FullMethod, fault); err != nil {
		return err
	}
	if fault.DropAfter != 0 {
		ss = &droppedStream{ServerStream: ss, left: max(fault.DropAfter, 0)}
	}
	err := next(srv, ss)
	if d, ok := ss.(*droppedStream); ok && d.dropped() {
		return errDropped
	}
	if fault.LoseAnswer {
		return errLost
	}
	return err
}

var errDropped = status.Error(codes.Unavailable, "injected fault: the stream was dropped")

// droppedStream fails once so many bytes have gone through it.
type droppedStream struct {
	grpc.ServerStream
	mu   sync.Mutex
	left int64
	over bool
}

func (d *droppedStream) dropped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

// open reports whether another message may pass.
func (d *droppedStream) open() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left <= 0 {
		d.over = true
		return errDropped
	}
	return nil
}

func (d *droppedStream) count(m any) {
	msg, ok := m.(proto.Message)
	if !ok {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left -= int64(proto.Size(msg))
}

func (d *droppedStream) SendMsg(m any) error {
	if err := d.open(); err != nil {
		return err
	}
	d.count(m)
	return d.ServerStream.SendMsg(m)
}

func (d *droppedStream) RecvMsg(m any) error {
	if err := d.open(); err != nil {
		return err
	}
	if err := d.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	d.count(m)
	return nil
}

// listen wraps a listener so that its connections can be cut.
func (f *faults) listen(l net.Listener) net.Listener { return &cutListener{Listener: l, faults: f} }

func (f *faults) cut() {
	f.mu.Lock()
	conns := slices.Collect(maps.Keys(f.conns))
	f.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // it is to break, and does
	}
}

type cutListener struct {
	net.Listener
	faults *faults
}

func (l *cutListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	cc := &cutConn{Conn: c, faults: l.faults}
	l.faults.mu.Lock()
	defer l.faults.mu.Unlock()
	l.faults.conns[cc] = struct{}{}
	return cc, nil
}

type cutConn struct {
	net.Conn
	faults *faults
}

func (c *cutConn) Close() error {
	c.faults.mu.Lock()
	delete(c.faults.conns, c)
	c.faults.mu.Unlock()
	return c.Conn.Close()
}
