package relay

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

//go:embed relay.js
var nodeScript string

//go:embed relay.py
var pythonScript string

// launch runs the script with the first interpreter there is.
const launch = `if command -v node >/dev/null 2>&1; then exec node -e "$1"; fi
if command -v python3 >/dev/null 2>&1; then exec python3 -c "$2"; fi
exit 127`

// pingEvery is how often this side shows that it is there; the script ends
// after four times as long without a word.
const pingEvery = 15 * time.Second

// Relay carries connections of one sandbox. Its methods are safe for concurrent
// use. The caller closes it.
type Relay struct {
	proc driver.Process
	stop context.CancelFunc
	done chan struct{} // closed when reading has ended

	out outbox

	mu    sync.Mutex
	next  uint32
	conns map[uint32]*conn
	lists map[uint32]*listener
	asked map[uint32]chan error
	err   error // why it ended
}

// Start starts the script in a sandbox. Where the image has no interpreter for
// it, the error is a *driver.UnsupportedError.
func Start(ctx context.Context, box driver.Sandbox) (*Relay, error) {
	return start(ctx, box, "sh", "-c", launch, "vivarium-relay", nodeScript, pythonScript)
}

func start(ctx context.Context, box driver.Sandbox, args ...string) (*Relay, error) {
	proc, err := box.Start(ctx, &driver.Exec{Args: args, Stdin: true, Stdout: true})
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &Relay{
		proc: proc, stop: stop, done: make(chan struct{}), next: 1,
		conns: make(map[uint32]*conn), lists: make(map[uint32]*listener), asked: make(map[uint32]chan error),
	}
	r.out.init()
	var all sync.WaitGroup
	all.Go(func() { r.write(proc.Stdin()) })
	all.Go(func() { r.ping(run) })
	go func() {
		defer close(r.done)
		err := r.read(proc.Stdout())
		if exit, werr := proc.Wait(run); err == io.EOF && werr == nil && exit.Code == 127 {
			err = &driver.UnsupportedError{Setting: "Listen and Dial", Reason: "the image has neither node nor python3; install one, or use Ports"}
		}
		r.end(err)
		all.Wait()
	}()
	return r, nil
}

// Close ends every connection and listener, and the script.
func (r *Relay) Close() error {
	r.end(net.ErrClosed)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := r.proc.Kill(ctx)
	if errors.Is(err, driver.ErrEnded) {
		err = nil
	}
	err = errors.Join(err, closeIfAny(r.proc.Stdout()))
	<-r.done
	return err
}

func closeIfAny(c io.Closer) error {
	if c == nil {
		return nil
	}
	return c.Close()
}

// Alive reports whether the relay still works.
func (r *Relay) Alive() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err == nil
}

// Listen listens on a loopback "IP:port" inside; port 0 picks one.
func (r *Relay) Listen(ctx context.Context, address string) (net.Listener, error) {
	l := &listener{r: r, ready: make(chan struct{}, 1)}
	id, reply, err := r.ask(func(id uint32) { l.id, r.lists[id] = id, l })
	if err != nil {
		return nil, err
	}
	r.out.send(kindListen, id, []byte(address))
	if err := r.await(ctx, id, reply); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Dial connects to a loopback "IP:port" inside.
func (r *Relay) Dial(ctx context.Context, address string) (net.Conn, error) {
	var c *conn
	id, reply, err := r.ask(func(id uint32) { c = newConn(r, id, inside(address)); r.conns[id] = c })
	if err != nil {
		return nil, err
	}
	r.out.send(kindDial, id, []byte(address))
	if err := r.await(ctx, id, reply); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// inside is an address inside the sandbox.
type inside string

func (inside) Network() string  { return "tcp" }
func (a inside) String() string { return string(a) }

// ask takes a number for something new. Numbers that this side gives are odd.
func (r *Relay) ask(keep func(id uint32)) (uint32, chan error, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, nil, r.err
	}
	id := r.next
	r.next += 2
	reply := make(chan error, 1)
	r.asked[id] = reply
	keep(id)
	return id, reply, nil
}

func (r *Relay) await(ctx context.Context, id uint32, reply chan error) error {
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		r.mu.Lock()
		delete(r.asked, id)
		r.mu.Unlock()
		return ctx.Err()
	}
}

