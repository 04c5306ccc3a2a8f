package sandboxhttp_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// place is a driver whose sandboxes are directories of the test, and processes of this
// machine. In them "claude" is a program that does what a function of the test wants,
// which speaks the CLI's protocol. So a test decides when each line is written.
type place struct {
	t      testing.TB
	play   func(*player) // what claude does; set before the first run
	deaf   bool          // claude does not answer
	bin    string        // a directory with "claude"
	socket string        // where that finds the test

	pools pool.MemoryStore // for servers that share the place, or follow each other

	mu      sync.Mutex
	boxes   map[string]*placeBox
	created int
	opened  int // handles
	closed  int
	asked   int              // Infos of sandboxes
	fault   map[string]error // by operation
	gate    chan struct{}    // Create waits for it, if set
	all     []*placeBox
	ooms    atomic.Uint64
}

func newPlace(t testing.TB, play func(*player)) *place {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("jobs need /proc")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "place-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Symlink(self, filepath.Join(dir, "claude")); err != nil {
		t.Fatal(err)
	}
	p := emptyPlace()
	p.t, p.play, p.bin, p.socket = t, play, dir, filepath.Join(dir, "socket")
	p.listen(t)
	return p
}

// emptyPlace is one that is asked for no sandbox.
func emptyPlace() *place {
	return &place{boxes: map[string]*placeBox{}, fault: map[string]error{}}
}

func (p *place) provider() *sandbox.Provider { return sandbox.NewProvider(p) }

// fail makes an operation fail from now on; nil makes it work again.
func (p *place) fail(op string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault[op] = err
}

func (p *place) faultOf(op string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault[op]
}

// alive counts the sandboxes that run.
func (p *place) alive() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, b := range p.boxes {
		if b.info.State == driver.StateRunning {
			n++
		}
	}
	return n
}

// only gives the one sandbox that there is.
func (p *place) only() *placeBox {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.boxes {
		return b
	}
	p.t.Fatal("there is no sandbox")
	return nil
}

