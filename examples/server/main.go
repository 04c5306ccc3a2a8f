// Command server serves sandboxes, Claude in them and the chat page:
//
//	go run ./examples/server
//
// On a loopback address, the default, it serves one local account without a
// login. On any other it wants a token, which the page asks for:
//
//	VIVARIUM_TOKEN=… go run ./examples/server -addr 0.0.0.0:8080
//
// With ANTHROPIC_API_KEY set the prompts go to the real model, and the key stays
// in this process. Without it a scripted stand-in drives the real Claude Code.
//
// With -driver modal the sandboxes are Modal's, with the credentials that
// Modal's own tools use (MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or ~/.modal.toml):
//
//	go run ./examples/server -driver modal
//
// The records of sandboxes and runs, and what Claude wrote, are in files below -data, and
// runs survive the process: the next server goes on with them. With -database they are in
// PostgreSQL, where several servers can share them:
//
//	VIVARIUM_DATABASE_URL=postgres://user:password@host/name go run ./examples/server
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/examples/internal/model"
	"github.com/vivarium-go/vivarium/examples/internal/place"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// account is whose everything is: this server has one.
const account = "local"

// shutdownTime is how long creations and deletions may go on after a signal; a second
// one ends the process at once.
const shutdownTime = 20 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

// settings are the command line's.
type settings struct {
	addr, data, token, driver, image, database string
	idle                                       time.Duration
	spares                                     int
}

func parse(args []string, getenv func(string) string, stderr io.Writer) (*settings, error) {
	s := &settings{}
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.addr, "addr", "127.0.0.1:8080", "`HOST:PORT` to serve on; port 0 picks one")
	flags.StringVar(&s.data, "data", "", "`DIR` for sandboxes, volumes and records (default: vivarium in the user's cache directory)")
	flags.StringVar(&s.token, "token", "", "what clients must send as a bearer `TOKEN` (default: VIVARIUM_TOKEN, which other users of this machine cannot see)")
	flags.StringVar(&s.database, "database", "", "`URL` of the PostgreSQL database for records and logs, postgres://… (default: VIVARIUM_DATABASE_URL, which other users of this machine cannot see; without that files below -data)")
	flags.StringVar(&s.driver, "driver", "local", "where sandboxes run: `local or modal`")
	flags.StringVar(&s.image, "image", "", "with -driver modal, an `IMAGE` that has Claude Code, and node or python3 (default: node:22-slim, in which Modal installs it)")
	flags.DurationVar(&s.idle, "idle", time.Hour, "end a sandbox that nobody has used for this `TIME`, after saving its volume; 0 is 24 hours after it was made")
	flags.IntVar(&s.spares, "spares", 0, "keep `N` sandboxes ready for who asks")
	if err := flags.Parse(args); err != nil {
		return nil, flag.ErrHelp
	}
	if s.idle < 0 || s.spares < 0 {
		return nil, errors.New("-idle and -spares: use 0 or more")
	}
	if flags.NArg() > 0 { // which may be a secret whose flag was forgotten
		return nil, errors.New("there are arguments that belong to no flag; see -h")
	}
	// Not the flags' own defaults, which -h prints.
	if s.token == "" {
		s.token = getenv("VIVARIUM_TOKEN")
	}
	if s.database == "" {
		s.database = getenv("VIVARIUM_DATABASE_URL")
	}
	if s.data == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("there is no cache directory for this user; give -data DIR: %w", err)
		}
		s.data = filepath.Join(cache, "vivarium")
	}
	return s, nil
}

