//go:build unix

package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// serve opens what the sandbox needs from outside before commands run in it.
func (b *box) serve(ctx context.Context) error {
	if err := b.openEnd(); err != nil {
		return fmt.Errorf("open the way to end it: %w", err)
	}
	if err := b.openDesk(); err != nil {
		return fmt.Errorf("open the way to change it: %w", err)
	}
	b.closer = append(b.closer, &b.way)
	cfg := &b.req.Config
	if cfg.Image.Snapshot != "" && b.req.Root == nil {
		if err := b.restore(ctx, cfg.Image.Snapshot); err != nil {
			return fmt.Errorf("restore snapshot: %w", err)
		}
	}
	if cfg.Network.Mode != driver.NetworkNone && !b.rec.Plain {
		if err := b.setNetwork(ctx, cfg.Network); err != nil {
			return fmt.Errorf("open the way out: %w", err)
		}
	}
	for _, port := range cfg.Ports {
		if err := b.openPort(port); err != nil {
			return fmt.Errorf("open port %d: %w", port, err)
		}
	}
	return nil
}

// openEnd lets whoever may reach the sandbox end it without its helper, which
// may be slow or stuck.
func (b *box) openEnd() error {
	l, err := b.dir.ListenEnd(b.rec.Info.ID)
	if err != nil {
		return err
	}
	b.closer = append(b.closer, l)
	go accept(l, func(c net.Conn) {
		c.Close()
		b.end(driver.EndCancelled)
	})
	return nil
}

// accept hands connections to serve, one after the other, until l is closed.
func accept(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			serve(c)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			time.Sleep(10 * time.Millisecond) // out of descriptors: some will be closed
		}
	}
}

// openPort makes a port inside reachable from this machine.
func (b *box) openPort(port int) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fwd := newForward(l)
	b.closer = append(b.closer, fwd)
	if b.rec.Info.Ports == nil {
		b.rec.Info.Ports = make(map[int]string)
	}
	b.rec.Info.Ports[port] = l.Addr().String()
	inside := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	go fwd.serve(func() (net.Conn, error) { return b.client.Dial(context.Background(), inside) })
	return nil
}

// maxForwarded is how many connections to one port are open at once; more wait
// in the listener's queue.
const maxForwarded = 256

// forward hands connections on.
type forward struct {
	listener net.Listener
	slots    chan struct{}

	mu     sync.Mutex
	closed bool
	conns  map[io.Closer]struct{}
}

func newForward(l net.Listener) *forward {
	return &forward{listener: l, slots: make(chan struct{}, maxForwarded), conns: make(map[io.Closer]struct{})}
}

func (f *forward) serve(dial func() (net.Conn, error)) {
	accept(f.listener, func(c net.Conn) {
		f.slots <- struct{}{} // Close ends those that hold one
		go func() {
			defer func() { <-f.slots }()
			f.relay(c, dial)
		}()
	})
}

// Close ends the listener and every connection.
func (f *forward) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for c := range f.conns {
		c.Close()
	}
	return f.listener.Close()
}

func (f *forward) add(c io.Closer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.conns[c] = struct{}{}
	}
	return !f.closed
}

func (f *forward) drop(c io.Closer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	c.Close()
}

func (f *forward) relay(outer net.Conn, dial func() (net.Conn, error)) {
	defer f.drop(outer)
	if !f.add(outer) {
		return
	}
	inner, err := dial()
	if err != nil {
		return
	}
	defer f.drop(inner)
	if !f.add(inner) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { pipe(inner, outer) })
	wg.Go(func() { pipe(outer, inner) })
	wg.Wait()
}

// pipe copies until the end and passes the end on.
func pipe(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if tcp, ok := to.(*net.TCPConn); ok && err == nil {
		_ = tcp.CloseWrite()
		return
	}
	to.Close()
	from.Close()
}

// restore puts the files of a snapshot into the sandbox.
func (b *box) restore(ctx context.Context, id string) error {
	path, err := b.dir.Snapshot(id)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return driver.ErrNotFound
	}
	if err != nil {
		return err
	}
	defer f.Close()
	zr, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer zr.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(w, zr)
		copied <- errors.Join(err, w.Close())
	}()
	_, _, err = b.client.Call(ctx, &wire.Request{Op: wire.OpLoad}, nil, int(r.Fd()))
	r.Close()
	// With the read end closed the copy ends too, if the helper has let go of it.
	w.Close()
	cerr := <-copied
	if err != nil {
		return err
	}
	if cerr != nil && !errors.Is(cerr, fs.ErrClosed) {
		return cerr
	}
	return nil
}
