//go:build unix

package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Client asks a helper. Its methods are safe for concurrent use.
type Client struct {
	conn *Conn
	down chan struct{} // closed when the connection is gone
	word func(string)

	mu    sync.Mutex
	next  uint64
	calls map[uint64]*call
	procs map[uint64]chan driver.Exit
}

// call is a request under way.
type call struct {
	reply     chan Reply // capacity 1; more replies are gathered in acc
	acc       []FileInfo
	fds       []int
	abandoned func(*Reply, []int) // set when nobody waits any more
}

// ErrDown is returned by calls on a connection that is gone.
var ErrDown = errors.New("connection to the sandbox is gone")

// NewClient speaks to a helper over conn, and closes it in the end. word, which
// may be nil, is called with what the helper says unasked; it must not block.
func NewClient(conn *Conn, word func(string)) *Client {
	c := &Client{
		conn:  conn,
		word:  word,
		down:  make(chan struct{}),
		calls: make(map[uint64]*call),
		procs: make(map[uint64]chan driver.Exit),
	}
	return c
}

// Serve receives the replies until the connection is gone. It must run for
// calls to return.
func (c *Client) Serve() {
	for {
		var r Reply
		fds, err := c.conn.Receive(&r)
		if err != nil {
			break
		}
		c.deliver(&r, fds)
	}
	c.conn.Close()
	close(c.down)
}

// Down is closed when the connection is gone.
func (c *Client) Down() <-chan struct{} { return c.down }

// Close ends the connection; Serve returns.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) deliver(r *Reply, fds []int) {
	if r.ID == 0 && r.Text != "" {
		CloseFDs(fds)
		if c.word != nil {
			c.word(r.Text)
		}
		return
	}
	c.mu.Lock()
	if r.ID == 0 {
		if ch := c.procs[r.Proc]; ch != nil {
			delete(c.procs, r.Proc)
			ch <- r.Exit.Exit
		}
		c.mu.Unlock()
		CloseFDs(fds)
		return
	}
	k := c.calls[r.ID]
	if k == nil {
		c.mu.Unlock()
		CloseFDs(fds)
		return
	}
	k.acc = append(k.acc, r.Infos...)
	k.fds = append(k.fds, fds...)
	if r.More {
		c.mu.Unlock()
		return
	}
	delete(c.calls, r.ID)
	r.Infos = k.acc
	abandoned := k.abandoned
	if abandoned == nil {
		k.reply <- *r
	}
	c.mu.Unlock()
	if abandoned != nil {
		abandoned(r, k.fds)
		CloseFDs(k.fds)
	}
}

// Call sends a request and waits for its reply. The descriptors sent stay the
// caller's, those received become the caller's. late, which may be nil, gets
// the reply when ctx ended first.
func (c *Client) Call(ctx context.Context, req *Request, late func(*Reply, []int), fds ...int) (*Reply, []int, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	k := &call{reply: make(chan Reply, 1)}
	c.mu.Lock()
	c.next++
	req.ID = c.next
	c.calls[req.ID] = k
	c.mu.Unlock()
	if err := c.conn.Send(req, fds...); err != nil {
		c.forget(req.ID)
		if errors.Is(err, net.ErrClosed) || isBroken(err) {
			err = fmt.Errorf("%w (%w)", ErrDown, err)
		}
		return nil, nil, err
	}
	select {
	case r := <-k.reply:
		return k.result(&r)
	case <-c.down:
		// Serve may have delivered it before the connection went.
		select {
		case r := <-k.reply:
			return k.result(&r)
		default:
		}
		c.forget(req.ID)
		return nil, nil, ErrDown
	case <-ctx.Done():
		return c.abandon(ctx, req.ID, k, late)
	}
}

func (k *call) result(r *Reply) (*Reply, []int, error) {
	if r.Err != nil {
		CloseFDs(k.fds)
		return nil, nil, r.Err
	}
	return r, k.fds, nil
}

// abandon gives up waiting, unless the reply came at this very moment.
func (c *Client) abandon(ctx context.Context, id uint64, k *call, late func(*Reply, []int)) (*Reply, []int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case r := <-k.reply:
		return k.result(&r)
	default:
	}
	if late == nil {
		late = func(*Reply, []int) {}
	}
	k.abandoned = late
	return nil, nil, ctx.Err()
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.calls[id]; k != nil {
		CloseFDs(k.fds)
		delete(c.calls, id)
	}
}

// Notify sends a request whose reply nobody waits for.
func (c *Client) Notify(req *Request) error {
	req.ID = 0
	return c.conn.Send(req)
}

// Expect registers a command that will be started under the number it returns;
// the channel gets how it ended.
func (c *Client) Expect() (proc uint64, exit <-chan driver.Exit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	ch := make(chan driver.Exit, 1)
	c.procs[c.next] = ch
	return c.next, ch
}

// Unexpect undoes Expect.
func (c *Client) Unexpect(proc uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.procs, proc)
}

func isBroken(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}
