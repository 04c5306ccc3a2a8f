package tunnel

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// Host is where tunnels listen.
const Host = "127.0.0.1"

// certificateLife is how long certificates are good for: longer than a server
// lives, and no longer than clients take.
const certificateLife = 365 * 24 * time.Hour

// Authority vouches for the tunnels of one server. Its private key is in memory
// only. It is safe for concurrent use.
type Authority struct {
	pem  []byte
	leaf tls.Certificate
}

// NewAuthority makes an authority, and the certificate that all tunnels have.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	from := time.Now().Add(-time.Hour) // for a clock that was set back
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Modal emulator"},
		NotBefore: from, NotAfter: from.Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	a := &Authority{pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	a.leaf, err = issue(root, key)
	return a, err
}

// issue makes the certificate of the loopback addresses.
func issue(root *x509.Certificate, signer *ecdsa.PrivateKey) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "Modal emulator's tunnels"},
		NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der, root.Raw}, PrivateKey: key}, nil
}

// PEM is the authority's own certificate, for those who are to trust it.
func (a *Authority) PEM() []byte { return a.pem }

// config is of a server that speaks the protocols, the most wanted first; none
// means that the client's wishes are not looked at.
func (a *Authority) config(protocols ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{a.leaf}, NextProtos: protocols, MinVersion: tls.VersionTLS12}
}
