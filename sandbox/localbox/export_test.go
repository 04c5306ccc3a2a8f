//go:build unix

package localbox

import (
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// SetPatience changes how long an Attach without a deadline waits for an answer.
func SetPatience(p *sandbox.Provider, d time.Duration) { p.Driver().(*provider).patience = d }

// OpenPlain opens as on a machine that cannot isolate.
func OpenPlain(opts *Options) (*sandbox.Provider, error) {
	p, err := openProvider(opts, true)
	if err != nil {
		return nil, err
	}
	return sandbox.NewProvider(p), nil
}
