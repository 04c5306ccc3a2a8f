package sandboxhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/storage"
)

// The tags by which a sandbox is known again when its record is lost, which are also the
// labels of the pool's record.
const (
	tagID      = reservedTag + "id"
	tagAccount = reservedTag + "account"
	tagName    = reservedTag + "name"
	tagVolume  = reservedTag + "volume"
	tagBucket  = reservedTag + "own-bucket"
	tagEnv     = reservedTag + "own-env" // it has other secrets than the server's, which no record has
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
			c.Tags = nil
			s.Config = withoutSecrets(c)
		}
		filled = append(filled, s)
	}
	return filled, nil
}

// labels is what the tags say of a record.
func labels(rec *Sandbox) map[string]string {
	tags := maps.Clone(rec.Tags)
	tags[tagID], tags[tagAccount] = rec.ID, rec.Account
	for tag, text := range map[string]string{tagName: rec.Name, tagVolume: rec.VolumeName} {
		if text != "" {
			tags[tag] = text
		}
	}
	if rec.OwnBucket {
		tags[tagBucket] = "1"
	}
	return tags
}

// withoutSecrets leaves out what configure puts in.
func withoutSecrets(c *sandbox.Config) *sandbox.Config {
	bare := *c
	bare.Secrets = nil
	if r := bare.Image.Registry; r != nil {
		registry := *r
		registry.Credentials = nil
		bare.Image.Registry = &registry
	}
	bare.Buckets = slices.Clone(bare.Buckets)
	for i := range bare.Buckets {
		bare.Buckets[i].Credentials = nil
	}
	return &bare
}

// errEnvGone is why no successor can be made.
var errEnvGone = errors.New("the server was started anew, and no longer has the environment variables that came with the request")

// configure completes what a sandbox is made of with its tags, and with the secrets, of
// which records have none.
func (h *Handler) configure(ctx context.Context, r *pool.Record, c *sandbox.Config) error {
	if h.hooks.configure != nil {
		if err := h.hooks.configure(ctx, r, c); err != nil {
			return err
		}
	}
	for tag, text := range r.Labels {
		if _, set := c.Tags[tag]; !set || strings.HasPrefix(tag, reservedTag) {
			c.Tags[tag] = text
		}
	}
	var b *box
	if r.Owner != "" {
		b = h.box(r.Owner, r.ID)
	}
	if b != nil && b.creation != nil && b.making() && !b.creation.bare {
		return nil // it is whole, as Config.Admit has left it
	}
	base := h.base()
	secrets := base.Secrets
	if r.Labels[tagEnv] != "" {
		if secrets = b.secrets; secrets == nil {
			return errEnvGone
		}
	}
	for name, secret := range secrets {
		if _, set := c.Secrets[name]; !set {
			c.Secrets[name] = secret
		}
	}
	addCredentials(c, base)
	return nil
}

// base is Config.Sandbox, never nil.
func (h *Handler) base() *sandbox.Config {
	if h.config.Sandbox == nil {
		return &sandbox.Config{}
	}
	return h.config.Sandbox
}

// addCredentials puts those of the server's own registry and buckets where they are used.
func addCredentials(c, base *sandbox.Config) {
	if has, own := c.Image.Registry, base.Image.Registry; has != nil && own != nil && len(has.Credentials) == 0 {
		registry := *has
		registry.Credentials = own.Credentials
		c.Image.Registry = &registry
	}
	c.Buckets = slices.Clone(c.Buckets)
	for i := range c.Buckets {
		for _, own := range base.Buckets {
			with := own
			own.Credentials = nil
			if reflect.DeepEqual(c.Buckets[i], own) {
				c.Buckets[i] = with
			}
		}
	}
}

// ownSecrets reports whether a configuration has other secrets than the server's.
func (h *Handler) ownSecrets(c *sandbox.Config) bool {
	return !maps.EqualFunc(c.Secrets, h.base().Secrets, func(a, b sandbox.Secret) bool { return a.Reveal() == b.Reveal() })
}

