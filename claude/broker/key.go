package broker

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
)

const redacted = "[redacted]"

// oauthBeta is the feature that the API wants named with an OAuth token; the
// CLI, which sees only a phantom token, does not name it.
const oauthBeta = "oauth-2025-04-20"

// Key is the credential for the model's API. It shows itself to nobody: fmt,
// encoding/json and log/slog print "[redacted]". The zero value is no key. It is
// immutable.
type Key struct {
	// A function, because fmt does not ask the methods of unexported fields: of a
	// Key inside one it prints what it sees, through pointers too with some verbs.
	reveal func() secret
}

type secret struct {
	value  string
	bearer bool
}

// APIKey returns a key that is sent as X-Api-Key, or no key where it is "".
func APIKey(key string) Key { return newKey(key, false) }

// BearerToken returns a key that is sent as Authorization: Bearer, as OAuth
// tokens and many gateways want it, or no key where it is "".
func BearerToken(token string) Key { return newKey(token, true) }

func newKey(value string, bearer bool) Key {
	value = strings.TrimSpace(value)
	if value == "" {
		return Key{}
	}
	return Key{func() secret { return secret{value, bearer} }}
}

// IsZero reports whether it is no key.
func (k Key) IsZero() bool { return k.reveal == nil }

// String returns "[redacted]", or "" for no key.
func (k Key) String() string {
	if k.IsZero() {
		return ""
	}
	return redacted
}

// Format prints what String returns, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) } // fmt reports its own errors

// MarshalText returns what String returns; encoding/json uses it.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// LogValue returns what String returns, for log/slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// value is the key itself, of a key that is one.
func (k Key) value() string { return k.reveal().value }

// valid says whether the key can be sent in a header.
func (k Key) valid() bool {
	return !k.IsZero() && !strings.ContainsFunc(k.value(), func(r rune) bool { return r <= ' ' || r > '~' })
}

// set puts the key into the header of a request to the upstream.
func (k Key) set(h http.Header) {
	if !k.reveal().bearer {
		h.Set("X-Api-Key", k.value())
		return
	}
	h.Set("Authorization", "Bearer "+k.value())
	betas := strings.Split(strings.Join(h.Values("Anthropic-Beta"), ","), ",")
	for i := range betas {
		betas[i] = strings.TrimSpace(betas[i])
	}
	betas = slices.DeleteFunc(betas, func(b string) bool { return b == "" })
	if !slices.Contains(betas, oauthBeta) {
		betas = append(betas, oauthBeta)
	}
	h.Set("Anthropic-Beta", strings.Join(betas, ","))
}

// scrub takes the key out of a text.
func (k Key) scrub(s string) string {
	if k.IsZero() {
		return s
	}
	return strings.ReplaceAll(s, k.value(), redacted)
}
