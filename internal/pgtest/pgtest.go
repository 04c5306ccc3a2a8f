// Package pgtest runs real PostgreSQL servers for tests.
package pgtest

import (
	"bytes"
	"cmp"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver
)

// Server is a PostgreSQL server with a directory and a socket of its own. It keeps
// what was committed when its processes are killed, not when the machine is.
type Server struct {
	bin, dir string
	owner    owner

	mu      sync.Mutex
	schemas int
	process *process // nil while it is stopped
}

// The superuser, who needs the password.
const (
	superuser = "vivarium"
	password  = "pgtest/p@ss:word?" // of characters that an address must write otherwise
)

// shared is the server of this test binary, from its first use to its end.
var shared struct {
	mu     sync.Mutex
	main   bool
	server *Server
}

// runner is a *testing.M.
type runner interface{ Run() int }

// Main gives a runner of m's tests that stops the server of URL after them:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }
func Main(m runner) runner { return stopping{m} }

type stopping struct{ runner }

func (s stopping) Run() int {
	shared.mu.Lock()
	shared.main = true
	shared.mu.Unlock()
	code := s.runner.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server != nil {
		shared.server.end()
	}
	return code
}

// URL gives the address of an empty schema in the server that the tests of this binary
// share, for driver "pgx". It skips the test where there is no PostgreSQL. The binary
// needs Main.
func URL(t testing.TB) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.main {
		t.Fatal("pgtest: TestMain does not call Main")
	}
	if shared.server == nil {
		shared.server = start(t)
	}
	return shared.server.URL(t)
}

// Start runs a server that is this test's alone. It skips the test where there is no
// PostgreSQL, and stops the server with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := start(t)
	t.Cleanup(s.end)
	return s
}

func start(t testing.TB) *Server {
	t.Helper()
	s := &Server{bin: find(t)}
	var err error
	if s.owner, err = anOwner(); err == nil {
		s.dir, err = os.MkdirTemp("", "pgtest-")
	}
	if err == nil {
		err = s.initialize()
	}
	if err == nil {
		err = s.launch()
	}
	if err != nil {
		s.end()
		t.Fatalf("pgtest: %v", err)
	}
	return s
}

// find gives the directory of the server's programs, which distributions keep off
// the PATH.
func find(t testing.TB) string {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path)
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Skip("there is no PostgreSQL: no initdb on PATH or in /usr/lib/postgresql/*/bin; install the package postgresql")
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(version(a), version(b)) })
	return filepath.Dir(newest)
}

// initialize makes the files of an empty server.
func (s *Server) initialize() error {
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	for _, path := range []string{s.dir, secret} {
		if err := s.owner.take(path); err != nil {
			return err
		}
	}
	cmd := exec.Command(filepath.Join(s.bin, "initdb"), "--pgdata", filepath.Join(s.dir, "data"), "--username", superuser,
		"--auth", "scram-sha-256", "--pwfile", secret, "--encoding", "UTF8", "--locale", "C", "--no-sync")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = s.dir, environment, s.owner.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

var environment = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}

// process is a server's first process, and those it started.
type process struct {
	cmd    *exec.Cmd
	output output
	exited chan struct{} // closed when all are gone
}

// output collects what the server says, and tells when it is ready.
type output struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	ready chan struct{} // has one when it takes connections
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	if bytes.Contains(o.buf.Bytes(), []byte("ready to accept connections")) {
		select {
		case o.ready <- struct{}{}:
		default:
		}
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// launch starts the server's processes, and returns when they take connections.
func (s *Server) launch() error {
	p := &process{output: output{ready: make(chan struct{}, 1)}, exited: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(s.bin, "postgres"), "-D", filepath.Join(s.dir, "data"), "-k", s.dir,
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off", "-c", "shared_buffers=16MB")
	p.cmd.Dir, p.cmd.Env, p.cmd.SysProcAttr = s.dir, environment, s.owner.attributes()
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	started := make(chan error, 1)
	go func() {
		// The kernel ends the server with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.exited)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // its output says what went wrong
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	s.process = p
	select {
	case <-p.output.ready:
		return nil
	case <-p.exited:
	case <-limit.C:
	}
	return fmt.Errorf("the server does not take connections: %s", &p.output)
}

// stop sends a signal, and returns when all processes are gone.
func (s *Server) stop(sig syscall.Signal) {
	if s.process == nil {
		return
	}
	_ = s.process.cmd.Process.Signal(sig) // it may be gone
	<-s.process.exited
	s.process = nil
}

// end stops the server for good, and removes its files.
func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop(syscall.SIGQUIT)
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // a temporary directory
	}
}

// Restart stops the server in order, cutting all connections, and starts it again.
func (s *Server) Restart(t testing.TB) { s.again(t, syscall.SIGINT) }

// Crash ends the server's processes as they are, and starts it again: it then
// recovers from its log.
func (s *Server) Crash(t testing.TB) { s.again(t, syscall.SIGQUIT) }

func (s *Server) again(t testing.TB, sig syscall.Signal) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop(sig)
	if err := s.launch(); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

// URL gives the address of an empty schema.
func (s *Server) URL(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schemas++
	schema := fmt.Sprint("test", s.schemas)
	db, err := sql.Open("pgx", s.address(""))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "CREATE SCHEMA "+schema); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return s.address(schema)
}

func (s *Server) address(schema string) string {
	query := url.Values{"host": {s.dir}}
	if schema != "" {
		query.Set("search_path", schema)
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(superuser, password), Path: "/postgres", RawQuery: strings.ReplaceAll(query.Encode(), "+", "%20")}
	return u.String()
}