// ping shows that this side is there.
func (r *Relay) ping(ctx context.Context) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.out.send(kindPing, 0, nil)
		}
	}
}

// write sends what is to be sent, as much at once as has gathered.
func (r *Relay) write(w io.WriteCloser) {
	defer w.Close()
	var batch []byte
	for {
		var ok bool
		if batch, ok = r.out.take(batch); !ok {
			return
		}
		if _, err := w.Write(batch); err != nil {
			r.end(fmt.Errorf("write to the relay inside: %w", err))
			return
		}
	}
}

func (r *Relay) read(stdout io.Reader) error {
	br := bufio.NewReaderSize(stdout, 256<<10)
	var buf []byte
	for {
		f, err := readFrame(br, &buf)
		if err != nil {
			return err
		}
		if err := r.handle(f); err != nil {
			return err
		}
	}
}

func (r *Relay) handle(f frame) error {
	switch f.kind {
	case kindDone, kindFail:
		r.answered(f)
		return nil
	case kindOpen:
		return r.opened(f)
	case kindPing:
		return nil
	}
	r.mu.Lock()
	c, l := r.conns[f.id], r.lists[f.id]
	r.mu.Unlock()
	switch {
	case c != nil:
		return c.handle(f)
	case l != nil && f.kind == kindReset:
		l.end(net.ErrClosed)
	}
	return nil // of a connection that this side has forgotten
}

func (r *Relay) answered(f frame) {
	r.mu.Lock()
	reply := r.asked[f.id]
	delete(r.asked, f.id)
	if l := r.lists[f.id]; l != nil && f.kind == kindDone {
		l.addr = inside(f.payload)
	}
	r.mu.Unlock()
	switch {
	case reply == nil:
	case f.kind == kindFail:
		reply <- failure(string(f.payload))
	default:
		reply <- nil
	}
}

// failure is what the script says, in the words of node or python3.
func failure(said string) error {
	err := errors.New(said)
	if strings.Contains(said, "address already in use") {
		err = fmt.Errorf("%w: %w", err, syscall.EADDRINUSE)
	}
	return err
}

// opened takes a connection that a listener accepted.
func (r *Relay) opened(f frame) error {
	if len(f.payload) != 4 {
		return errProtocol
	}
	id := binary.BigEndian.Uint32(f.payload)
	r.mu.Lock()
	l := r.lists[f.id]
	var c *conn
	if l != nil {
		c = newConn(r, id, l.addr)
		r.conns[id] = c
	}
	r.mu.Unlock()
	if c == nil {
		r.out.send(kindReset, id, nil)
		return nil
	}
	l.add(c)
	return nil
}

// end ends everything, for a reason; the first one counts.
func (r *Relay) end(why error) {
	if why == io.EOF {
		why = fmt.Errorf("the relay inside has ended: %w", net.ErrClosed)
	}
	r.mu.Lock()
	if r.err != nil {
		r.mu.Unlock()
		return
	}
	r.err = why
	conns, lists, asked := r.conns, r.lists, r.asked
	r.conns, r.lists, r.asked = nil, nil, nil
	r.mu.Unlock()
	for _, reply := range asked {
		reply <- why
	}
	for _, l := range lists {
		l.end(why)
	}
	for _, c := range conns {
		c.fail(why)
	}
	r.out.close()
	r.stop()
}

func (r *Relay) forget(id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, id)
	delete(r.lists, id)
	delete(r.asked, id)
}

// outbox gathers what is to be sent. What it holds is bounded by the windows of
// the connections.
type outbox struct {
	mu     sync.Mutex
	wake   *sync.Cond
	buf    []byte
	closed bool
}

func (o *outbox) init() { o.wake = sync.NewCond(&o.mu) }

func (o *outbox) send(k kind, id uint32, payload []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.buf = appendFrame(o.buf, k, id, payload)
		o.wake.Signal()
	}
}

// take waits for something and gives all there is, for spare in exchange.
func (o *outbox) take(spare []byte) ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) == 0 && !o.closed {
		o.wake.Wait()
	}
	if o.closed {
		return nil, false
	}
	batch := o.buf
	o.buf = spare[:0]
	return batch, true
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.wake.Broadcast()
}
