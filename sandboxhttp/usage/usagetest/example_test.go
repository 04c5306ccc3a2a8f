package usagetest_test

import (
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage/usagetest"
)

func Example() {
	_ = func(t *testing.T) { // a test of yours
		usagetest.Exercise(t, func(t *testing.T) (one, other usage.Ledger) {
			memory := new(usage.Memory) // or yours twice, closed by t.Cleanup
			return memory, memory
		})
	}
	// Output:
}
