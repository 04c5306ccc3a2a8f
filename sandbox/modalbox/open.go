package modalbox

import (
	"context"
	"errors"
	"sync"
	"time"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Open gives a provider of sandboxes on Modal. It asks Modal nothing yet:
// credentials that are wrong show with the first operation. The caller closes
// the provider, and the client after it.
func Open(client *modal.Client, opts *Options) (*sandbox.Provider, error) {
	if client == nil {
		return nil, errors.New("modalbox: no client; use modal.NewClient")
	}
	p := &provider{client: client}
	if opts != nil {
		p.opts = *opts
	}
	return sandbox.NewProvider(p), nil
}

// provider implements driver.Provider.
type provider struct {
	client *modal.Client
	opts   Options

	mu    sync.Mutex
	found *modal.App // once it is known

	work sync.WaitGroup // clean-ups that go on after their call has returned
}

// app finds the app, making it if need be.
func (p *provider) app(ctx context.Context) (*modal.App, error) {
	p.mu.Lock()
	app := p.found
	p.mu.Unlock()
	if app != nil {
		return app, nil
	}
	app, err := p.client.Apps.FromName(ctx, p.opts.app(), &modal.AppFromNameParams{Environment: p.opts.Environment, CreateIfMissing: true})
	if err != nil {
		return nil, called(ctx, "look up app "+p.opts.app(), err)
	}
	p.mu.Lock()
	p.found = app
	p.mu.Unlock()
	return app, nil
}

// called is wrap for a call whose context may have ended it.
func called(ctx context.Context, op string, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return wrap(op, err)
}

// Close implements driver.Provider.
func (p *provider) Close() error {
	p.work.Wait()
	return nil
}

// cleanupTimeout bounds what is done after a context has ended.
const cleanupTimeout = 30 * time.Second

// detached is a context for cleaning up after ctx.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
}

// Attach implements driver.Provider.
func (p *provider) Attach(ctx context.Context, id string) (driver.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !isSandboxID(id) {
		return nil, driver.ErrNotFound
	}
	sb, err := p.client.Sandboxes.FromID(ctx, id, nil)
	if err != nil {
		return nil, called(ctx, "find sandbox", err)
	}
	b, err := p.adopt(ctx, sb)
	if err != nil {
		_ = sb.Detach()
		return nil, err
	}
	return b, nil
}

// adopt gives the handle of a sandbox that lives.
func (p *provider) adopt(ctx context.Context, sb *modal.Sandbox) (*box, error) {
	rec, err := readRecord(ctx, sb)
	if err != nil {
		return nil, err
	}
	code, err := sb.Poll(ctx, nil)
	switch {
	case err != nil:
		return nil, called(ctx, "look at the sandbox", err)
	case code != nil:
		return nil, driver.ErrEnded
	}
	b := newBox(sb, rec)
	if rec.dir == "" { // not made by this package
		if err := b.askDir(ctx); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	return b, nil
}

// isSandboxID keeps what cannot be an id from being sent.
func isSandboxID(id string) bool {
	if len(id) < 4 || len(id) > 64 || id[:3] != "sb-" {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c != '-' {
			return false
		}
	}
	return true
}

// Lookup implements driver.Provider.
func (p *provider) Lookup(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	sb, err := p.client.Sandboxes.FromName(ctx, p.opts.app(), name, &modal.SandboxFromNameParams{Environment: p.opts.Environment})
	if err != nil {
		return "", called(ctx, "find sandbox by name", err)
	}
	defer sb.Detach() //nolint:errcheck // it never fails
	return sb.SandboxID, nil
}
