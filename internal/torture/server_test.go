package torture

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/claude/runlog/pglog"
	"github.com/vivarium-go/vivarium/internal/pgtest"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
)

// serverVariable has the settings of a server in its environment.
const serverVariable = "TORTURE_SERVER"

// settings are what a server is told.
type settings struct {
	Dir, Database, CLI string
	Mounts             []sandbox.Mount
}

// account is whose everything is.
const account = "torture"

// serve is the server, which says its address and serves until its standard input ends.
func serve(text string) (err error) {
	var s settings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	ctx := context.Background()
	p, err := localbox.Open(&localbox.Options{Dir: s.Dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	db, err := openDatabase(s.Database)
	if err != nil {
		return err
	}
	defer db.Close()
	store, logs, err := openRecords(ctx, db, s.Database)
	if err != nil {
		return err
	}
	defer logs.Close()
	handler, err := openHandler(ctx, &sandboxhttp.Config{
		Provider: p,
		Auth: func(*http.Request) (*sandboxhttp.Principal, error) {
			return &sandboxhttp.Principal{Account: account}, nil
		},
		Sandbox: &sandbox.Config{Mounts: s.Mounts, Timeout: time.Hour},
		Claude: &claude.Options{
			PermissionMode: claude.PermissionBypass, CLIPath: s.CLI, MaxRetries: 50, StartTimeout: 5 * time.Minute,
			Endpoint: claude.Endpoint{Handler: claudetest.NewHandler(claudetest.Prompted(), &claudetest.Options{Keep: -1})},
		},
		Limits: sandboxhttp.Limits{Sandboxes: 1000, Ended: 1000},
		Pool:   &pool.Options{Store: store.Pool(), Lease: 3 * time.Second, Interval: time.Second, Sweep: 5 * time.Second},
		Store:  store, Logs: logs, Usage: store.Ledger(),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // it ends
		ctx, stop := context.WithTimeout(ctx, time.Minute)
		defer stop()
		if err := errors.Join(handler.Shutdown(ctx), srv.Shutdown(ctx)); err != nil {
			slog.Error("cannot end in order", "error", err)
		}
	}()
	fmt.Println(l.Addr())
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return handler.Shutdown(ctx) // Serve returns when srv.Shutdown begins
}

// openDatabase gives a pool that leaves connections to other servers.
func openDatabase(url string) (*sql.DB, error) {
	db, err := sql.Open("pgx", url)
	if err == nil {
		db.SetMaxOpenConns(20)
	}
	return db, err
}

// openRecords tries until the database is there.
func openRecords(ctx context.Context, db *sql.DB, url string) (store *sqlstore.Store, logs *pglog.Store, err error) {
	for range 400 {
		if store, err = sqlstore.Open(ctx, db, sqlstore.PostgreSQL); err == nil {
			logs, err = pglog.Open(ctx, db, &pglog.Options{Listen: pgtest.Listen(url)})
		}
		if err == nil {
			return store, logs, nil
		}
		pause(ctx)
	}
	return nil, nil, err
}

// openHandler tries until the database is there.
func openHandler(ctx context.Context, config *sandboxhttp.Config) (handler *sandboxhttp.Handler, err error) {
	for range 400 {
		if handler, err = sandboxhttp.New(config); err == nil {
			return handler, nil
		}
		pause(ctx)
	}
	return nil, err
}

// server is a process that serves, and the one that takes its place when it was killed.
type server struct {
	variable string
	log      *os.File // what it says

	cmd     *exec.Cmd
	stdin   io.Closer
	ended   chan error
	address atomic.Pointer[string] // nil while it is not known
}

func newServer(t *testing.T, s *settings) *server {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.CreateTemp(t.TempDir(), "server-")
	if err != nil {
		t.Fatal(err)
	}
	srv := &server{variable: serverVariable + "=" + string(text), log: log}
	t.Cleanup(func() {
		srv.kill()
		_ = log.Close()
	})
	srv.start(t)
	return srv
}

func (s *server) start(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(self)
	s.cmd.Env = append(os.Environ(), s.variable)
	s.cmd.Stderr = s.log // a file: Wait would wait for all who have a pipe
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.stdin, s.ended = stdin, make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan<- error) {
		if scan := bufio.NewScanner(stdout); scan.Scan() {
			address := scan.Text()
			s.address.Store(&address)
		}
		ended <- cmd.Wait()
	}(s.cmd, s.ended)
}

// kill ends the process at once, if there is one.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
	s.address.Store(nil)
	s.cmd = nil
}

// stop ends it in order.
func (s *server) stop(t *testing.T) {
	t.Helper()
	_ = s.stdin.Close()
	select {
	case err := <-s.ended:
		s.cmd = nil
		if err != nil {
			t.Errorf("a server that was to end says %v", err)
		}
	case <-time.After(2 * time.Minute):
		t.Error("a server does not end")
	}
}

// said gives what all its processes have said.
func (s *server) said(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(s.log.Name())
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

// pause is before something is tried again.
func pause(ctx context.Context) {
	wait(ctx, time.Duration(50+rand.IntN(200))*time.Millisecond)
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
