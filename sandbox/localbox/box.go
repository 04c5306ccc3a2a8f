//go:build unix

package localbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// box implements driver.Sandbox.
type box struct {
	id     string
	p      *provider
	dir    *state.Dir
	plain  bool
	root   *wire.Root // nil: it has no image
	client *wire.Client
	done   *os.File      // reads its end when the sandbox is gone
	ended  chan struct{} // closed then
	closed atomic.Bool
	probe  *driver.Probe // nil: none
	ready  atomic.Bool   // the probe has succeeded
}

func (p *provider) attach(ctx context.Context, id string) (*box, error) {
	rec, err := p.dir.Check(id)
	if rec != nil && rec.Info.State == driver.StateEnded {
		return nil, driver.ErrEnded
	}
	if err != nil {
		return nil, err
	}
	b := &box{id: id, p: p, dir: p.dir, plain: rec.Plain, root: rec.Root, probe: rec.Probe, ended: make(chan struct{})}
	uc, err := p.dir.Dial(id)
	if err != nil {
		return nil, b.refused(ctx, err)
	}
	b.client = wire.NewClient(wire.NewConn(uc), nil)
	serving := make(chan struct{})
	go func() {
		b.client.Serve()
		close(serving)
	}()
	fds, err := b.hello(ctx, p.patience)
	if err != nil {
		b.client.Close()
		<-serving
		if errors.Is(err, wire.ErrDown) {
			err = b.refused(ctx, err)
		}
		return nil, err
	}
	_ = unix.SetNonblock(fds[0], true)
	b.done = os.NewFile(uintptr(fds[0]), "done")
	go b.watch(serving)
	return b, nil
}

// answerPatience is how long a helper may take to answer a caller who has set
// no limit of his own.
const answerPatience = 10 * time.Second

var errSilent = errors.New("the sandbox does not answer; localbox.Terminate ends it all the same")

// hello asks for the descriptor that tells of the sandbox's end.
func (b *box) hello(ctx context.Context, patience time.Duration) ([]int, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, errSilent)
		defer cancel()
	}
	_, fds, err := b.client.Call(ctx, &wire.Request{Op: wire.OpHello, Num: wire.Version}, nil)
	switch {
	case err != nil && errors.Is(context.Cause(ctx), errSilent):
		return nil, fmt.Errorf("%w: %w", driver.ErrUnavailable, errSilent)
	case err == nil && len(fds) != 1:
		wire.CloseFDs(fds)
		err = errors.New("the helper did not say how it will end")
	}
	return fds, err
}

// refused explains a connection that could not be made: as a rule the sandbox
// is just ending.
func (b *box) refused(ctx context.Context, err error) error {
	if !isEnding(err) {
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	}
	if info, serr := b.settle(ctx); info == nil {
		return errors.Join(fmt.Errorf("%w: %w", driver.ErrUnavailable, err), serr)
	}
	return driver.ErrEnded
}

func isEnding(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) || errors.Is(err, wire.ErrDown)
}

// settle waits for the record of a sandbox that is ending to say so. Without a
// keeper nobody writes it but Check, once the last process is gone, and of that
// nobody tells. Where something of it cannot be removed it returns both.
func (b *box) settle(ctx context.Context) (*driver.Info, error) {
	deadline := time.Now().Add(endPatience)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		rec, err := b.dir.Check(b.id)
		if errors.Is(err, driver.ErrNotFound) { // so long ago that it is forgotten
			return &driver.Info{ID: b.id, Driver: "localbox", State: driver.StateEnded, End: driver.EndUnknown}, nil
		}
		if rec == nil {
			return nil, err
		}
		if rec.Info.State == driver.StateEnded {
			return &rec.Info, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w: the sandbox has not ended within %v", driver.ErrUnavailable, endPatience)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// watch waits for the sandbox's end, or for Close.
func (b *box) watch(serving <-chan struct{}) {
	<-serving
	defer b.done.Close()
	var one [1]byte
	if _, err := b.done.Read(one[:]); errors.Is(err, io.EOF) {
		close(b.ended)
	}
}

// ID implements driver.Sandbox.
func (b *box) ID() string { return b.id }

// Info implements driver.Sandbox.
func (b *box) Info(ctx context.Context) (*driver.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rec, err := b.dir.Check(b.id)
	if errors.Is(err, driver.ErrNotFound) {
		return nil, driver.ErrEnded // so long ago that it is forgotten
	}
	if rec == nil {
		return nil, err
	}
	return &rec.Info, nil
}

// call asks the helper and says in terms of package driver what went wrong.
func (b *box) call(ctx context.Context, req *wire.Request, late func(*wire.Reply, []int), fds ...int) (*wire.Reply, []int, error) {
	if b.closed.Load() {
		return nil, nil, os.ErrClosed
	}
	r, got, err := b.client.Call(ctx, req, late, fds...)
	if errors.Is(err, wire.ErrDown) {
		err = b.lost(ctx, err)
	}
	return r, got, err
}

// endPatience is how long the keeper may take to remove a sandbox.
const endPatience = 15 * time.Second

// lost explains a connection that is gone: as a rule, because the sandbox is.
func (b *box) lost(ctx context.Context, err error) error {
	if b.closed.Load() {
		return os.ErrClosed
	}
	timer := time.NewTimer(endPatience)
	defer timer.Stop()
	select {
	case <-b.ended:
		return driver.ErrEnded
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	}
}

// Wait implements driver.Sandbox.
func (b *box) Wait(ctx context.Context) (*driver.Info, error) {
	select {
	case <-b.ended:
	default:
		select {
		case <-b.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	info, err := b.settle(ctx)
	if info == nil {
		return nil, err
	}
	return info, nil // what is left of it Terminate tells
}

// Terminate implements driver.Sandbox.
func (b *box) Terminate(ctx context.Context) error {
	if b.closed.Load() {
		return os.ErrClosed
	}
	return b.terminate(ctx)
}

// terminate asks the keeper, not the helper, which the inside may have brought
// to a halt.
func (b *box) terminate(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.dir.AskEnd(b.id); err != nil && !isEnding(err) {
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	}
	if b.ended != nil { // with a handle it is told at once
		timer := time.NewTimer(endPatience)
		defer timer.Stop()
		select {
		case <-b.ended:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_, err := b.settle(ctx)
	return err
}

// Close implements driver.Sandbox.
func (b *box) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.client.Close()
	_ = b.done.SetReadDeadline(time.Unix(1, 0)) // watch closes it
	return nil
}

// Listen implements driver.Listener.
func (b *box) Listen(ctx context.Context, address string) (net.Listener, error) {
	_, fds, err := b.call(ctx, &wire.Request{Op: wire.OpListen, Path: address}, nil)
	if err != nil {
		return nil, err
	}
	return wire.Listener(fds)
}

// OOMKills implements driver.OOMCounter.
func (b *box) OOMKills(ctx context.Context) (uint64, error) {
	reply, _, err := b.call(ctx, &wire.Request{Op: wire.OpOOMKills}, nil)
	if err != nil {
		return 0, err
	}
	return reply.Proc, nil
}

// Dial implements driver.Dialer.
func (b *box) Dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := b.client.Dial(ctx, address)
	if errors.Is(err, wire.ErrDown) {
		err = b.lost(ctx, err)
	}
	return c, err
}
