package storetest_test

import (
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/storetest"
)

func Example() {
	_ = func(t *testing.T) { // a test of yours
		storetest.Exercise(t, func(t *testing.T) sandboxhttp.Store {
			return new(sandboxhttp.MemoryStore) // or yours, closed by t.Cleanup
		})
	}
	// Output:
}
