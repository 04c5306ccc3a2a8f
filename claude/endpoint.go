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
	server *http.Server
	url    string
	token  string
	revoke func()
	served chan struct{}
}

// serve serves e inside the sandbox until close; requests get contexts that end
// with ctx.
func (e Endpoint) serve(ctx context.Context, sb *sandbox.Sandbox) (*endpoint, error) {
	token, revoke, err := e.issue()
	if err != nil {
		return nil, fmt.Errorf("no token for the model's endpoint: %w", err)
	}
	l, err := sb.Listen(ctx, "127.0.0.1:0")
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
		url:    "http://" + l.Addr().String(),
		token:  token,
		revoke: revoke,
		served: make(chan struct{}),
	}
	go func() {
		defer close(s.served)
		_ = s.server.Serve(boundlisten.New(l, boundlisten.Connections)) // ends with close, or with the sandbox
	}()
	return s, nil
}

func (e Endpoint) issue() (token string, revoke func(), err error) {
	nothing := func() {}
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
		"ANTHROPIC_BASE_URL=" + s.url, "ANTHROPIC_API_KEY=" + s.token,
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
