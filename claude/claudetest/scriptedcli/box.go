package scriptedcli

import (
	"context"
	"io/fs"
	"iter"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// TB is the part of [testing.TB] that is needed.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Play is what the CLI does in one run of it. When it returns, the run ends with
// status 0, unless it has ended otherwise. It must return once [CLI.Ended] is
// closed; all methods of the CLI do. It is called on a goroutine of its own, for
// several runs at a time.
type Play func(c *CLI)

// Box is a sandbox whose commands are plays. It has no files, no network, and
// nothing that needs them, claude.Endpoint.Handler for one.
type Box struct {
	*sandbox.Sandbox

	id   string
	play Play
	t    TB

	mu    sync.Mutex
	runs  []*CLI
	ended bool
	end   driver.End
	over  chan struct{}
	wg    sync.WaitGroup
}

var boxes atomic.Int64

// Start returns a box for the play. At the end of the test it ends runs that are
// still going, and waits for their plays.
func Start(t TB, play Play) *Box {
	t.Helper()
	b := &Box{id: "scripted-" + strconv.FormatInt(boxes.Add(1), 10), play: play, t: t, over: make(chan struct{})}
	sb, err := sandbox.NewProvider(provider{b}).Create(context.Background(), nil)
	if err != nil {
		t.Fatalf("scriptedcli: %v", err)
		return nil
	}
	b.Sandbox = sb
	t.Cleanup(func() {
		b.finish("")
		b.wg.Wait()
	})
	return b
}

// Runs returns the runs so far, oldest first.
func (b *Box) Runs() []*CLI {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.runs)
}

// Lose ends the sandbox with everything in it, as its lifetime or a failure of the
// machine does. "" is driver.EndCancelled.
func (b *Box) Lose(end driver.End) { b.finish(end) }

func (b *Box) finish(end driver.End) {
	b.mu.Lock()
	runs := b.runs
	if !b.ended {
		b.ended, b.end = true, end
		if end == "" {
			b.end = driver.EndCancelled
		}
		close(b.over)
	}
	b.mu.Unlock()
	for _, c := range runs {
		c.stop(driver.Exit{}, driver.ErrEnded)
	}
}

// provider makes the one sandbox.
type provider struct{ box *Box }

func (p provider) Create(context.Context, *driver.Config) (driver.Sandbox, error) {
	return inside(p), nil
}

func (p provider) Attach(_ context.Context, id string) (driver.Sandbox, error) {
	if id != p.box.id {
		return nil, driver.ErrNotFound
	}
	return inside(p), nil
}

func (p provider) Lookup(context.Context, string) (string, error) { return "", driver.ErrNotFound }

func (p provider) List(context.Context, *driver.Filter) iter.Seq2[*driver.Info, error] {
	return func(func(*driver.Info, error) bool) {}
}

func (p provider) Close() error { return nil }

// inside is the box as a driver's sandbox.
type inside struct{ box *Box }

func (s inside) ID() string               { return s.box.id }
func (s inside) Files() driver.FileSystem { return noFiles{} }
func (s inside) Close() error             { return nil }

func (s inside) Info(context.Context) (*driver.Info, error) {
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	info := &driver.Info{ID: s.ID(), Dir: "/workspace", State: driver.StateRunning}
	if s.box.ended {
		info.State, info.End = driver.StateEnded, s.box.end
	}
	return info, nil
}

func (s inside) Wait(ctx context.Context) (*driver.Info, error) {
	select {
	case <-s.box.over:
		return s.Info(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s inside) Terminate(context.Context) error {
	s.box.finish("")
	return nil
}

func (s inside) Start(_ context.Context, e *driver.Exec) (driver.Process, error) {
	c := newCLI(s.box, e)
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	if s.box.ended {
		return nil, driver.ErrEnded
	}
	s.box.runs = append(s.box.runs, c)
	s.box.wg.Go(func() {
		s.box.play(c)
		c.Exit(0)
	})
	return process{c}, nil
}

// noFiles is a file system in which nothing is and nothing can be made.
type noFiles struct{}

func (noFiles) OpenFile(context.Context, string, int, fs.FileMode) (driver.File, error) {
	return nil, fs.ErrNotExist
}
func (noFiles) Stat(context.Context, string) (fs.FileInfo, error)      { return nil, fs.ErrNotExist }
func (noFiles) Lstat(context.Context, string) (fs.FileInfo, error)     { return nil, fs.ErrNotExist }
func (noFiles) ReadDir(context.Context, string) ([]fs.FileInfo, error) { return nil, fs.ErrNotExist }
func (noFiles) ReadLink(context.Context, string) (string, error)       { return "", fs.ErrNotExist }
func (noFiles) Mkdir(context.Context, string, fs.FileMode) error       { return fs.ErrPermission }
func (noFiles) MkdirAll(context.Context, string, fs.FileMode) error    { return fs.ErrPermission }
func (noFiles) Rename(context.Context, string, string) error           { return fs.ErrNotExist }
func (noFiles) Remove(context.Context, string) error                   { return fs.ErrNotExist }
func (noFiles) RemoveAll(context.Context, string) error                { return nil }
func (noFiles) Symlink(context.Context, string, string) error          { return fs.ErrPermission }
func (noFiles) Chmod(context.Context, string, fs.FileMode) error       { return fs.ErrNotExist }
func (noFiles) Chtimes(context.Context, string, time.Time, time.Time) error {
	return fs.ErrNotExist
}
