package sandboxhttp

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
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
	return !maps.EqualFunc(c.Secrets, h.base().Secrets, sandbox.Secret.Equal)
}
