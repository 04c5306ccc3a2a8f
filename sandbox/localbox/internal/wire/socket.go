//go:build unix

package wire

import (
	"context"
	"fmt"
	"net"
	"os"
)

// Listener makes a listener of the one descriptor that came with a reply.
func Listener(fds []int) (net.Listener, error) {
	f, err := file(fds, "listener")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

// Dial connects to an address inside.
func (c *Client) Dial(ctx context.Context, address string) (net.Conn, error) {
	_, fds, err := c.Call(ctx, &Request{Op: OpDial, Path: address}, nil)
	if err != nil {
		return nil, err
	}
	f, err := file(fds, "connection")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileConn(f)
}

func file(fds []int, name string) (*os.File, error) {
	if len(fds) != 1 {
		CloseFDs(fds)
		return nil, fmt.Errorf("%d descriptors came with a %s", len(fds), name)
	}
	return os.NewFile(uintptr(fds[0]), name), nil
}
