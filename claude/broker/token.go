package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultTTL is how long tokens are accepted whose options say nothing else.
const DefaultTTL = 24 * time.Hour

// TokenOptions says what a [Token] is good for. The zero value, and nil, are usable.
type TokenOptions struct {
	// TTL is how long the token is accepted. A request that began before goes on.
	// Zero: [DefaultTTL]. Negative: until it is revoked.
	TTL time.Duration
	// Limits hold for all that is done with the token.
	Limits Limits
	// Account, where set, counts what is done with the token as well, and limits it.
	Account *Account
	// Run is a name for what the token is for; events carry it.
	Run string
}

// Token is a phantom token: what a sandbox has in place of the key. Outside of
// its broker it is worth nothing. It is safe for concurrent use.
type Token struct {
	broker   *Broker
	value    func() string // not a string: see Key
	sum      [sha256.Size]byte
	expires  time.Time // zero: never
	run      string
	meter    meter
	account  *Account // or nil
	era      *era     // of the account
	requests atomic.Int64
	revoked  context.Context
	revoke   context.CancelFunc
}

// NewToken mints a token of 256 random bits. The broker keeps it until it is
// revoked or has expired.
func (b *Broker) NewToken(opts *TokenOptions) *Token {
	if opts == nil {
		opts = &TokenOptions{}
	}
	raw := make([]byte, tokenBytes)
	_, _ = rand.Read(raw) // never fails: it ends the program rather
	t := b.newToken(tokenPrefix+base64.RawURLEncoding.EncodeToString(raw), opts)
	b.tokens.add(t)
	return t
}

const (
	tokenPrefix = "vivarium-"
	tokenBytes  = 32
)

func (b *Broker) newToken(value string, opts *TokenOptions) *Token {
	t := &Token{
		broker: b, value: func() string { return value }, sum: sha256.Sum256([]byte(value)), run: opts.Run,
		meter: meter{whose: "this run", limits: opts.Limits.orDefault()}, account: opts.Account,
	}
	if t.account != nil {
		t.era = t.account.current()
	}
	t.revoked, t.revoke = context.WithCancel(context.Background())
	if opts.TTL >= 0 {
		t.expires = time.Now().Add(cmp.Or(opts.TTL, DefaultTTL))
	}
	return t
}

// AdoptToken accepts a token that a broker of an earlier process minted, in the words of
// claude.TokenAdopter: a run that outlived that process still has it. It is worth what
// one of NewToken with the defaults is, from now on, whoever minted it: what was counted
// before is not known. One that is accepted already is refused.
func (b *Broker) AdoptToken(token string) (revoke func(), err error) { return b.adopt(token, nil) }

func (b *Broker) adopt(value string, opts *TokenOptions) (revoke func(), err error) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(value, tokenPrefix))
	if err != nil || len(raw) != tokenBytes || !strings.HasPrefix(value, tokenPrefix) {
		return nil, errors.New("broker: what is to be adopted is no token of a broker")
	}
	if opts == nil {
		opts = &TokenOptions{}
	}
	t := b.newToken(value, opts)
	if !b.tokens.addNew(t) {
		return nil, errors.New("broker: the token that is to be adopted is in use")
	}
	return t.Revoke, nil
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

// Usage returns what was used with the token so far, requests under way included.
func (t *Token) Usage() Usage { return t.meter.usage() }

// SetLimits changes the limits, for requests under way as well.
func (t *Token) SetLimits(l Limits) { t.meter.setLimits(l.orDefault()) }

func (l Limits) orDefault() Limits {
	if l.InFlight <= 0 {
		l.InFlight = 64
	}
	return l
}

type meters []*meter

func (ms meters) leave() {
	for _, m := range ms {
		m.leave()
	}
}

// meters are those that limit what is done with the token.
func (t *Token) meters() meters {
	if t.account == nil {
		return meters{&t.meter}
	}
	return meters{&t.meter, &t.account.meter}
}

// cut says whether it was revoked, or its account's tokens were.
func (t *Token) cut() bool {
	return t.revoked.Err() != nil || t.era != nil && t.era.over.Err() != nil
}

func (t *Token) expired(now time.Time) bool { return !t.expires.IsZero() && !now.Before(t.expires) }

// tokens are the valid tokens by their hash, so that the time a look-up takes
// tells nothing about the tokens there are.
type tokens struct {
	mu    sync.Mutex
	bySum map[[sha256.Size]byte]*Token
	swept time.Time
}

// sweepEvery is how often those that have expired are looked for.
const sweepEvery = time.Minute

func (ts *tokens) add(t *Token) { _ = ts.addNew(t) } // of random bits: it is new

// addNew adds a token, unless there is one like it.
func (ts *tokens) addNew(t *Token) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if now := time.Now(); now.Sub(ts.swept) >= sweepEvery {
		ts.swept = now
		maps.DeleteFunc(ts.bySum, func(_ [sha256.Size]byte, old *Token) bool { return old.expired(now) || old.cut() })
	}
	if ts.bySum == nil {
		ts.bySum = map[[sha256.Size]byte]*Token{}
	}
	if old := ts.bySum[t.sum]; old != nil && !old.expired(time.Now()) && !old.cut() {
		return false
	}
	ts.bySum[t.sum] = t
	return true
}

func (ts *tokens) remove(t *Token) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.bySum[t.sum] == t { // and not one that has taken it over
		delete(ts.bySum, t.sum)
	}
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
	if t == nil || subtle.ConstantTimeCompare(t.sum[:], sum[:]) != 1 || t.expired(time.Now()) || t.cut() {
		return nil
	}
	return t
}
