//go:build unix

package helper

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// dialPatience bounds a connection to a port inside, which is a matter of
// microseconds unless the other side's queue is full.
const dialPatience = 10 * time.Second

func loopback(address string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return ap, fmt.Errorf("%w: %w", driver.ErrInvalid, err)
	}
	if !ap.Addr().IsLoopback() {
		return ap, fmt.Errorf("%s is not a loopback address: %w", address, driver.ErrInvalid)
	}
	return ap, nil
}

// listen opens a listening socket in the sandbox's network.
func (b *box) listen(address string) (string, []int, error) {
	ap, err := loopback(address)
	if err != nil {
		return "", nil, err
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(ap))
	if err != nil {
		return "", nil, err
	}
	defer l.Close()
	fd, err := descriptor(l.File())
	return l.Addr().String(), fd, err
}

// dial connects to a port in the sandbox's network.
func (b *box) dial(address string) ([]int, error) {
	ap, err := loopback(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialPatience)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", ap.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return descriptor(c.(*net.TCPConn).File())
}

// descriptor takes the descriptor out of f.
func descriptor(f *os.File, err error) ([]int, error) {
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return []int{fd}, nil
}
