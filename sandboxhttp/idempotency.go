package sandboxhttp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	keyTTL      = 24 * time.Hour
	keysEach    = 1000 // kept for one account
	keyMaxBytes = 255
	keySweep    = time.Hour // how often what has expired is looked for everywhere
)

// answer is what a POST that succeeded is answered again under the same key.
type answer struct {
	status   int
	location string
	body     []byte
	problem  *problem // one that says what was made all the same; instead of the others
	box      *box     // for a stream: the run to follow is this box's
	run      string   // and has this id
}

// keys remembers the Idempotency-Keys of the last day and what was answered. Only
// answers that are no errors are kept: after an error nothing was made, and the
// same request is tried again.
type keys struct {
	salt []byte // so that what is kept of bodies tells nothing about them

	mu       sync.Mutex
	accounts map[string]*accountKeys
	swept    time.Time
}

type accountKeys struct {
	byName map[string]*claim
	order  []*claim // oldest first
}

// claim is one use of a key. A nil claim is a request without one.
type claim struct {
	keys    *keys
	account string
	name    string // the path and the key
	body    [sha256.Size]byte
	at      time.Time
	answer  *answer // nil while it is in flight
}

func newKeys() *keys {
	salt := make([]byte, 32)
	_, _ = rand.Read(salt) // never fails
	return &keys{salt: salt, accounts: map[string]*accountKeys{}}
}

// claim takes the request's key for it, if it has one. It returns the answer
// that was given before under the same key, or a problem. The caller settles
// the claim.
func (k *keys) claim(r *http.Request, account string, body []byte) (*claim, *answer, error) {
	sent := r.Header.Values("Idempotency-Key")
	if len(sent) == 0 {
		return nil, nil, nil
	}
	if len(sent) > 1 || !isKey(sent[0]) {
		return nil, nil, newProblem(http.StatusBadRequest, codeInvalidRequest, "").
			field("Idempotency-Key", "use one, of 1 to 255 visible ASCII characters")
	}
	mac := hmac.New(sha256.New, k.salt)
	_, _ = mac.Write(body)
	c := &claim{keys: k, account: account, name: r.URL.Path + " " + sent[0], at: time.Now()}
	mac.Sum(c.body[:0])
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sweep(c.at)
	have := k.account(account)
	have.expire(c.at)
	if old := have.byName[c.name]; old != nil {
		prior, err := old.again(c)
		return nil, prior, err
	}
	have.byName[c.name] = c
	have.order = append(have.order, c)
	return c, nil, nil
}

// again is what a second request with the same key gets.
func (c *claim) again(second *claim) (*answer, error) {
	switch {
	case c.body != second.body:
		return nil, keyMismatch()
	case c.answer == nil:
		return nil, newProblem(http.StatusConflict, codeIdempotencyInFlight,
			"the first request with this Idempotency-Key is still being worked on")
	}
	return c.answer, nil
}

func keyMismatch() error {
	return newProblem(http.StatusUnprocessableEntity, codeIdempotencyMismatch,
		"this Idempotency-Key came with another body before").
		field("Idempotency-Key", "use a new one for another request")
}

// settle says what was answered; nil gives the key back.
func (c *claim) settle(a *answer) {
	if c == nil {
		return
	}
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	if a != nil {
		c.answer = a
		return
	}
	have := c.keys.account(c.account)
	have.remove(func(old *claim) bool { return old == c })
}

func (k *keys) account(name string) *accountKeys {
	have := k.accounts[name]
	if have == nil {
		have = &accountKeys{byName: map[string]*claim{}}
		k.accounts[name] = have
	}
	return have
}

// sweep lets go of accounts that nobody asks for any more.
func (k *keys) sweep(now time.Time) {
	if now.Sub(k.swept) < keySweep {
		return
	}
	k.swept = now
	for name, have := range k.accounts {
		have.expire(now)
		if len(have.order) == 0 {
			delete(k.accounts, name)
		}
	}
}

// expire lets go of what is too old, and of the oldest where there are too many.
// What is in flight stays.
func (a *accountKeys) expire(now time.Time) {
	surplus := len(a.order) - keysEach + 1
	if surplus <= 0 && (len(a.order) == 0 || now.Sub(a.order[0].at) < keyTTL) {
		return
	}
	a.remove(func(c *claim) bool {
		if c.answer == nil || surplus <= 0 && now.Sub(c.at) < keyTTL {
			return false
		}
		surplus--
		return true
	})
}

func (a *accountKeys) remove(drop func(*claim) bool) {
	kept := a.order[:0]
	for _, c := range a.order {
		if drop(c) {
			delete(a.byName, c.name)
			continue
		}
		kept = append(kept, c)
	}
	clear(a.order[len(kept):])
	a.order = kept
}

func isKey(key string) bool {
	return key != "" && len(key) <= keyMaxBytes && !strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' })
}
