//go:build !unix

package localbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Open fails: sandboxes of this driver run on Linux, and without isolation on
// other kinds of Unix.
func Open(*Options) (*sandbox.Provider, error) {
	return nil, fmt.Errorf("localbox: %w: only Linux can isolate sandboxes; use a Linux machine or another driver", sandbox.ErrNoIsolation)
}

// Terminate fails, as Open does.
func Terminate(context.Context, *sandbox.Provider, string) error {
	return fmt.Errorf("localbox: terminate: %w", errors.ErrUnsupported)
}
