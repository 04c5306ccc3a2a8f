//go:build unix

package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/egress"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// deskPatience bounds what a client may take to ask, and the helper to do its part.
const deskPatience = 30 * time.Second

// openDesk takes requests about this sandbox from whoever may reach it.
func (b *box) openDesk() error {
	l, err := b.dir.ListenDesk(b.rec.Info.ID)
	if err != nil {
		return err
	}
	b.closer = append(b.closer, l)
	go accept(l, func(c net.Conn) { go b.serveDesk(c.(*net.UnixConn)) })
	return nil
}

// serveDesk answers the one request of a connection.
func (b *box) serveDesk(uc *net.UnixConn) {
	conn := wire.NewConn(uc)
	defer conn.Close()
	_ = uc.SetDeadline(time.Now().Add(deskPatience))
	var req wire.KeeperRequest
	fds, err := conn.Receive(&req)
	wire.CloseFDs(fds)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), deskPatience)
	defer cancel()
	err = b.ask(ctx, &req)
	_ = uc.SetDeadline(time.Now().Add(deskPatience))
	_ = conn.Send(&wire.KeeperReply{ID: req.ID, Err: wire.NewError(err)})
}

func (b *box) ask(ctx context.Context, req *wire.KeeperRequest) error {
	switch req.Op {
	case wire.KeeperSetNetwork:
		if err := egress.Check(req.Config.Network); err != nil {
			return fmt.Errorf("%w: %w", driver.ErrInvalid, err)
		}
		return b.setNetwork(ctx, req.Config.Network)
	case wire.KeeperMount:
		return b.mountImage(ctx, req.Path, req.Root)
	case wire.KeeperUnmount:
		return b.unmountImage(ctx, req.Path)
	}
	return fmt.Errorf("unknown request %d: %w", req.Op, driver.ErrInvalid)
}

// proxyAddress is where the way out listens inside, if it can.
const proxyAddress = "127.0.0.1:3128"

// wayOut is a sandbox's proxy. The zero value has none yet.
type wayOut struct {
	mu      sync.Mutex // held during a change
	proxy   *egress.Proxy
	address string
	closed  bool
}

// Close ends the proxy; there will be no other.
func (w *wayOut) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.proxy == nil {
		return nil
	}
	return w.proxy.Close()
}

// setNetwork makes policy what the sandbox may reach, and tells the commands
// that start from now on.
func (b *box) setNetwork(ctx context.Context, policy driver.Network) error {
	if b.rec.Plain {
		if policy.Mode == driver.NetworkFull {
			return nil
		}
		return &driver.UnsupportedError{Setting: "Network", Reason: "plain processes reach whatever this machine reaches"}
	}
	w := &b.way
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return driver.ErrEnded
	case w.proxy != nil:
		w.proxy.SetPolicy(policy)
	case policy.Mode == driver.NetworkNone:
		return nil
	default:
		if err := b.openWayOut(ctx, policy); err != nil {
			return err
		}
	}
	var env []string
	if policy.Mode != driver.NetworkNone {
		env = egress.Env(w.address)
	}
	_, _, err := b.client.Call(ctx, &wire.Request{Op: wire.OpSetEnv, Env: env}, nil)
	return err
}

// openWayOut serves the proxy on a listener inside. The lock of the way out is
// held.
func (b *box) openWayOut(ctx context.Context, policy driver.Network) error {
	l, err := b.listenInside(ctx, proxyAddress)
	if errors.Is(err, syscall.EADDRINUSE) { // by a command: any other will do
		l, err = b.listenInside(ctx, "127.0.0.1:0")
	}
	if err != nil {
		return err
	}
	b.way.proxy, b.way.address = egress.New(policy, nil), l.Addr().String()
	go func() { _ = b.way.proxy.Serve(l) }()
	return nil
}

func (b *box) listenInside(ctx context.Context, address string) (net.Listener, error) {
	_, fds, err := b.client.Call(ctx, &wire.Request{Op: wire.OpListen, Path: address}, nil)
	if err != nil {
		return nil, err
	}
	return wire.Listener(fds)
}
