package broker

import "net/http"

// Issuer is a [Broker] whose tokens have options of their own: package claude asks
// its endpoint's handler for a token for every run, and an issuer gives it one
// of an account, with limits. It is safe for concurrent use.
type Issuer struct {
	broker *Broker
	opts   TokenOptions
}

// With returns an issuer of tokens with the options.
func (b *Broker) With(opts TokenOptions) *Issuer { return &Issuer{broker: b, opts: opts} }

// ServeHTTP is the broker's.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) { i.broker.ServeHTTP(w, r) }

// IssueToken makes a token for a run; see [Broker.IssueToken].
func (i *Issuer) IssueToken() (token string, revoke func(), err error) {
	t := i.broker.NewToken(&i.opts)
	return t.Value(), t.Revoke, nil
}

// AdoptToken takes over the token of a run of an earlier process; see
// [Broker.AdoptToken]. It gets this issuer's options.
func (i *Issuer) AdoptToken(token string) (revoke func(), err error) {
	return i.broker.adopt(token, &i.opts)
}
