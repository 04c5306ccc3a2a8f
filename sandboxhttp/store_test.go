package sandboxhttp_test

import (
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/storetest"
)

func TestMemoryStore(t *testing.T) {
	storetest.Exercise(t, func(*testing.T) sandboxhttp.Store { return new(sandboxhttp.MemoryStore) })
}
