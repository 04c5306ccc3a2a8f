//go:build unix && !linux

package localbox

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Watch implements driver.Watcher: it is not supported.
func (b *box) Watch(context.Context, string, bool) (iter.Seq2[driver.Change, error], error) {
	return nil, fmt.Errorf("watching files: only on Linux: %w", errors.ErrUnsupported)
}
