package sandboxhttp

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Auth says who sends a request. An error that matches ErrUnauthenticated is
// answered 401, one that matches ErrForbidden 403, and any other, which is
// logged, 500. It is called for every request but those for /healthz and
// /readyz, and must be safe for concurrent use.
type Auth func(r *http.Request) (*Principal, error)

// Principal is who sends a request.
type Principal struct {
	// Account owns what is made: 1 to 128 bytes without control characters.
	Account string
	// Name is who it is, for people: the author of the versions that it saves. Like
	// an account; empty means the account.
	Name string
	// Role is what it may do in that account.
	Role Role
}

// author is who a version is by.
func (p *Principal) author() string {
	if p.Name != "" {
		return p.Name
	}
	return p.Account
}

// Role is what a principal may do in its account. The zero value is RoleMember.
type Role int

// The roles.
const (
	RoleMember Role = iota // reads, makes, runs and deletes
	RoleViewer             // reads, and follows runs
)

// Local is an Auth for a server that only this machine can reach: everybody is
// a member of account. It refuses what does not come from a loopback address,
// and what names another host than this machine: a page on the internet whose
// name was made to point here (DNS rebinding) gets nothing.
func Local(account string) Auth {
	return func(r *http.Request) (*Principal, error) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !peer.Addr().Unmap().IsLoopback() {
			return nil, fmt.Errorf("%w: only this machine may ask", ErrForbidden)
		}
		if !isLocalHost(r.Host) {
			return nil, fmt.Errorf("%w: ask for localhost or a loopback address, not by another name", ErrForbidden)
		}
		return &Principal{Account: account}, nil
	}
}

func isLocalHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}

// BearerToken is an Auth for one secret: who sends "Authorization: Bearer
// TOKEN" is p, nobody else anybody. The comparison takes the same time whatever
// was sent. An empty token lets nobody in.
func BearerToken(token string, p *Principal) Auth {
	want := sha256.Sum256([]byte(token))
	return func(r *http.Request) (*Principal, error) {
		scheme, sent, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(sent)))
		same := subtle.ConstantTimeCompare(want[:], got[:]) == 1
		if !same || token == "" || !strings.EqualFold(scheme, "Bearer") {
			return nil, fmt.Errorf("%w: send the server's token as Authorization: Bearer TOKEN", ErrUnauthenticated)
		}
		return p, nil
	}
}

// authenticate asks the hook, and checks what it says.
func (h *Handler) authenticate(r *http.Request) (*Principal, error) {
	p, err := h.config.Auth(r)
	switch {
	case errors.Is(err, ErrForbidden):
		return nil, newProblem(http.StatusForbidden, codeForbidden, err.Error())
	case errors.Is(err, ErrUnauthenticated):
		return nil, newProblem(http.StatusUnauthorized, codeUnauthenticated, err.Error())
	case err != nil:
		return nil, fmt.Errorf("authentication: %w", err)
	case p == nil:
		return nil, newProblem(http.StatusUnauthorized, codeUnauthenticated, ErrUnauthenticated.Error())
	case !isAccount(p.Account):
		return nil, errors.New("authentication: the principal's account is not 1 to 128 bytes without control characters")
	}
	if p.Name != "" && !isAccount(p.Name) {
		return nil, errors.New("authentication: the principal's name is not up to 128 bytes without control characters")
	}
	if !p.Role.may(r.Method) {
		return nil, newProblem(http.StatusForbidden, codeForbidden, "this role may read, but not change anything")
	}
	return p, nil
}

func (r Role) may(method string) bool {
	switch r {
	case RoleMember:
		return true
	case RoleViewer:
		return method == http.MethodGet || method == http.MethodHead
	}
	return false
}

func isAccount(account string) bool {
	return account != "" && len(account) <= 128 && utf8.ValidString(account) && !strings.ContainsFunc(account, unicode.IsControl)
}