// auth is who may use the server: with a token who has it, without one this
// machine's users, and only on a loopback address.
func (s *settings) auth() (sandboxhttp.Auth, error) {
	if s.token != "" {
		return sandboxhttp.BearerToken(s.token, &sandboxhttp.Principal{Account: account}), nil
	}
	host, _, err := net.SplitHostPort(s.addr)
	if err != nil {
		return nil, fmt.Errorf("-addr: use HOST:PORT: %w", err)
	}
	if addr, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !addr.Unmap().IsLoopback()) {
		return nil, fmt.Errorf("-addr %s is not a loopback address: set VIVARIUM_TOKEN, or give -token, so that not everybody who reaches it can use it", s.addr)
	}
	return sandboxhttp.Local(account), nil
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) (err error) {
	s, err := parse(args, getenv, stderr)
	if err != nil {
		return err
	}
	auth, err := s.auth()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.addr) // first, since it fails most often
	if err != nil {
		return fmt.Errorf("%w (give another -addr)", err)
	}
	defer listener.Close()
	api, err := model.Open(getenv)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	at, err := place.Open(ctx, s.driver, &place.Options{
		Dir: filepath.Join(s.data, "sandboxes"), Image: s.image, Getenv: getenv, Progress: stdout,
	})
	if err != nil {
		return fmt.Errorf("-driver: %w", err)
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	volumes, err := openVolumes(filepath.Join(s.data, "volumes"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, volumes.Close()) }()
	store, err := openRecords(ctx, s.database, filepath.Join(s.data, "records"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	living, err := s.pool(ctx, store)
	if err != nil {
		return err
	}
	handler, err := sandboxhttp.New(&sandboxhttp.Config{
		Provider: at.Provider,
		Auth:     auth,
		Sandbox:  at.Sandbox,
		// The sandbox is the limit: Claude may do in it what it likes.
		Claude:  &claude.Options{Endpoint: api.Endpoint, PermissionMode: claude.PermissionBypass},
		Volumes: volumes.open,
		Pool:    living,
		Store:   store,
		Logs:    store.logs,
		Usage:   store.Ledger(),
		Logger:  logger,
	})
	if err != nil {
		return err
	}
	page, err := newPage(api)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/sandbox", handler)
	mux.Handle("/sandbox/", handler)
	mux.Handle("/usage", handler)
	mux.Handle("/healthz", handler)
	mux.Handle("/readyz", handler)
	mux.Handle("/", page)
	if api.Notice != "" {
		fmt.Fprintln(stdout, api.Notice)
	}
	fmt.Fprintf(stdout, "Claude Code %s is ready on http://%s\n", at.Version, listener.Addr())
	return serve(ctx, listener, mux, handler, stdout)
}

// modalCap is how long Modal lets a sandbox live.
const modalCap = 24 * time.Hour

// pool says how sandboxes live. It is called after its records, so that two servers which
// share an account of Modal's and no records do not end each other's sandboxes.
func (s *settings) pool(ctx context.Context, store *records) (*pool.Options, error) {
	id, err := store.ID(ctx)
	if err != nil {
		return nil, err
	}
	o := &pool.Options{Store: store.Pool(), Name: "server-" + id, Idle: s.idle}
	if s.driver == "modal" {
		o.Cap = modalCap
	}
	if s.spares > 0 {
		o.Spares = []pool.Spare{{N: s.spares}}
	}
	return o, nil
}

func newPage(api *model.API) (http.Handler, error) {
	opts := &sandboxhttp.PageOptions{Banner: api.Notice}
	if api.Notice != "" {
		opts.Suggestions = []string{"write hello.txt: Hello from a sandbox", "run: id; uname -a; ls -la /", "run: cat /etc/shadow"}
	}
	return sandboxhttp.NewPage("/sandbox", opts)
}

// serve serves until ctx ends, and then lets what goes on come to its end.
func serve(ctx context.Context, l net.Listener, mux http.Handler, handler *sandboxhttp.Handler, stdout io.Writer) error {
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	fmt.Fprintln(stdout, "Ending. Sandboxes and runs live on until their time is over; a new server goes on with them.")
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer stop()
	err := handler.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // what took too long is cancelled, as said
	}
	return errors.Join(err, srv.Shutdown(ctx))
}
