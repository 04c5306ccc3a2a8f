package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Options are for Open. Only Provider has to be set.
//
// Hooks are called from several goroutines at once, but for one sandbox by one process
// at a time. They must return when their context ends. After a crash they may be called
// again for what they have done already. The record is theirs to read.
type Options struct {
	// Provider makes the sandboxes. Close does not close it.
	Provider *sandbox.Provider
	// Store keeps the records. nil is a new MemoryStore: the sandboxes of a process
	// that ended are then ended by the next one.
	Store Store
	// Name tells pools that share a provider or a Store apart: up to 63 letters,
	// digits, '.', '_' and '-'. "" is "pool".
	Name string

	// Lifetime is how long a sandbox lives whatever runs in it, where its Config.Timeout
	// is 0. 0 is 24 hours.
	Lifetime time.Duration
	// Idle is how long a sandbox lives unused, where its Config.IdleTimeout is 0. 0
	// is for ever.
	Idle time.Duration
	// Grace is how long before such an end Notify is warned, but half of the limit at
	// most. No end comes earlier than Grace after its warning. 0 is 5 minutes; negative
	// warns of nothing.
	Grace time.Duration
	// Cap is how long the provider lets a sandbox live: 24 hours on Modal. One of a
	// longer lifetime is rolled over before that. 0 is for ever, as on localbox.
	Cap time.Duration
	// Ahead is how long before Cap a rollover may begin. For the first half of it, it
	// waits for the sandbox not to be in use. 0 is an hour, and half of Cap at most.
	Ahead time.Duration

	// Spares are kept ready for Create.
	Spares []Spare
	// SpareAge is how long a spare waits before it is replaced by a new one. 0 is an hour.
	SpareAge time.Duration

	// Admit, if set, is asked before a sandbox is made, with what its record will be;
	// its error is Create's. It may ask for Pool.List to count.
	Admit func(ctx context.Context, r *Record) error
	// Configure, if set, completes what a sandbox is made of just before it is, with
	// secrets for one, which are not in records. The record of a spare has no Owner.
	Configure func(ctx context.Context, r *Record, config *sandbox.Config) error
	// Fill, if set, puts the workspace into a sandbox that is new to its owner: made,
	// claimed, or a successor. When it fails the sandbox is not used.
	Fill func(ctx context.Context, r *Record, sb *sandbox.Sandbox) error
	// Save, if set, saves the workspace before an end that is planned, and before a
	// rollover. When it fails it is called again, and the sandbox is kept for SaveWithin.
	Save func(ctx context.Context, r *Record, sb *sandbox.Sandbox) error
	// SaveTime and FillTime bound one call. 0 is 5 minutes.
	SaveTime, FillTime time.Duration
	// SaveWithin is how long after its end was due a sandbox is kept that cannot be
	// saved. 0 is an hour.
	SaveWithin time.Duration
	// Adopt, if set, is asked for whom a sandbox is that has this pool's tags and no record,
	// because records were lost. It gives the owner and what its record is to say: the
	// Sandbox of config is what a successor would be made of, its ID is taken as it is. The
	// owner "", and nil Adopt, are for nobody: such a sandbox is ended.
	Adopt func(ctx context.Context, info *sandbox.Info) (owner string, config *Config, err error)
	// Notify, if set, is told of warnings and ends. It has half a minute. An event may
	// come twice, after a crash; none is left out.
	Notify func(ctx context.Context, e Event)

	// Keep is how long the record of a terminated sandbox is kept. 0 is 24 hours.
	Keep time.Duration
	// Interval is how often the records are looked at for what other processes did,
	// and Sweep how often the provider is asked what there is. 0 is 15 seconds and a minute.
	Interval, Sweep time.Duration
	// Lease is after what time without a sign of life another process takes over what
	// one was at, and after what time a sandbox that it used counts as idle. 0 is 30 seconds.
	Lease time.Duration
	// Log gets what goes wrong in the background and is tried again. nil is slog.Default.
	Log *slog.Logger
}

// Spare is a kind of sandboxes that are kept ready.
type Spare struct {
	// Config is what they are made of. Create takes one when its own is equal, apart
	// from Timeout and IdleTimeout, and has no Secrets or Credentials.
	Config *sandbox.Config
	N      int // so many
}

