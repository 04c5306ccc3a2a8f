package broker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"sync"
	"time"
)

// TokenOptions says what a [Token] is good for. The zero value, and nil, are usable.
type TokenOptions struct {
	// TTL is how long the token is accepted. A request that began before goes on.
	// Zero: until it is revoked.
	TTL time.Duration
	// MaxRequests is how many requests may be under way with it at a time; more
	// are refused with 429 rate_limit_error. Zero: 64.
	MaxRequests int
}

// Token is a phantom token: what a sandbox has in place of the key. Outside of
// its broker it is worth nothing. It is safe for concurrent use.
type Token struct {
	broker  *Broker
	value   func() string // not a string: see Key
	sum     [sha256.Size]byte
	expires time.Time // zero: never
	slots   chan struct{}
	revoked context.Context
	revoke  context.CancelFunc
}

// NewToken mints a token of 256 random bits. The broker keeps it until it is
// revoked or has expired.
func (b *Broker) NewToken(opts *TokenOptions) *Token {
	if opts == nil {
		opts = &TokenOptions{}
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails: it ends the program rather
	value := "vivarium-" + base64.RawURLEncoding.EncodeToString(raw)
	t := &Token{broker: b, value: func() string { return value }, sum: sha256.Sum256([]byte(value))}
	t.slots = make(chan struct{}, 64)
	if opts.MaxRequests > 0 {
		t.slots = make(chan struct{}, opts.MaxRequests)
	}
	t.revoked, t.revoke = context.WithCancel(context.Background())
	if opts.TTL > 0 {
		t.expires = time.Now().Add(opts.TTL)
	}
	b.tokens.add(t)
	return t
}

// IssueToken is NewToken with the defaults, in the words of claude.TokenIssuer:
// package claude asks for a token at the start of a run and revokes it at its end.
func (b *Broker) IssueToken() (token string, revoke func(), err error) {
	t := b.NewToken(nil)
	return t.Value(), t.Revoke, nil
}

// Value returns the token as it goes into the sandbox, for ANTHROPIC_API_KEY or
// ANTHROPIC_AUTH_TOKEN.
func (t *Token) Value() string { return t.value() }

// ID returns a name for the token, for logs: part of its hash.
func (t *Token) ID() string { return hex.EncodeToString(t.sum[:6]) }

// String returns the ID, so that the token itself is not printed by accident.
func (t *Token) String() string { return "token " + t.ID() }

// GoString returns what String returns.
func (t *Token) GoString() string { return t.String() }

// Revoke makes the token worthless and cuts the requests under way with it.
// Revoking it again does nothing.
func (t *Token) Revoke() {
	t.broker.tokens.remove(t)
	t.revoke()
}

func (t *Token) expired(now time.Time) bool { return !t.expires.IsZero() && !now.Before(t.expires) }

// tokens are the valid tokens by their hash, so that the time a look-up takes
// tells nothing about the tokens there are.
type tokens struct {
	mu    sync.Mutex
	bySum map[[sha256.Size]byte]*Token
}

func (ts *tokens) add(t *Token) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	now := time.Now()
	for sum, old := range ts.bySum {
		if old.expired(now) {
			delete(ts.bySum, sum)
		}
	}
	if ts.bySum == nil {
		ts.bySum = map[[sha256.Size]byte]*Token{}
	}
	ts.bySum[t.sum] = t
}

func (ts *tokens) remove(t *Token) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.bySum, t.sum)
}

// find returns the token with which a request comes, or nil. Clients send it
// as X-Api-Key, as Authorization: Bearer, or both.
func (ts *tokens) find(h http.Header) *Token {
	candidates := h.Values("X-Api-Key")
	for _, value := range h.Values("Authorization") {
		if scheme, token, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Bearer") {
			candidates = append(candidates[:len(candidates):len(candidates)], token)
		}
	}
	if len(candidates) > 2 {
		return nil
	}
	for _, value := range candidates {
		if t := ts.lookup(sha256.Sum256([]byte(value))); t != nil {
			return t
		}
	}
	return nil
}

func (ts *tokens) lookup(sum [sha256.Size]byte) *Token {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.bySum[sum]
	if t == nil || subtle.ConstantTimeCompare(t.sum[:], sum[:]) != 1 || t.expired(time.Now()) {
		return nil
	}
	return t
}
