// Package modaltest lets tests of code that uses Modal's Go client run without
// an account: it starts an emulator of Modal in this process, whose sandboxes
// run on this machine, and hands out a client of it.
//
//	func TestMine(t *testing.T) {
//		client := modaltest.NewClient(t)
//		app, err := client.Apps.FromName(ctx, "my-app", &modal.AppFromNameParams{CreateIfMissing: true})
//		image := client.Images.FromRegistry("alpine:3.21", nil)
//		sb, err := client.Sandboxes.Create(ctx, app, image, nil)
//		…
//	}
//
// The sandboxes are those of package localbox, and need what it needs. What the
// emulator cannot do, such as snapshots of memory, it refuses with a status of
// FailedPrecondition or Unimplemented that says so.
package modaltest

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	"google.golang.org/grpc/codes"

	"github.com/vivarium-go/vivarium/internal/modalemu"
	"github.com/vivarium-go/vivarium/sandbox"
)

// Options vary Start. The zero value, and nil, are good defaults.
type Options struct {
	// PullImages lets an image be the one of that name, pulled from its
	// registry. Otherwise the programs of every image are this machine's.
	PullImages bool
	// State is a directory in which apps, images, named secrets and volumes
	// survive Close. Empty means that nothing does.
	State string
	// Secrets are there from the start, by name.
	Secrets map[string]map[string]string
	// Proxies are the names of proxies that are there.
	Proxies []string
	// Environments are there besides "main".
	Environments []string
	// Mounts are shown in every sandbox, as if they were part of its image: a
	// program that the test needs inside, for one.
	Mounts []sandbox.Mount
	// TokenLife is how long clients may use a token before they have to get
	// another. Zero means as long as Modal allows, about.
	TokenLife time.Duration
	// Upstreams are stand-ins for hosts that a sandbox's outbound policy
	// (sandbox.Config.HeaderRules) names: by the name of the host the "address:port"
	// that requests to it go to instead, of an HTTPS server with a certificate for
	// that name.
	Upstreams map[string]string
	// UpstreamCAs are certificates, as PEM, of authorities that may vouch for hosts
	// of outbound policies, beside those this machine trusts.
	UpstreamCAs []byte
	// Log is told the causes of internal errors. Nil means no log.
	Log *slog.Logger
}

// Server is a running emulator. Its methods are safe for concurrent use.
type Server struct{ emu *modalemu.Server }

// Start starts an emulator on a port of its own. opts may be nil. The caller
// closes it, which ends its sandboxes.
func Start(opts *Options) (*Server, error) {
	if opts == nil {
		opts = &Options{}
	}
	base := modalemu.SourceHost
	if opts.PullImages {
		base = modalemu.SourcePull
	}
	emu, err := modalemu.Start(&modalemu.Options{
		State: opts.State, Base: base, Secrets: opts.Secrets, Proxies: opts.Proxies,
		Environments: opts.Environments, TokenLife: opts.TokenLife, Mounts: opts.Mounts, Log: opts.Log,
		Upstreams: opts.Upstreams, UpstreamCAs: opts.UpstreamCAs,
	})
	if err != nil {
		return nil, err
	}
	return &Server{emu: emu}, nil
}

// Close ends every sandbox and the server, and leaves nothing behind but
// Options.State.
func (s *Server) Close() error { return s.emu.Close() }

// URL is where the server is, as MODAL_SERVER_URL for other processes.
func (s *Server) URL() string { return s.emu.URL() }

// TunnelCA is the certificate, as PEM, that HTTPS clients of tunnels have to
// trust: x509.CertPool.AppendCertsFromPEM takes it.
func (s *Server) TunnelCA() []byte { return s.emu.TunnelCA() }

// Client makes a client of the server, whatever the configuration of this user
// and, except for MODAL_SERVER_URL, the environment say. The caller closes it.
func (s *Server) Client() (*modal.Client, error) {
	if url := os.Getenv("MODAL_SERVER_URL"); url != "" && url != s.URL() {
		return nil, errors.New("modaltest: MODAL_SERVER_URL is set, which sends every client elsewhere: unset it")
	}
	name := os.Getenv("MODAL_PROFILE") // the one that the client looks for
	if name == "" {
		name = "modaltest"
	}
	params := &modal.ClientParams{TokenID: "ak-modaltest", TokenSecret: "as-modaltest", Environment: "main"}
	if err := setConfig(&params.Config, name, s.URL()); err != nil {
		return nil, fmt.Errorf("modaltest: configure the client: %w", err)
	}
	return modal.NewClientWithOptions(params)
}

// setConfig fills the client's configuration, whose type has no name outside of
// its package.
func setConfig[T any](cfg **T, profile, url string) error {
	raw, err := json.Marshal(map[string]any{profile: map[string]any{"ServerURL": url, "Active": true}})
	if err != nil {
		return err
	}
	*cfg = new(T)
	return json.Unmarshal(raw, *cfg)
}

// New starts a server for a test, which ends with it. On a machine that cannot
// isolate sandboxes the test is skipped, with the reason.
func New(t testing.TB, opts *Options) *Server {
	t.Helper()
	s, err := Start(opts)
	if errors.Is(err, sandbox.ErrNoIsolation) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// NewClient starts a server for a test and gives a client of it; both end with
// the test.
func NewClient(t testing.TB) *modal.Client {
	t.Helper()
	c, err := New(t, nil).Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Fault is something that goes wrong with calls. It acts on the first calls that
// match it; of several faults that match a call the one injected first acts.
type Fault struct {
	// Method is the name of the calls in Modal's protocol, such as
	// "SandboxCreateV2" or "TaskExecStdioRead". Empty means any.
	Method string
	// After is how many matching calls go well first.
	After int
	// Times is how many calls it acts on; 0 means one, -1 all.
	Times int

	// Delay is how long the call is held up first.
	Delay time.Duration
	// Code is answered, and the call does not act. Zero means none.
	Code codes.Code
	// RetryAfter is what an answer of Code tells the client to wait before it
	// tries again; zero leaves that to the client.
	RetryAfter time.Duration
	// LoseAnswer lets the call act, and answers Unavailable then.
	LoseAnswer bool
	// DropAfter breaks a stream with Unavailable once so many bytes of messages
	// have gone through it, in either direction, the message that reaches the
	// number included. Zero means never; -1 before the first message.
	DropAfter int64
	// ExpireTokens makes every token issued so far for the call's service count as
	// expired, just before the call: it is refused, and so is each one until its
	// client has a new one. Modal's client gets another token of the router at
	// once, and one of the API only when its token is about to expire.
	ExpireTokens bool
}

// Inject lets calls go wrong as f says, until remove is called or f has acted
// as often as it should.
func (s *Server) Inject(f Fault) (remove func()) { return s.emu.Inject(modalemu.Fault(f)) }

// CutConnections breaks every connection of clients, as if the network had.
// Clients connect anew by themselves.
func (s *Server) CutConnections() { s.emu.CutConnections() }
