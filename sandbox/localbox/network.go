//go:build unix

package localbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// SetNetwork implements driver.NetworkSetter. What is open to where the sandbox
// may not go any more is cut; commands that run already have the environment
// they were started with.
func (b *box) SetNetwork(ctx context.Context, n driver.Network) error {
	return b.atDesk(ctx, &wire.KeeperRequest{Op: wire.KeeperSetNetwork, Config: driver.Config{Network: n}})
}

// atDesk asks something of the keeper that only it can do.
func (b *box) atDesk(ctx context.Context, req *wire.KeeperRequest) error {
	if err := b.gone(ctx); err != nil {
		return err
	}
	uc, err := b.dir.DialDesk(b.id)
	if err != nil {
		return b.refused(ctx, err)
	}
	conn := wire.NewConn(uc)
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = uc.SetDeadline(time.Unix(1, 0)) })()
	err = conn.Send(req)
	var reply wire.KeeperReply
	if err == nil {
		_, err = conn.Receive(&reply)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET), errors.Is(err, net.ErrClosed):
		return b.lost(ctx, err)
	case err != nil:
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	case reply.Err != nil:
		return reply.Err
	}
	return nil
}
