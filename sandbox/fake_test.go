package sandbox_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeProvider makes one kind of sandbox, in memory. Its fields say what it does.
type fakeProvider struct {
	driver.Provider
	create func(*driver.Config) (driver.Sandbox, error)
	infos  []*driver.Info
	filter *driver.Filter // of the last List
}

func (p *fakeProvider) Create(_ context.Context, cfg *driver.Config) (driver.Sandbox, error) {
	return p.create(cfg)
}

func (p *fakeProvider) Attach(context.Context, string) (driver.Sandbox, error) { return p.create(nil) }

func (p *fakeProvider) Lookup(_ context.Context, name string) (string, error) {
	if name != "known" {
		return "", driver.ErrNotFound
	}
	return "sb-1", nil
}

func (p *fakeProvider) List(_ context.Context, f *driver.Filter) iter.Seq2[*driver.Info, error] {
	p.filter = f
	return func(yield func(*driver.Info, error) bool) {
		for _, info := range p.infos {
			if !yield(info, nil) {
				return
			}
		}
		yield(nil, driver.ErrUnavailable)
	}
}

// fakeSandbox runs programs that are Go functions.
type fakeSandbox struct {
	driver.Sandbox
	program    program
	startErr   error
	infoErr    error
	files      driver.FileSystem
	mu         sync.Mutex
	started    []*driver.Exec
	terminated error // of the context that Terminate was called with
	ends       int
	closes     int
}

// program is what a command does. Its streams are closed when it returns, those
// of background when that returns.
type program func(p *fakeProcess) (driver.Exit, error)

func (s *fakeSandbox) ID() string { return "sb-1" }

func (s *fakeSandbox) Info(context.Context) (*driver.Info, error) {
	return &driver.Info{ID: "sb-1", Dir: "/workspace"}, s.infoErr
}

func (s *fakeSandbox) Files() driver.FileSystem { return s.files }

func (s *fakeSandbox) Terminate(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends++
	s.terminated = ctx.Err()
	return nil
}

func (s *fakeSandbox) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closes++
	return nil
}

func (s *fakeSandbox) Start(ctx context.Context, e *driver.Exec) (driver.Process, error) {
	s.mu.Lock()
	s.started = append(s.started, e)
	s.mu.Unlock()
	if s.startErr != nil {
		return nil, s.startErr
	}
	p := &fakeProcess{exec: e, killed: make(chan struct{}), signals: make(chan driver.Signal, 8), done: make(chan struct{})}
	p.in, p.stdin = pipeIf(e.Stdin)
	p.stdout, p.out = pipeIf(e.Stdout)
	p.stderr, p.err = pipeIf(e.Stderr)
	go func() {
		p.exit, p.waitErr = s.program(p)
		close(p.done)
		if p.background != nil {
			p.background()
		}
		for _, c := range []io.Closer{p.in, p.out, p.err} {
			_ = c.Close()
		}
	}()
	return p, nil
}

// last is the last command that was started.
func (s *fakeSandbox) last() *driver.Exec {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started[len(s.started)-1]
}

func pipeIf(wanted bool) (io.ReadCloser, io.WriteCloser) {
	if !wanted {
		return io.NopCloser(eof{}), discard{}
	}
	return io.Pipe()
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

type fakeProcess struct {
	exec       *driver.Exec
	in         io.ReadCloser // the command's side
	out, err   io.WriteCloser
	stdin      io.WriteCloser // this side
	stdout     io.ReadCloser
	stderr     io.ReadCloser
	killed     chan struct{}
	killOnce   sync.Once
	killErr    error
	signals    chan driver.Signal
	background func()
	done       chan struct{}
	exit       driver.Exit
	waitErr    error
}

func (p *fakeProcess) Stdin() io.WriteCloser {
	if !p.exec.Stdin {
		return nil
	}
	return p.stdin
}

func (p *fakeProcess) Stdout() io.ReadCloser {
	if !p.exec.Stdout {
		return nil
	}
	return p.stdout
}

func (p *fakeProcess) Stderr() io.ReadCloser {
	if !p.exec.Stderr {
		return nil
	}
	return p.stderr
}

func (p *fakeProcess) Wait(ctx context.Context) (driver.Exit, error) {
	select {
	case <-p.done:
		return p.exit, p.waitErr
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	}
}

func (p *fakeProcess) Signal(_ context.Context, sig driver.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
	}
	p.signals <- sig
	return nil
}

func (p *fakeProcess) Kill(context.Context) error {
	p.killOnce.Do(func() { close(p.killed) })
	return p.killErr
}

func (p *fakeProcess) Resize(context.Context, driver.Winsize) error { return nil }

// untilKilled is a program that ends when it is killed.
func untilKilled(p *fakeProcess) (driver.Exit, error) {
	<-p.killed
	return driver.Exit{Code: -1, Signal: driver.SIGKILL}, nil
}

// fake opens a sandbox in memory that runs run for every command.
func fake(t *testing.T, run program) (*sandbox.Sandbox, *fakeSandbox) {
	t.Helper()
	d := &fakeSandbox{program: run}
	p := sandbox.NewProvider(&fakeProvider{create: func(*driver.Config) (driver.Sandbox, error) { return d, nil }})
	sb, err := p.Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return sb, d
}

var errOnPurpose = errors.New("on purpose")
