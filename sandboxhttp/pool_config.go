package sandboxhttp

import (
	"context"
	"errors"
	"fmt"
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
	tagSecrets = reservedTag + "own-secrets" // it has others than the server's, and no record has them
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

// errSecretsGone is why no successor can be made.
var errSecretsGone = errors.New("the server was started anew, and no longer has the sandbox's own secrets, as environment variables that came with the request")

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
	from := h.base()
	if r.Labels[tagSecrets] != "" {
		if from = h.box(r.Owner, r.ID).own; from == nil {
			return errSecretsGone
		}
	}
	addSecrets(c, from)
	return nil
}

// base is Config.Sandbox, never nil.
func (h *Handler) base() *sandbox.Config {
	if h.config.Sandbox == nil {
		return &sandbox.Config{}
	}
	return h.config.Sandbox
}

// addSecrets puts in what c has no value for, from what it was without secrets.
func addSecrets(c, from *sandbox.Config) {
	for name, secret := range from.Secrets {
		if _, set := c.Secrets[name]; !set {
			c.Secrets[name] = secret
		}
	}
	if has, with := c.Image.Registry, from.Image.Registry; has != nil && with != nil && len(has.Credentials) == 0 {
		registry := *has
		registry.Credentials = with.Credentials
		c.Image.Registry = &registry
	}
	c.Buckets = slices.Clone(c.Buckets)
	for i := range c.Buckets {
		for _, bare := range from.Buckets {
			with := bare
			bare.Credentials = nil
			if reflect.DeepEqual(c.Buckets[i], bare) {
				c.Buckets[i] = with
			}
		}
	}
}

// hasOwnSecrets reports whether a configuration has other secrets than those that
// configure would put into it without them.
func (h *Handler) hasOwnSecrets(c *sandbox.Config) bool {
	again, _ := c.WithoutSecrets()
	again.Secrets = map[string]sandbox.Secret{}
	addSecrets(&again, h.base())
	return !maps.EqualFunc(secretsOf(c), secretsOf(&again), sandbox.Secret.Equal)
}

// secretsOf gives all secrets of a configuration, by where they are.
func secretsOf(c *sandbox.Config) map[string]sandbox.Secret {
	all := map[string]sandbox.Secret{}
	add := func(place string, secrets map[string]sandbox.Secret) {
		for name, secret := range secrets {
			all[place+" "+name] = secret
		}
	}
	add("env", c.Secrets)
	if c.Image.Registry != nil {
		add("registry", c.Image.Registry.Credentials)
	}
	for i, b := range c.Buckets {
		add(fmt.Sprint("bucket ", i), b.Credentials)
	}
	return all
}