func (p *place) Create(ctx context.Context, cfg *driver.Config) (driver.Sandbox, error) {
	if p.gate != nil {
		select {
		case <-p.gate:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.fault["create"]
	if err != nil && p.fault["lost answer"] == nil {
		return nil, err
	}
	p.created++
	p.opened++
	b := &placeBox{place: p, cfg: cfg, temp: p.t.TempDir(), ended: make(chan struct{})}
	b.info = driver.Info{
		ID: fmt.Sprintf("place-%d", p.created), Name: cfg.Name, Driver: "place", Dir: p.t.TempDir(), State: driver.StateRunning,
		CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour), Tags: maps.Clone(cfg.Tags),
		Unenforced: map[string]string{"Memory": "it is a directory"}, Ports: map[int]string{8000: "127.0.0.1:1"},
	}
	p.boxes[b.info.ID] = b
	p.all = append(p.all, b)
	return b, err
}

func (p *place) Attach(ctx context.Context, id string) (driver.Sandbox, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.boxes[id]
	switch {
	case p.fault["attach"] != nil:
		return nil, p.fault["attach"]
	case b == nil:
		return nil, driver.ErrNotFound
	case b.info.State == driver.StateEnded:
		return nil, driver.ErrEnded
	}
	p.opened++
	return b, nil
}

func (p *place) Lookup(ctx context.Context, name string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, b := range p.boxes {
		if b.info.Name == name && b.info.State == driver.StateRunning {
			return id, nil
		}
	}
	return "", driver.ErrNotFound
}

func (p *place) List(ctx context.Context, filter *driver.Filter) iter.Seq2[*driver.Info, error] {
	return func(yield func(*driver.Info, error) bool) {
		if err := p.faultOf("list"); err != nil {
			yield(nil, err)
			return
		}
		for _, info := range p.matching(filter) {
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (p *place) matching(filter *driver.Filter) (list []*driver.Info) {
	p.mu.Lock()
	defer p.mu.Unlock()
next:
	for _, b := range p.boxes {
		if b.info.State == driver.StateEnded && !filter.Ended {
			continue
		}
		for k, v := range filter.Tags {
			if b.info.Tags[k] != v {
				continue next
			}
		}
		info := b.info
		list = append(list, &info)
	}
	return list
}

func (p *place) Close() error { return nil }

// placeBox is a sandbox of a place.
type placeBox struct {
	place *place
	cfg   *driver.Config
	info  driver.Info // under place.mu
	temp  string      // its TMPDIR
	ended chan struct{}
}

func (b *placeBox) ID() string { return b.info.ID }

func (b *placeBox) Info(context.Context) (*driver.Info, error) {
	if err := b.place.faultOf("info"); err != nil {
		return nil, err
	}
	b.place.mu.Lock()
	defer b.place.mu.Unlock()
	b.place.asked++
	if b.place.boxes[b.info.ID] == nil {
		return nil, driver.ErrNotFound
	}
	info := b.info
	return &info, nil
}

// end ends the sandbox as its place would.
func (b *placeBox) end(why driver.End) {
	b.place.mu.Lock()
	ended := b.info.State == driver.StateEnded
	if !ended {
		b.info.State, b.info.End, b.info.EndedAt = driver.StateEnded, why, time.Now()
		close(b.ended)
	}
	b.place.mu.Unlock()
	b.killAll()
}

func (b *placeBox) Wait(ctx context.Context) (*driver.Info, error) {
	select {
	case <-b.ended:
		return b.Info(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (b *placeBox) Terminate(context.Context) error {
	if err := b.place.faultOf("terminate"); err != nil {
		return err
	}
	b.end(driver.EndCancelled)
	return nil
}

func (b *placeBox) Close() error {
	b.place.mu.Lock()
	defer b.place.mu.Unlock()
	b.place.closed++
	return nil
}

func (b *placeBox) Files() driver.FileSystem { return placeFiles{b} }

// OOMKills implements driver.OOMCounter: what players say.
func (b *placeBox) OOMKills(context.Context) (uint64, error) { return b.place.ooms.Load(), b.over() }

// over reports the end of the sandbox.
func (b *placeBox) over() error {
	select {
	case <-b.ended:
		return driver.ErrEnded
	default:
		return nil
	}
}

func (b *placeBox) Start(ctx context.Context, e *driver.Exec) (driver.Process, error) {
	if err := b.over(); err != nil {
		return nil, err
	}
	if err := b.place.faultOf("start"); err != nil {
		return nil, err
	}
	return b.startCommand(e)
}

// command is a process of a sandbox.
type command struct {
	box            *placeBox
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr io.ReadCloser
	done           chan struct{}
}

// placeVariable names the sandbox in the environment of its processes.
const placeVariable = "PLACE_BOX="

func (b *placeBox) startCommand(e *driver.Exec) (*command, error) {
	c := &command{box: b, cmd: exec.Command(e.Args[0], e.Args[1:]...), done: make(chan struct{})}
	c.cmd.Dir = e.Dir
	if c.cmd.Dir == "" {
		c.cmd.Dir = b.info.Dir
	}
	c.cmd.Env = append([]string{
		"PATH=" + b.place.bin + ":" + os.Getenv("PATH"), "HOME=" + b.temp, "TMPDIR=" + b.temp,
		placeVariable + b.temp, socketVariable + b.place.socket, boxVariable + b.info.ID,
	}, e.Env...)
	var theirs []*os.File
	pipe := func(want, in bool) (ours *os.File, their *os.File) {
		if !want {
			return nil, nil
		}
		r, w, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		if in {
			r, w = w, r
		}
		theirs = append(theirs, w)
		return r, w
	}
	if ours, their := pipe(e.Stdin, true); ours != nil {
		c.stdin, c.cmd.Stdin = ours, their
	}
	if ours, their := pipe(e.Stdout, false); ours != nil {
		c.stdout, c.cmd.Stdout = ours, their
	}
	if ours, their := pipe(e.Stderr, false); ours != nil {
		c.stderr, c.cmd.Stderr = ours, their
	}
	err := c.cmd.Start()
	for _, f := range theirs {
		_ = f.Close()
	}
	if err != nil {
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

func (c *command) Stdin() io.WriteCloser { return c.stdin }
func (c *command) Stdout() io.ReadCloser { return c.stdout }
func (c *command) Stderr() io.ReadCloser { return c.stderr }

func (c *command) Wait(ctx context.Context) (driver.Exit, error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	}
	return driver.Exit{Code: c.cmd.ProcessState.ExitCode()}, c.box.over()
}

func (c *command) Signal(context.Context, driver.Signal) error  { return nil }
func (c *command) Kill(context.Context) error                   { return c.cmd.Process.Kill() }
func (c *command) Resize(context.Context, driver.Winsize) error { return nil }

// jobs are the names of those that are left.
func (b *placeBox) jobs() []string {
	list, _ := filepath.Glob(filepath.Join(b.temp, ".vivarium-jobs", "*"))
	return list
}
