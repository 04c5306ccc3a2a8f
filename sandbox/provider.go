package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Provider makes and finds sandboxes in one place. A driver's package opens
// one. Its methods are safe for concurrent use.
type Provider struct{ driver driver.Provider }

// NewProvider gives the portable form of a driver. Driver packages call it, and
// tests that put something around a driver.
func NewProvider(d driver.Provider) *Provider { return &Provider{driver: d} }

// Driver returns what the provider was made from, for wrapping it.
func (p *Provider) Driver() driver.Provider { return p.driver }

// String names the driver.
func (p *Provider) String() string { return fmt.Sprintf("sandbox provider %T", p.driver) }

// Format writes String for every verb, so that nothing the driver holds is printed.
func (p *Provider) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// Create makes a sandbox and returns when commands can be started in it. A nil
// config is the zero one. When it fails nothing is left behind.
//
// The sandbox lives until Terminate, its Timeout or its IdleTimeout, also when
// this process ends first.
func (p *Provider) Create(ctx context.Context, config *Config) (*Sandbox, error) {
	cfg, err := config.lower()
	if err != nil {
		return nil, wrap("create", "", err)
	}
	d, err := p.driver.Create(ctx, cfg)
	if err != nil {
		return nil, wrap("create", "", err)
	}
	sb, err := p.open(ctx, d)
	if err != nil {
		return nil, errors.Join(err, discard(ctx, d))
	}
	return sb, nil
}

// discard ends a sandbox that nobody will get a handle on.
func discard(ctx context.Context, d driver.Sandbox) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer stop()
	return wrap("terminate", d.ID(), errors.Join(d.Terminate(ctx), d.Close()))
}

// Attach finds a running sandbox by its id, whichever process made it. An
// unknown id matches ErrNotFound, one that has ended ErrEnded.
func (p *Provider) Attach(ctx context.Context, id string) (*Sandbox, error) {
	d, err := p.driver.Attach(ctx, id)
	if err != nil {
		return nil, wrap("attach", id, err)
	}
	sb, err := p.open(ctx, d)
	if err != nil {
		return nil, errors.Join(err, wrap("close", id, d.Close()))
	}
	return sb, nil
}

// AttachName finds a running sandbox by its Config.Name.
func (p *Provider) AttachName(ctx context.Context, name string) (*Sandbox, error) {
	id, err := p.driver.Lookup(ctx, name)
	if err != nil {
		return nil, wrap("attach to name "+name, "", err)
	}
	return p.Attach(ctx, id)
}

// ListOptions narrows a List. The zero value, and nil, match every running sandbox.
type ListOptions struct {
	Tags  map[string]string // only those that have all of these
	Ended bool              // also those that have ended, as far as still known
}

// List yields the sandboxes that match, in no promised order. It is lazy and
// may be ranged over again, which asks again. An error is the last thing it yields.
func (p *Provider) List(ctx context.Context, opts *ListOptions) iter.Seq2[*Info, error] {
	filter := &driver.Filter{}
	if opts != nil {
		filter.Tags, filter.Ended = maps.Clone(opts.Tags), opts.Ended
	}
	return func(yield func(*Info, error) bool) {
		for info, err := range p.driver.List(ctx, filter) {
			if err != nil {
				yield(nil, wrap("list", "", err))
				return
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Terminate ends a sandbox by its id, also one that does not answer an Attach
// where the driver can do that. It is Sandbox.Terminate otherwise. An unknown id
// matches ErrNotFound; one that has ended already is no error.
func (p *Provider) Terminate(ctx context.Context, id string) error {
	if d, ok := p.driver.(driver.Terminator); ok {
		return wrap("terminate", id, d.Terminate(ctx, id))
	}
	sb, err := p.driver.Attach(ctx, id)
	if errors.Is(err, ErrEnded) {
		return nil
	}
	if err != nil {
		return wrap("attach", id, err)
	}
	return wrap("terminate", id, errors.Join(sb.Terminate(ctx), sb.Close()))
}

// DeleteSnapshot deletes what Sandbox.Snapshot saved. Sandboxes made from it go
// on. An unknown id matches ErrNotFound.
func (p *Provider) DeleteSnapshot(ctx context.Context, id string) error {
	d, ok := p.driver.(driver.SnapshotDeleter)
	if !ok {
		return wrap("delete snapshot", "", errors.ErrUnsupported)
	}
	return wrap("delete snapshot "+id, "", d.DeleteSnapshot(ctx, id))
}

// Close lets go of what the provider holds in this process; sandboxes go on.
func (p *Provider) Close() error { return wrap("close provider", "", p.driver.Close()) }

// open asks once for what never changes.
func (p *Provider) open(ctx context.Context, d driver.Sandbox) (*Sandbox, error) {
	info, err := d.Info(ctx)
	if err != nil {
		return nil, wrap("info", d.ID(), err)
	}
	return &Sandbox{driver: d, dir: info.Dir}, nil
}
