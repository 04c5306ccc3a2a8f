package modalbox_test

import (
	"context"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline bounds what should take milliseconds.
const deadline = time.Minute

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// newClient is a client of an emulator of its own.
func newClient(t testing.TB, opts *modaltest.Options) *modal.Client {
	t.Helper()
	s := modaltest.New(t, opts)
	client, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func open(t testing.TB, client *modal.Client) *sandbox.Provider {
	t.Helper()
	p, err := modalbox.Open(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close the provider: %v", err)
		}
	})
	return p
}

// create makes a sandbox that ends with the test.
func create(t testing.TB, p *sandbox.Provider, cfg *sandbox.Config) *sandbox.Sandbox {
	t.Helper()
	sb, err := p.Create(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		if err := sb.Terminate(ctx); err != nil {
			t.Errorf("terminate: %v", err)
		}
		if err := sb.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return sb
}