// Config is for Pool.Create. The zero value, and nil, give the driver's default image
// and limits.
type Config struct {
	// Sandbox is what it is made of. Its Timeout and IdleTimeout, 0 for the pool's, are
	// kept to by the pool. Name must be empty. Secrets and Credentials are used and not
	// recorded, so where a successor may need them Options.Configure must be set.
	Sandbox *sandbox.Config
	// ID is what the owner knows it by, up to 255 bytes; "" makes one up. One that the
	// caller recorded before is found by Pool.Get after a crash. One that the owner has
	// already, also for a terminated sandbox, makes Create fail with fs.ErrExist.
	ID string
	// Labels are kept in the record.
	Labels map[string]string
}

// The tags on a pool's sandboxes.
const (
	TagPool = "vivarium.pool" // Options.Name
	TagBox  = "vivarium.box"  // Box.Name
)

// Bounds on what the pool itself does.
const (
	notifyTime   = 30 * time.Second
	cleanUpTime  = time.Minute // also for what nobody waits for any more
	awaitEvery   = 250 * time.Millisecond
	maxAtOnce    = 16          // sandboxes worked on in the background
	minOrphanAge = time.Minute // for what no record owns to be ended
	spareLead    = time.Minute // from the making of a spare to the end of the one that it replaces
	maxNameBytes = 255
)

func (o *Options) withDefaults() (*Options, error) {
	if o == nil || o.Provider == nil {
		return nil, fmt.Errorf("%w: Options.Provider is not set", sandbox.ErrInvalid)
	}
	d := *o
	d.Name = cmp.Or(d.Name, "pool")
	d.Lifetime = cmp.Or(d.Lifetime, 24*time.Hour)
	d.Grace = max(cmp.Or(d.Grace, 5*time.Minute), 0)
	d.Ahead = min(cmp.Or(d.Ahead, time.Hour), d.Cap/2)
	d.SpareAge = cmp.Or(d.SpareAge, time.Hour)
	d.SaveTime, d.FillTime = cmp.Or(d.SaveTime, 5*time.Minute), cmp.Or(d.FillTime, 5*time.Minute)
	d.SaveWithin = cmp.Or(d.SaveWithin, time.Hour)
	d.Keep = cmp.Or(d.Keep, 24*time.Hour)
	d.Interval, d.Sweep = cmp.Or(d.Interval, 15*time.Second), cmp.Or(d.Sweep, time.Minute)
	d.Lease = cmp.Or(d.Lease, 30*time.Second)
	if d.Store == nil {
		d.Store = new(MemoryStore)
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	return &d, d.check()
}

func (o *Options) check() error {
	var bad []error
	for name, d := range map[string]time.Duration{
		"Lifetime": o.Lifetime, "Idle": o.Idle, "Cap": o.Cap, "Ahead": o.Ahead, "SpareAge": o.SpareAge, "SaveTime": o.SaveTime,
		"FillTime": o.FillTime, "SaveWithin": o.SaveWithin, "Keep": o.Keep, "Interval": o.Interval, "Sweep": o.Sweep, "Lease": o.Lease,
	} {
		if d < 0 {
			bad = append(bad, fmt.Errorf("Options.%s %v: use 0 or more", name, d))
		}
	}
	if err := (&sandbox.Config{Name: o.Name}).Validate(); err != nil {
		bad = append(bad, fmt.Errorf("Options.Name: %w", err))
	}
	for i, s := range o.Spares {
		if err := checkConfig(s.Config); err != nil {
			bad = append(bad, fmt.Errorf("Options.Spares[%d]: %w", i, err))
		}
		if _, secret := s.Config.WithoutSecrets(); secret {
			bad = append(bad, fmt.Errorf("Options.Spares[%d]: has secrets; give them with Options.Configure", i))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", sandbox.ErrInvalid, errors.Join(bad...))
}

// checkConfig checks what a sandbox is to be made of.
func checkConfig(c *sandbox.Config) error {
	if c == nil {
		return nil
	}
	if c.Name != "" {
		return fmt.Errorf("%w: Name %q: the pool names its sandboxes", sandbox.ErrInvalid, c.Name)
	}
	for _, tag := range []string{TagPool, TagBox} {
		if _, taken := c.Tags[tag]; taken {
			return fmt.Errorf("%w: Tags %q: is the pool's own", sandbox.ErrInvalid, tag)
		}
	}
	return c.Validate()
}
