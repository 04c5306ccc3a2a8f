//go:build unix

package localbox

import "github.com/vivarium-go/vivarium/sandbox"

// OpenPlain opens as on a machine that cannot isolate.
func OpenPlain(opts *Options) (*sandbox.Provider, error) {
	p, err := openProvider(opts, true)
	if err != nil {
		return nil, err
	}
	return sandbox.NewProvider(p), nil
}
