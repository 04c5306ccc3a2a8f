//go:build unix && !(linux && (amd64 || arm64))

package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

var errNoLinux = errors.New("only Linux can isolate sandboxes; on another system use Options.AllowUnisolated, a Linux machine, or another driver")

// place is what is known of this machine.
type place struct{}

func (*place) init()  {}
func (*place) leave() {}

func (k *keeper) probe(context.Context) error {
	return fmt.Errorf("%w: %w", driver.ErrNoIsolation, errNoLinux)
}

func (b *box) takeIsolated(*wire.Boot) error {
	return fmt.Errorf("%w: %w", driver.ErrNoIsolation, errNoLinux)
}

func (b *box) mountImage(context.Context, string, *wire.Root) error {
	return &driver.UnsupportedError{Setting: "MountImage", Reason: "plain processes have this machine's files"}
}

func (b *box) unmountImage(ctx context.Context, path string) error {
	return b.mountImage(ctx, path, nil)
}

// newStderr makes a file without a name.
func newStderr() (*os.File, error) {
	f, err := os.CreateTemp("", "localbox")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
