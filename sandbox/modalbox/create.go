package modalbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"time"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

const (
	defaultTimeout = time.Hour // as with localbox; Modal's own is 5 minutes
	maxTimeout     = 24 * time.Hour
	defaultDir     = "/workspace"
)

// Create implements driver.Provider.
func (p *provider) Create(ctx context.Context, cfg *driver.Config) (driver.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := p.create(ctx, cfg)
	if err != nil {
		err = redact(err, secretsOf(cfg)...)
		return nil, err
	}
	return b, nil
}

// secretsOf lists what must not be in an error.
func secretsOf(cfg *driver.Config) []driver.Secrets {
	all := []driver.Secrets{cfg.Secrets}
	if cfg.Image.Registry != nil {
		all = append(all, cfg.Image.Registry.Credentials)
	}
	for _, b := range cfg.Buckets {
		all = append(all, b.Credentials)
	}
	return all
}

func (p *provider) create(ctx context.Context, cfg *driver.Config) (*box, error) {
	if err := check(cfg); err != nil {
		return nil, err
	}
	app, err := p.app(ctx)
	if err != nil {
		return nil, err
	}
	image, err := p.image(ctx, app, &driver.Build{Image: cfg.Image})
	if err != nil {
		return nil, err
	}
	params, err := p.params(ctx, cfg)
	if err != nil {
		return nil, err
	}
	rec := p.record(cfg)
	intent := rand.Text()
	params.Tags = rec.all(intent)
	sb, err := p.make(ctx, app, image, params, intent)
	if err != nil {
		return nil, err
	}
	b := newBox(sb, rec)
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, p.discard(ctx, sb), b.Close())
	}
	return b, nil
}

// check refuses what Modal cannot do, or this package not on Modal.
func check(cfg *driver.Config) error {
	refuse := func(setting, reason string) error {
		return &driver.UnsupportedError{Setting: setting, Reason: reason}
	}
	switch {
	case cfg.Pids != 0:
		return refuse("Pids", "Modal does not limit processes; limit Memory instead, or leave it 0")
	case cfg.Disk != 0:
		return refuse("Disk", "Modal does not limit the disk of a sandbox; leave it 0")
	case len(cfg.Mounts) > 0:
		return refuse("Mounts", "Modal's machines cannot see files of this one; install programs with Image.Commands, "+
			`such as "RUN npm install -g @anthropic-ai/claude-code", and write other files with Sandbox.FS or into a volume`)
	case cfg.Timeout > maxTimeout:
		return fmt.Errorf("%w: Timeout %v: Modal keeps a sandbox for 24 hours at most; take a Snapshot and go on from it", driver.ErrInvalid, cfg.Timeout)
	case len(cfg.Dir) > maxTagValue:
		return fmt.Errorf("%w: Dir has %d bytes, %d are allowed on Modal", driver.ErrInvalid, len(cfg.Dir), maxTagValue)
	}
	if bad := reserved(cfg.Tags); len(bad) > 0 {
		return fmt.Errorf("%w: Tags %q: names that begin with %q are this package's own", driver.ErrInvalid, bad, tagPrefix)
	}
	for _, b := range cfg.Buckets {
		if b.PathStyle {
			return refuse("Buckets.PathStyle", "Modal's Go client cannot ask for it; use an Endpoint that takes the bucket in the host's name")
		}
	}
	if len(cfg.HeaderRules) > 0 && (cfg.Network.Mode == driver.NetworkNone || len(cfg.Network.Domains) > 0) {
		return fmt.Errorf("%w: HeaderRules: Modal wants NetworkFull, or an allowlist of CIDRs only, with them", driver.ErrInvalid)
	}
	return nil
}

// record is what Info will tell.
func (p *provider) record(cfg *driver.Config) *record {
	r := &record{
		name: cfg.Name, dir: cmp.Or(cfg.Dir, defaultDir), created: time.Now().Truncate(time.Millisecond), tags: cfg.Tags,
		timeout: cmp.Or(seconds(cfg.Timeout), defaultTimeout), idle: seconds(cfg.IdleTimeout),
		ports: cfg.Ports, encrypted: p.opts.EncryptedPorts, probe: cfg.Probe != nil,
	}
	return r
}

// seconds rounds up to what Modal can count.
func seconds(d time.Duration) time.Duration {
	return time.Duration(math.Ceil(d.Seconds())) * time.Second
}

// createTimeout bounds a creation that nobody waits for any more. The client
// itself waits so long for a GPU.
const createTimeout = 22 * time.Minute

// reclaimPatience is how long a creation that was cancelled waits until its
// sandbox is gone; after that the rest happens in the background.
const reclaimPatience = 5 * time.Second

type made struct {
	sb  *modal.Sandbox
	err error
}

// make makes the sandbox. The request is not cancelled with ctx, because then
// nobody would know whether there is a sandbox: it is awaited, and the sandbox
// terminated.
func (p *provider) make(ctx context.Context, app *modal.App, image *modal.Image, params *modal.SandboxCreateParams, intent string) (*modal.Sandbox, error) {
	done := make(chan made, 1)
	p.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
		defer cancel()
		sb, err := p.client.Sandboxes.Create(ctx, app, image, params)
		if err != nil && !isDefinite(err) {
			sb, err = p.reclaim(ctx, app, intent, err)
		}
		done <- made{sb, err}
	})
	select {
	case m := <-done:
		return m.sb, called(ctx, "create sandbox", m.err)
	case <-ctx.Done():
	}
	gone := make(chan struct{})
	p.work.Go(func() {
		defer close(gone)
		if m := <-done; m.sb != nil {
			_ = p.discard(ctx, m.sb) // it ends by its Timeout then
		}
	})
	timer := time.NewTimer(reclaimPatience)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
	}
	return nil, ctx.Err()
}

// reclaim looks for a sandbox whose answer was lost.
func (p *provider) reclaim(ctx context.Context, app *modal.App, intent string, lost error) (*modal.Sandbox, error) {
	all, err := p.client.Sandboxes.List(ctx, &modal.SandboxListParams{
		AppID: app.AppID, Tags: map[string]string{tagIntent: intent}, Environment: p.opts.Environment})
	if err != nil {
		return nil, errors.Join(lost, err)
	}
	for sb, err := range all {
		if err != nil {
			return nil, fmt.Errorf("%w; whether a sandbox was made is not known, its tag is %s=%s: %w", lost, tagIntent, intent, err)
		}
		return sb, nil
	}
	return nil, lost
}

// discard ends a sandbox that nobody gets a handle on.
func (p *provider) discard(ctx context.Context, sb *modal.Sandbox) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	err := insist(ctx, func() error { _, err := sb.Terminate(ctx, nil); return err })
	_ = sb.Detach()
	if kindOf(err) == driver.ErrNotFound {
		err = nil
	}
	return called(ctx, "terminate sandbox "+sb.SandboxID, err)
}
