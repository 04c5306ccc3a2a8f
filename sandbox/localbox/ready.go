//go:build unix

package localbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// probeInterval is the pause between attempts when Config.Probe says nothing.
const probeInterval = 100 * time.Millisecond

// WaitReady implements driver.ReadyWaiter. Once it was ready it stays so for
// this handle.
func (b *box) WaitReady(ctx context.Context) error {
	if b.closed.Load() {
		return os.ErrClosed
	}
	if b.probe == nil || b.ready.Load() {
		return b.gone(ctx)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		failed := b.attempt(ctx)
		if failed == nil {
			b.ready.Store(true)
			return nil
		}
		if final(failed) {
			return failed
		}
		timer.Reset(cmp.Or(b.probe.Interval, probeInterval))
		select {
		case <-timer.C:
		case <-b.client.Down():
			return b.lost(ctx, driver.ErrUnavailable)
		case <-ctx.Done():
			return fmt.Errorf("%w; the probe failed last with: %w", ctx.Err(), failed)
		}
	}
}

// gone is nil as long as there is a sandbox to be ready.
func (b *box) gone(ctx context.Context) error {
	select {
	case <-b.client.Down():
		return b.lost(ctx, driver.ErrUnavailable)
	default:
		return ctx.Err()
	}
}

// final reports whether trying again is of no use.
func final(err error) bool {
	for _, end := range []error{driver.ErrEnded, driver.ErrUnavailable, driver.ErrInvalid, os.ErrClosed} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// attempt returns nil when the sandbox is ready.
func (b *box) attempt(ctx context.Context) error {
	if b.probe.Port != 0 {
		c, err := b.Dial(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(b.probe.Port)))
		if err != nil {
			return err
		}
		return c.Close()
	}
	p, err := b.Start(ctx, &driver.Exec{Args: b.probe.Command})
	if err != nil {
		return err
	}
	exit, err := p.Wait(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return errors.Join(err, b.giveUp(ctx, p))
	case err != nil:
		return err
	case exit.Signal != 0:
		return fmt.Errorf("%q was ended by signal %d", b.probe.Command[0], exit.Signal)
	case exit.Code != 0:
		return fmt.Errorf("%q exited with %d", b.probe.Command[0], exit.Code)
	}
	return nil
}

// giveUp ends a probe's command for which nobody waits any more.
func (b *box) giveUp(ctx context.Context, p driver.Process) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerPatience)
	defer cancel()
	return p.Kill(ctx)
}