// adoptBox makes the record of a sandbox that outlived its own.
func (h *Handler) adoptBox(ctx context.Context, info *sandbox.Info) (account string, config *pool.Config, err error) {
	account, id := info.Tags[tagAccount], info.Tags[tagID]
	if account == "" || id == "" {
		return "", nil, nil
	}
	rec, err := h.store.Sandbox(ctx, account, id)
	if errors.Is(err, ErrNotFound) {
		rec = foundRecord(info.Tags)
		rec.ProviderID, rec.CreatedAt = info.ID, info.CreatedAt.UTC()
		rec.present(info)
		err = h.addFound(ctx, rec)
	}
	switch {
	case err != nil:
		return "", nil, err
	case rec.State == StateEnded:
		return "", nil, nil
	}
	own := maps.Clone(info.Tags)
	maps.DeleteFunc(own, func(tag, _ string) bool { return tag == pool.TagPool || tag == pool.TagBox })
	config = &pool.Config{ID: id, Labels: own, Sandbox: &sandbox.Config{}}
	if h.config.Sandbox != nil {
		*config.Sandbox = *h.config.Sandbox
		config.Sandbox.Name, config.Sandbox.Tags = "", nil
	}
	if rec.VolumeName == "" && h.spans.most > 0 {
		config.Sandbox.Timeout = min(cmp.Or(config.Sandbox.Timeout, h.spans.life), h.spans.most)
	}
	return account, config, nil
}

// notified takes over what the pool tells.
func (h *Handler) notified(ctx context.Context, e pool.Event) {
	var err error
	switch e.Kind {
	case pool.EventEnded:
		err = h.ended(ctx, e.Record.Owner, e.Record.ID, e.Reason, e.At, e.Saved)
	case pool.EventRolledOver:
		err = h.change(ctx, e.Record.Owner, e.Record.ID, func(rec *Sandbox) bool {
			rec.ProviderID = e.Record.Box.ID
			return true
		})
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		h.log.Error("cannot record what became of a sandbox; it is seen when somebody looks at it", "sandbox", e.Record.ID, "error", err)
	}
	if h.hooks.notify == nil {
		return
	}
	err = guarded(func() error {
		h.hooks.notify(ctx, e)
		return nil
	})
	if err != nil {
		h.log.Error("Config.Pool.Notify panicked", "error", err)
	}
}

// guarded makes an error of a panic: other hooks of the configuration run in there.
func guarded(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return fn()
}

// saveBeforeEnd saves what is to end, or to go on elsewhere, without anybody who asked.
func (h *Handler) saveBeforeEnd(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
	rec, err := h.recordOf(ctx, r)
	if err != nil {
		return err
	}
	if rec.VolumeName == "" {
		return nil // there is nowhere to
	}
	b := h.box(r.Owner, r.ID)
	why := &reason{text: "the sandbox came to its end: " + string(r.End), is: context.Canceled, end: claude.End(r.End)}
	if r.State == pool.StateStopping {
		b.stopRuns(why, nil)
		err = b.awaitWork(ctx)
	} else if err = h.mayMove(ctx, b, rec, r); err == nil {
		why = &reason{text: "another sandbox took over, before this one had to end", is: context.Canceled, end: claude.EndLifetime}
		b.stopRuns(why, func(r *run) bool { return r.inUse.Load() }) // others wait for the successor
	}
	if err != nil {
		return err
	}
	counted := h.countTransfer(ctx, r.Owner, r.ID, usage.KindSave)
	defer counted.end()
	v, err := bounded(ctx, func(ctx context.Context) (*storage.Version, error) {
		v, _, err := b.save(ctx, sb, saveOptions{note: why.text})
		return v, err
	})
	counted.saved(v)
	return err
}

// lastSave is how long before the provider's end a sandbox is saved that has no successor.
const lastSave = 10 * time.Minute

var errRestoring = errors.New("a version is being restored into the sandbox")

// mayMove says why another sandbox cannot take over now: then nothing is stopped for it.
func (h *Handler) mayMove(ctx context.Context, b *box, rec *Sandbox, r *pool.Record) error {
	if b.restoring() {
		return errRestoring // half of it would be saved
	}
	if r.Labels[tagEnv] != "" && b.secrets == nil && time.Until(r.Box.ExpiresAt) > lastSave {
		return errEnvGone
	}
	_, err := b.open(ctx, rec)
	return err
}

// fill puts the newest version of its volume into a sandbox, or into a successor what the
// one before held.
func (h *Handler) fill(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
	b := h.box(r.Owner, r.ID)
	if c := b.creation; c != nil && b.making() {
		return h.furnish(ctx, c, sb)
	}
	rec, err := h.store.Sandbox(ctx, r.Owner, r.ID)
	if errors.Is(err, ErrNotFound) || err == nil && rec.VolumeName == "" {
		return nil
	}
	if err != nil {
		return err
	}
	volume, err := b.open(ctx, rec)
	if err != nil {
		return err
	}
	v, err := bounded(ctx, func(ctx context.Context) (*storage.Version, error) {
		if rec.Version != nil {
			return nil, volume.Restore(ctx, sb, sb.Dir(), rec.Version.ID)
		}
		return volume.InitVersion(ctx, sb, sb.Dir())
	})
	if err == nil && v != nil {
		err = b.recordFiles(ctx, v, v.ID)
	}
	return err
}
