//go:build unix && !linux

package helper

import (
	"errors"
	"fmt"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

func (b *box) watch(*session, *wire.Request, []int) (wire.Reply, []int, error) {
	return wire.Reply{}, nil, fmt.Errorf("watching files: only on Linux: %w", errors.ErrUnsupported)
}
