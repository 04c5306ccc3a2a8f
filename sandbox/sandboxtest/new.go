package sandboxtest

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// NewOptions changes what New and NewProvider make. The zero value, and nil,
// give the driver's defaults.
type NewOptions struct {
	// Config is what the sandbox is made of. New only; its Timeout defaults to
	// ten minutes.
	Config sandbox.Config
	// AllowUnisolated goes on with plain processes on a machine that cannot
	// isolate; otherwise the test is skipped there. What the test runs then
	// has all that this user has.
	AllowUnisolated bool
}

// cleanUpTimeout bounds what happens when a test has ended.
const cleanUpTimeout = time.Minute

// New gives a test a ready sandbox of its own on this machine (package
// sandbox/localbox), without network and account. It is terminated when the
// test ends. On a machine that cannot isolate it the test is skipped, with the
// reason, unless AllowUnisolated. opts may be nil.
func New(t testing.TB, opts *NewOptions) *sandbox.Sandbox {
	t.Helper()
	var config sandbox.Config
	if opts != nil {
		config = opts.Config
	}
	if config.Timeout == 0 {
		config.Timeout = 10 * time.Minute
	}
	sb, err := NewProvider(t, opts).Create(t.Context(), &config)
	if err != nil {
		t.Fatalf("sandboxtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), cleanUpTimeout)
		defer stop()
		if err := errors.Join(sb.Terminate(ctx), sb.Close()); err != nil {
			t.Errorf("sandboxtest: %v", err)
		}
	})
	return sb
}

// NewProvider gives a test a provider of its own, as New does. When the test
// ends every sandbox that is left in it is terminated, and it is closed.
func NewProvider(t testing.TB, opts *NewOptions) *sandbox.Provider {
	t.Helper()
	dir, err := os.MkdirTemp("", "sandboxtest-")
	if err != nil {
		t.Fatalf("sandboxtest: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("sandboxtest: %v", err)
		}
	})
	p, err := localbox.Open(&localbox.Options{Dir: dir, AllowUnisolated: opts != nil && opts.AllowUnisolated})
	if errors.Is(err, sandbox.ErrNoIsolation) {
		t.Skipf("sandboxtest: sandboxes are not possible here: %v", err)
	}
	if err != nil {
		t.Fatalf("sandboxtest: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(endAll(p), p.Close()); err != nil {
			t.Errorf("sandboxtest: %v", err)
		}
	})
	return p
}

// endAll terminates every sandbox of a provider.
func endAll(p *sandbox.Provider) error {
	ctx, stop := context.WithTimeout(context.Background(), cleanUpTimeout)
	defer stop()
	var errs []error
	for info, err := range p.List(ctx, nil) {
		if err != nil {
			errs = append(errs, err)
			break
		}
		sb, err := p.Attach(ctx, info.ID)
		if errors.Is(err, sandbox.ErrEnded) || errors.Is(err, sandbox.ErrNotFound) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, sb.Terminate(ctx), sb.Close())
	}
	return errors.Join(errs...)
}
