//go:build unix

package localbox

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// probePatience bounds the attempt to isolate that Open makes.
const probePatience = 30 * time.Second

// isolates is set once this process has seen that the machine can isolate.
var isolates atomic.Bool

// Open opens the sandboxes of this machine. opts may be nil. The caller closes
// the provider; the sandboxes go on.
//
// Where the machine cannot isolate sandboxes the error matches
// sandbox.ErrNoIsolation and names what to do, unless Options.AllowUnisolated.
func Open(opts *Options) (*sandbox.Provider, error) {
	p, err := openProvider(opts, false)
	if err != nil {
		return nil, fmt.Errorf("localbox: %w", err)
	}
	return sandbox.NewProvider(p), nil
}

// provider implements driver.Provider.
type provider struct {
	dir      *state.Dir
	plain    bool
	patience time.Duration // for an answer to Attach, when its context sets no limit

	log    *slog.Logger
	warned sync.Once

	mu     sync.Mutex
	image  imageStore
	keep   *keeperConn
	closed bool
}

// openProvider opens; plain skips the attempt to isolate.
func openProvider(opts *Options, plain bool) (*provider, error) {
	if opts == nil {
		opts = &Options{}
	}
	path, err := opts.dir()
	if err != nil {
		return nil, err
	}
	dir, err := state.Open(path)
	if err != nil {
		return nil, err
	}
	p := &provider{dir: dir, plain: plain, patience: answerPatience, log: opts.Log, image: imageStore{opts: opts.Images}}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if err := dir.Sweep(); err != nil {
		p.log.Warn("something of sandboxes that have ended is left", "dir", path, "reason", err)
	}
	if plain || isolates.Load() {
		return p, nil
	}
	err = p.probe()
	switch {
	case err == nil:
		isolates.Store(true)
	case opts.AllowUnisolated && errors.Is(err, driver.ErrNoIsolation):
		p.plain = true
		p.log.Warn("sandboxes are not isolated", "reason", err)
	default:
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *provider) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), probePatience)
	defer cancel()
	k, err := p.keeper()
	if err != nil {
		return err
	}
	return k.probe(ctx)
}

// keeper gives the running keeper, starting one when there is none.
func (p *provider) keeper() (*keeperConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, os.ErrClosed
	}
	if p.keep != nil && !p.keep.isDown() {
		return p.keep, nil
	}
	k, err := startKeeper(p.dir.Path())
	if err != nil {
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	p.keep = k
	return k, nil
}

// Create implements driver.Provider.
func (p *provider) Create(ctx context.Context, cfg *driver.Config) (driver.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	id, err := p.create(ctx, cfg)
	if errors.Is(err, errKeeperGone) {
		// It ended before that was noticed here, and what it had begun with it.
		id, err = p.create(ctx, cfg)
	}
	if id == "" {
		return nil, err
	}
	// From here on it exists: it is handed out, or ended.
	if err == nil {
		var b *box
		if b, err = p.attach(ctx, id); err == nil {
			p.warn(id)
			return b, nil
		}
	}
	return nil, errors.Join(err, p.abandon(id))
}

func (p *provider) create(ctx context.Context, cfg *driver.Config) (id string, err error) {
	root, err := p.imageRoot(ctx, cfg)
	if err != nil {
		return "", err
	}
	k, err := p.keeper()
	if err != nil {
		return "", err
	}
	return k.create(ctx, &wire.KeeperRequest{Plain: p.plain, Config: *cfg, Root: root})
}

// warn logs, the first time, what is not enforced.
func (p *provider) warn(id string) {
	p.warned.Do(func() {
		rec, err := p.dir.Read(id)
		if err != nil || len(rec.Info.Unenforced) == 0 {
			return
		}
		args := make([]any, 0, 2*len(rec.Info.Unenforced))
		for limit, reason := range rec.Info.Unenforced {
			args = append(args, limit, reason)
		}
		p.log.Warn("limits of sandboxes are not enforced on this machine", args...)
	})
}

// abandonPatience bounds the clean-up of a creation that was given up.
const abandonPatience = 30 * time.Second

func (p *provider) abandon(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), abandonPatience)
	defer cancel()
	err := p.Terminate(ctx, id)
	if errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	return err
}

// Terminate ends a sandbox of a provider that Open has made without attaching
// to it first: also one that is too busy, or too broken, to answer an Attach. It
// returns when everything of it is removed; a sandbox that has ended already is
// no error. An unknown id matches sandbox.ErrNotFound, a provider of another
// driver errors.ErrUnsupported, and a sandbox that has not ended within seconds
// sandbox.ErrUnavailable.
func Terminate(ctx context.Context, p *sandbox.Provider, id string) error {
	d, ok := p.Driver().(*provider)
	if !ok {
		return fmt.Errorf("localbox: terminate %s: %w", id, errors.ErrUnsupported)
	}
	if err := d.Terminate(ctx, id); err != nil {
		return fmt.Errorf("localbox: terminate %s: %w", id, err)
	}
	return nil
}

// Terminate ends a sandbox without attaching to it.
func (p *provider) Terminate(ctx context.Context, id string) error {
	rec, err := p.dir.Check(id)
	if rec == nil {
		return err
	}
	if rec.Info.State == driver.StateEnded {
		return err
	}
	return (&box{id: id, dir: p.dir}).terminate(ctx)
}

// Attach implements driver.Provider.
func (p *provider) Attach(ctx context.Context, id string) (driver.Sandbox, error) {
	b, err := p.attach(ctx, id)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Lookup implements driver.Provider.
func (p *provider) Lookup(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return p.dir.Lookup(name)
}

// List implements driver.Provider.
func (p *provider) List(ctx context.Context, filter *driver.Filter) iter.Seq2[*driver.Info, error] {
	return func(yield func(*driver.Info, error) bool) {
		ids, err := p.dir.IDs()
		if err != nil {
			yield(nil, err)
			return
		}
		for _, id := range ids {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			rec, err := p.dir.Check(id)
			if errors.Is(err, driver.ErrNotFound) {
				continue // being made, or forgotten
			}
			if rec == nil {
				yield(nil, err)
				return
			}
			if matches(&rec.Info, filter) && !yield(&rec.Info, nil) {
				return
			}
		}
	}
}

func matches(info *driver.Info, filter *driver.Filter) bool {
	if filter == nil {
		return info.State == driver.StateRunning
	}
	for k, v := range filter.Tags {
		if got, ok := info.Tags[k]; !ok || got != v {
			return false
		}
	}
	return filter.Ended || info.State == driver.StateRunning
}

// Close implements driver.Provider.
func (p *provider) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.keep == nil {
		return nil
	}
	k := p.keep
	p.keep = nil
	return k.close()
}
