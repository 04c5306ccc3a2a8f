package sqlstore_test

import (
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage/usagetest"
)

// Two servers have a store each, with a *sql.DB of its own.
func TestLedger(t *testing.T) {
	for name, empty := range databases {
		t.Run(name, func(t *testing.T) {
			usagetest.Exercise(t, func(t *testing.T) (one, other usage.Ledger) {
				d := empty(t)
				return d.open(t).Ledger(), d.open(t).Ledger()
			})
		})
	}
}
