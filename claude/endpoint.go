package claude

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/internal/boundlisten"
	"github.com/vivarium-go/vivarium/sandbox"
)

// What runs in the sandbox is given so much of this process, beside the
// connections of boundlisten.
const (
	headerTimeout  = 30 * time.Second // for a request's header to come
	idleTimeout    = 2 * time.Minute  // between two requests of a connection
	maxHeaderBytes = 64 << 10
)

// endpoint is an Endpoint that is being served.
type endpoint struct {
	address
	server *http.Server
	revoke func()
	served chan struct{}
}

// address is where the CLI finds an endpoint, as JSON in the notes of jobs.
type address struct {
	Addr  string `json:"addr"`
	Token string `json:"token"`
}

// serve serves e inside the sandbox until close; requests get contexts that end
// with ctx. The zero address is a new one; another is that of a CLI that runs.
func (e Endpoint) serve(ctx context.Context, sb *sandbox.Sandbox, at address) (*endpoint, error) {
	token, revoke, err := e.issue(at.Token)
	if err != nil {
		return nil, fmt.Errorf("no token for the model's endpoint: %w", err)
	}
	l, err := listen(ctx, sb, at.Addr)
	if err != nil {
		revoke()
		return nil, fmt.Errorf("serve the model's endpoint in the sandbox: %w", err)
	}
	s := &endpoint{
		server: &http.Server{
			Handler:           e.Handler,
			BaseContext:       func(net.Listener) context.Context { return ctx },
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          log.New(io.Discard, "", 0), // it would show what the sandbox sends
		},
		address: address{Addr: l.Addr().String(), Token: token},
		revoke:  revoke,
		served:  make(chan struct{}),
	}
	go func() {
		defer close(s.served)
		_ = s.server.Serve(boundlisten.New(l, boundlisten.Connections)) // ends with close, or with the sandbox
	}()
	return s, nil
}

// addressFreed is how long the listener of a process that was killed may take to be
// gone.
const addressFreed = 2 * time.Minute

// listen takes an address in the sandbox, "" for any.
func listen(ctx context.Context, sb *sandbox.Sandbox, addr string) (net.Listener, error) {
	if addr == "" {
		return sb.Listen(ctx, "127.0.0.1:0")
	}
	if ap, err := netip.ParseAddrPort(addr); err != nil || !ap.Addr().IsLoopback() {
		return nil, fmt.Errorf("the sandbox says that it was at %.80q, which is no loopback address", addr)
	}
	ctx, stop := context.WithTimeout(ctx, addressFreed)
	defer stop()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		l, err := sb.Listen(ctx, addr)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// issue gives a token, the one before if there is one.
func (e Endpoint) issue(before string) (token string, revoke func(), err error) {
	nothing := func() {}
	if adopter, ok := e.Handler.(TokenAdopter); ok && before != "" && e.Token == "" {
		revoke, err := adopter.AdoptToken(before)
		if revoke == nil {
			revoke = nothing
		}
		return before, revoke, err
	}
	if _, issues := e.Handler.(TokenIssuer); before != "" && e.Token == "" && issues {
		return "", nothing, errors.New("the Handler issues tokens and cannot take one over: it has no AdoptToken")
	}
	if before != "" && e.Token == "" {
		return before, nothing, nil
	}
	if e.Token != "" {
		return e.Token, nothing, nil
	}
	if issuer, ok := e.Handler.(TokenIssuer); ok {
		token, revoke, err := issuer.IssueToken()
		if err == nil && token == "" {
			err = errors.New("it is empty")
		}
		if revoke == nil {
			revoke = nothing
		}
		return token, revoke, err
	}
	return "vivarium-" + rand.Text(), nothing, nil
}

// env is what points the CLI to it. Loopback must not go through a proxy that
// the sandbox may have for its network.
func (s *endpoint) env() []string {
	return []string{
		"ANTHROPIC_BASE_URL=http://" + s.Addr, "ANTHROPIC_API_KEY=" + s.Token,
		"NO_PROXY=127.0.0.1,localhost,::1", "no_proxy=127.0.0.1,localhost,::1",
	}
}

// close ends the requests under way and the token.
func (s *endpoint) close() {
	if s == nil {
		return
	}
	_ = s.server.Close()
	<-s.served
	s.revoke()
}
