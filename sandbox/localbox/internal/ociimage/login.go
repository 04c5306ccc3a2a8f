//go:build linux

package ociimage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func (s *Store) transport() http.RoundTripper {
	base := s.opts.Transport
	if base == nil {
		base = remote.DefaultTransport
	}
	return &resuming{base: base, stall: s.opts.Stall}
}

// login says how to log in. This user's own Docker login is used only if asked for.
func (s *Store) login(reg name.Registry, r *driver.Registry) (authn.Authenticator, error) {
	switch {
	case r == nil && s.opts.DockerLogin:
		return authn.DefaultKeychain.Resolve(reg)
	case r == nil:
		return authn.Anonymous, nil
	case r.SecretName != "":
		return nil, &driver.UnsupportedError{Setting: "Image.Registry.SecretName", Reason: "this machine keeps no secrets; use Credentials"}
	}
	switch r.Kind {
	case driver.RegistryPassword:
		return basic(credential(r, "REGISTRY_USERNAME"), credential(r, "REGISTRY_PASSWORD")), nil
	case driver.RegistryGCP:
		return basic("_json_key", credential(r, "SERVICE_ACCOUNT_JSON")), nil
	case driver.RegistryECR:
		return nil, &driver.UnsupportedError{Setting: "Image.Registry.Kind", Reason: "no AWS SDK is linked; use RegistryPassword with " +
			"REGISTRY_USERNAME=AWS and the output of `aws ecr get-login-password` as REGISTRY_PASSWORD"}
	}
	return nil, &driver.UnsupportedError{Setting: "Image.Registry.Kind"}
}

func basic(user, password string) authn.Authenticator {
	return authn.FromConfig(authn.AuthConfig{Username: user, Password: password})
}

func credential(r *driver.Registry, key string) string {
	for _, kv := range r.Credentials {
		if k, v, _ := strings.Cut(kv, "="); k == key {
			return v
		}
	}
	return ""
}

// loginKey keeps what one login may see from who has another one.
func loginKey(r *driver.Registry) []string {
	if r == nil {
		return nil
	}
	return append([]string{fmt.Sprint(r.Kind)}, slices.Sorted(slices.Values(r.Credentials))...)
}

// explain says what an error of a registry means and what to do.
func (p *pull) explain(ctx context.Context, err error) error {
	reg := p.ref.Context().RegistryStr()
	var terr *transport.Error
	switch {
	case ctx.Err() != nil:
		return errors.Join(ctx.Err(), err)
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("%w: %w", driver.ErrInvalid, err)
	case errors.As(err, &terr):
		return p.refused(terr)
	case isNetwork(err):
		return fmt.Errorf("%w: registry %s cannot be reached; check its name and the network (HTTPS_PROXY is used): %w", driver.ErrUnavailable, reg, err)
	case isForeign(err):
		return fmt.Errorf("%w: there is no such image for %s", driver.ErrNotFound, platform())
	}
	return err
}

// refused explains an answer. Registries do not tell those who may not see an
// image whether it is there.
func (p *pull) refused(err *transport.Error) error {
	reg := p.ref.Context().RegistryStr()
	var has = func(codes ...transport.ErrorCode) bool {
		return slices.ContainsFunc(err.Errors, func(d transport.Diagnostic) bool { return slices.Contains(codes, d.Code) })
	}
	switch {
	case err.StatusCode == http.StatusTooManyRequests || has(transport.TooManyRequestsErrorCode):
		return fmt.Errorf("%w: registry %s wants fewer requests; log in with Image.Registry, or try later: %w", driver.ErrExhausted, reg, err)
	case err.StatusCode == http.StatusNotFound || has(transport.ManifestUnknownErrorCode, transport.NameUnknownErrorCode):
		return fmt.Errorf("%w: registry %s has no such image; check name and tag: %w", driver.ErrNotFound, reg, err)
	case err.StatusCode == http.StatusUnauthorized || err.StatusCode == http.StatusForbidden ||
		has(transport.UnauthorizedErrorCode, transport.DeniedErrorCode):
		if p.authed {
			return fmt.Errorf("%w: registry %s refused the credentials of Image.Registry for this image: %w", driver.ErrUnauthenticated, reg, err)
		}
		return fmt.Errorf("%w: registry %s has no such image, or shows it only to those who log in: set Image.Registry: %w", driver.ErrUnauthenticated, reg, err)
	case err.StatusCode >= 500:
		return fmt.Errorf("%w: registry %s is out of order; try later: %w", driver.ErrUnavailable, reg, err)
	}
	return fmt.Errorf("%w: registry %s: %w", driver.ErrInvalid, reg, err)
}

// isNetwork reports whether the connection, and not what came over it, was wrong.
func isNetwork(err error) bool {
	var uerr *url.Error
	var oerr *net.OpError
	return errors.As(err, &uerr) || errors.As(err, &oerr) || errors.Is(err, errStalled) || errors.Is(err, errBroken)
}
