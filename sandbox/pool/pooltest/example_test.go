package pooltest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandbox/pool/pooltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryStore(t *testing.T) {
	pooltest.Exercise(t, func(*testing.T) pool.Store { return new(pool.MemoryStore) })
}

func Example() {
	_ = func(t *testing.T) { // a test of yours
		pooltest.Exercise(t, func(t *testing.T) pool.Store {
			return new(pool.MemoryStore) // or yours, closed by t.Cleanup
		})
	}
	// Output:
}
