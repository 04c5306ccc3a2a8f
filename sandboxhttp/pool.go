package sandboxhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// openPool opens what makes, keeps and ends the sandboxes.
func (h *Handler) openPool() error {
	var opts pool.Options
	if h.config.Pool != nil {
		opts = *h.config.Pool
	}
	if h.durable && opts.Store == nil {
		return errors.New("sandboxhttp: Config.Store is set, and Config.Pool.Store is not: sandboxes and their records must be kept as long")
	}
	h.hooks.configure, h.hooks.notify = opts.Configure, opts.Notify
	h.spans.life = cmp.Or(opts.Lifetime, defaultLifetime)
	opts.Provider, opts.Log = h.config.Provider, cmp.Or(opts.Log, h.log)
	opts.Admit, opts.Adopt, opts.Notify = nil, h.adoptBox, h.notified
	opts.Configure = func(ctx context.Context, r *pool.Record, c *sandbox.Config) error {
		return guarded(func() error { return h.configure(ctx, r, c) })
	}
	opts.Fill = func(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
		return guarded(func() error { return h.fill(ctx, r, sb) })
	}
	opts.Save = func(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
		return guarded(func() error { return h.saveBeforeEnd(ctx, r, sb) })
	}
	most := h.limits.SyncTime + cleanUpTime // the hooks end by themselves before
	opts.SaveTime, opts.FillTime = cmp.Or(opts.SaveTime, most), cmp.Or(opts.FillTime, most)
	opts.Grace, opts.Keep = cmp.Or(opts.Grace, defaultGrace), cmp.Or(opts.Keep, defaultKeep)
	h.spans.most = h.longest(&opts)
	spares, err := h.spares(opts.Spares)
	if err != nil {
		return err
	}
	opts.Spares = spares
	ctx, stop := context.WithTimeout(context.Background(), cleanUpTime)
	defer stop()
	if h.pool, err = pool.Open(ctx, &opts); err != nil {
		return fmt.Errorf("sandboxhttp: %w", err)
	}
	return nil
}

// What package pool has where nothing else is said.
const (
	defaultLifetime = 24 * time.Hour
	defaultGrace    = 5 * time.Minute
)

// defaultKeep is how long the pool's records are kept: the handler's tell of what ended.
const defaultKeep = time.Hour

// spans are what bounds the life of sandboxes.
type spans struct {
	life time.Duration // where nothing else is asked for
	most time.Duration // without a volume: nothing would come along to a successor; 0 is no bound
}

func (h *Handler) longest(opts *pool.Options) time.Duration {
	if opts.Cap == 0 {
		return 0
	}
	return max(opts.Cap-max(opts.Grace, 0)-opts.SaveTime, opts.Cap/2)
}

// keepTo bounds how long a sandbox without a volume lives.
func (s *spans) keepTo(q *createRequest, c *sandbox.Config) error {
	if s.most == 0 || q.volume != "" || cmp.Or(c.Timeout, s.life) <= s.most {
		return nil
	}
	if q.timeout > 0 {
		return newProblem(http.StatusUnprocessableEntity, codeValidationFailed, "some fields cannot be taken as they are").field("timeout_seconds",
			fmt.Sprintf("use %d at most, or give a volume_name: with a volume another sandbox can take over", int64(s.most.Seconds())))
	}
	c.Timeout = s.most
	return nil
}

// spares are what requests ask for as a rule, where nothing else is said.
func (h *Handler) spares(list []pool.Spare) ([]pool.Spare, error) {
	filled := make([]pool.Spare, 0, len(list))
	for _, s := range list {
		if s.Config == nil {
			c, err := new(createRequest).config(h.config.Sandbox)
			if err != nil {
				return nil, err
			}
			bare, _ := c.WithoutSecrets() // configure puts them in
			bare.Tags = nil
			s.Config = &bare
		}
		filled = append(filled, s)
	}
	return filled, nil
}
