package tunnel

import (
	"crypto/tls"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/authority"
)

// Host is where tunnels listen.
const Host = "127.0.0.1"

// Authority vouches for the tunnels of one server. It is safe for concurrent use.
type Authority struct {
	*authority.Authority
	leaf tls.Certificate
}

// NewAuthority makes an authority, and the certificate that all tunnels have.
func NewAuthority() (*Authority, error) {
	a, err := authority.New("Modal emulator's tunnels")
	if err != nil {
		return nil, err
	}
	leaf, err := a.Issue("localhost", Host, "::1")
	return &Authority{a, leaf}, err
}

// config is of a server that speaks the protocols, the most wanted first; none
// means that the client's wishes are not looked at.
func (a *Authority) config(protocols ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{a.leaf}, NextProtos: protocols, MinVersion: tls.VersionTLS12}
}
