package modalemu

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How long tokens are good for. Modal's are of the same order.
const (
	authTokenLife   = 20 * time.Minute
	routerTokenLife = time.Hour
)

// What a token is for; the "aud" of its claims.
const (
	forControlPlane = "modal-api"
	forRouter       = "modal-router"
	forConnect      = "modal-connect"
	forIdentity     = "modal-identity"
)

// claims are what a token says.
type claims struct {
	Audience string `json:"aud"`
	Subject  string `json:"sub"` // the task, sandbox or client it is for
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	ID       string `json:"jti"`
	// Generation is that of its audience when it was issued.
	Generation int `json:"gen,omitempty"`
	// Port and Metadata are those of a connect token.
	Port     int    `json:"port,omitempty"`
	Metadata string `json:"metadata,omitempty"`
}

// tokens issues and checks signed tokens. Its methods are safe for concurrent use.
type tokens struct {
	key []byte

	mu         sync.Mutex
	generation map[string]int // by audience; an older token counts as expired
}

func newTokens() *tokens {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: see crypto/rand.Read
	return &tokens{key: key, generation: make(map[string]int)}
}

// issue makes a token for subject that is good for life.
func (t *tokens) issue(audience, subject string, life time.Duration) string {
	return t.sign(claims{Audience: audience, Subject: subject}, life)
}

// sign makes a token of c, whose times and generation it sets.
func (t *tokens) sign(c claims, life time.Duration) string {
	now := time.Now()
	t.mu.Lock()
	c.Generation = t.generation[c.Audience]
	t.mu.Unlock()
	c.Issued, c.Expires, c.ID = now.Unix(), now.Add(life).Unix(), randomString(12)
	body, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and numbers
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString(body)
	return text + "." + enc.EncodeToString(t.mac(text))
}

func (t *tokens) mac(text string) []byte {
	h := hmac.New(sha256.New, t.key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// check gives what a token of this server says. Any other, one for another
// audience and one that has expired is a status of Unauthenticated.
func (t *tokens) check(audience, token string) (*claims, error) {
	cut := strings.LastIndexByte(token, '.')
	if cut < 0 {
		return nil, status.Error(codes.Unauthenticated, "malformed token")
	}
	mac, err := base64.RawURLEncoding.DecodeString(token[cut+1:])
	if err != nil || !hmac.Equal(mac, t.mac(token[:cut])) {
		return nil, status.Error(codes.Unauthenticated, "token was not issued by this server")
	}
	_, body, _ := strings.Cut(token[:cut], ".")
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, "malformed token")
	}
	var c claims
	if err := json.Unmarshal(raw, &c); err != nil || c.Audience != audience {
		return nil, status.Error(codes.Unauthenticated, "token is for something else")
	}
	t.mu.Lock()
	current := t.generation[audience]
	t.mu.Unlock()
	if time.Now().Unix() >= c.Expires || c.Generation < current {
		return nil, status.Error(codes.Unauthenticated, "token has expired")
	}
	return &c, nil
}

// expireAll makes every token of audience that was issued so far count as expired.
func (t *tokens) expireAll(audience string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.generation[audience]++
}
