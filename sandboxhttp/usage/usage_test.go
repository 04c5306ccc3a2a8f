package usage_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage/usagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	usagetest.Exercise(t, func(*testing.T) (one, other usage.Ledger) {
		m := new(usage.Memory)
		return m, m
	})
}
