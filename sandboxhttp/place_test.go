package sandboxhttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// place is a driver whose sandboxes are directories of the test. In them
// "claude" is a function of the test that speaks the CLI's protocol; other
// commands are run as they are. So a test decides when each line is written.
type place struct {
	t    testing.TB
	play func(*player) // what claude does; set before the first run
	deaf bool          // claude does not answer

	mu      sync.Mutex
	boxes   map[string]*placeBox
	created int
	opened  int // handles
	closed  int
	asked   int              // Infos of sandboxes
	fault   map[string]error // by operation
	gate    chan struct{}    // Create waits for it, if set
}

func newPlace(t testing.TB, play func(*player)) *place {
	return &place{t: t, play: play, boxes: map[string]*placeBox{}, fault: map[string]error{}}
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
	b := &placeBox{place: p, cfg: cfg, ended: make(chan struct{})}
	b.info = driver.Info{
		ID: fmt.Sprintf("place-%d", p.created), Name: cfg.Name, Driver: "place", Dir: p.t.TempDir(), State: driver.StateRunning,
		CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour), Tags: maps.Clone(cfg.Tags), Isolated: true,
		Unenforced: map[string]string{"Memory": "it is a directory"}, Ports: map[int]string{8000: "127.0.0.1:1"},
	}
	p.boxes[b.info.ID] = b
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
	info := b.info
	return &info, nil
}

// end ends the sandbox as its place would.
func (b *placeBox) end(why driver.End) {
	b.place.mu.Lock()
	defer b.place.mu.Unlock()
	if b.info.State == driver.StateEnded {
		return
	}
	b.info.State, b.info.End, b.info.EndedAt = driver.StateEnded, why, time.Now()
	close(b.ended)
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

func (b *placeBox) Files() driver.FileSystem { return noFiles{} }

// noFiles has no CLI at the place where one would be mounted; tests look for
// files in the sandbox's directory themselves.
type noFiles struct{ driver.FileSystem }

func (noFiles) Stat(context.Context, string) (fs.FileInfo, error) { return nil, fs.ErrNotExist }

func (b *placeBox) Start(ctx context.Context, e *driver.Exec) (driver.Process, error) {
	select {
	case <-b.ended:
		return nil, driver.ErrEnded
	default:
	}
	if err := b.place.faultOf("start"); err != nil {
		return nil, err
	}
	// A shell locks the conversation and becomes the CLI.
	if slices.Contains(e.Args, "claude") {
		return b.startClaude(e), nil
	}
	return startCommand(b.info.Dir, e)
}

// command is a real process, for what storage runs.
type command struct {
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr io.ReadCloser
	done           chan struct{}
}

func startCommand(dir string, e *driver.Exec) (*command, error) {
	c := &command{cmd: exec.Command(e.Args[0], e.Args[1:]...), done: make(chan struct{})}
	c.cmd.Dir, c.cmd.Env = dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, e.Env...)
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
		return driver.Exit{Code: c.cmd.ProcessState.ExitCode()}, nil
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	}
}

func (c *command) Signal(context.Context, driver.Signal) error  { return nil }
func (c *command) Kill(context.Context) error                   { return c.cmd.Process.Kill() }
func (c *command) Resize(context.Context, driver.Winsize) error { return nil }

// player is one run of the CLI, as a test writes it.
type player struct {
	args        []string
	env         []string
	prompt      string
	session     string
	system      string
	ctx         context.Context // ends when the CLI is killed or the sandbox ends
	interrupted chan struct{}   // closed when an interrupt was asked for

	mu     sync.Mutex
	stdout io.WriteCloser
	stderr io.WriteCloser
	exit   driver.Exit
}

// write writes a line, or fails silently when nobody reads any more.
func (p *player) write(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.stdout, line+"\n")
}

// say writes an assistant's line.
func (p *player) say(text string) {
	data, _ := json.Marshal(text)
	p.write(`{"type":"assistant","message":{"content":[{"type":"text","text":` + string(data) + `}]},"session_id":"` + p.session + `"}`)
}

// succeed writes the result of a turn that went well.
func (p *player) succeed() {
	p.write(`{"type":"result","subtype":"success","is_error":false,"result":"done","num_turns":2,"total_cost_usd":0.25,"session_id":"` + p.session + `"}`)
}

// stopped writes the result of a turn that was interrupted.
func (p *player) stopped() {
	p.write(`{"type":"result","subtype":"error_during_execution","is_error":true,"terminal_reason":"aborted_streaming","num_turns":1,"total_cost_usd":0.1,"session_id":"` + p.session + `"}`)
}

// claudeProcess is a player as a process.
type claudeProcess struct {
	in         *io.PipeWriter
	out, errs  io.ReadCloser
	kill       context.CancelFunc
	done       chan struct{}
	player     *player
	boxEnded   <-chan struct{}
	killSignal atomic.Bool
}

func (b *placeBox) startClaude(e *driver.Exec) *claudeProcess {
	inR, inW := io.Pipe()
	outR, outW, err := os.Pipe()
	if err != nil {
		b.place.t.Fatal(err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		b.place.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &player{
		args: e.Args, env: e.Env, ctx: ctx, interrupted: make(chan struct{}), stdout: outW, stderr: errW,
		session: "session-of-" + b.info.ID,
	}
	for _, arg := range e.Args {
		for _, flag := range []string{"--session-id=", "--resume="} {
			if id, ok := strings.CutPrefix(arg, flag); ok {
				p.session = id
			}
		}
	}
	c := &claudeProcess{in: inW, out: outR, errs: errR, kill: cancel, done: make(chan struct{}), player: p, boxEnded: b.ended}
	prompts := make(chan string, 1)
	stop := context.AfterFunc(ctx, func() { _ = inR.Close() })
	var wg sync.WaitGroup
	if b.place.deaf {
		wg.Go(func() { _, _ = io.Copy(io.Discard, inR) })
	} else {
		wg.Go(func() { p.listen(inR, prompts) })
	}
	go func() {
		defer close(c.done)
		defer func() { _, _, _ = outW.Close(), errW.Close(), inR.Close() }()
		ended := context.AfterFunc(ctx, func() { _ = outW.SetWriteDeadline(time.Now()) }) // a killed process writes no more
		defer ended()
		p.perform(b, prompts)
		_ = inR.Close()
		wg.Wait()
		stop()
		cancel()
	}()
	return c
}

// perform plays the prompt, if one comes before the end.
func (p *player) perform(b *placeBox, prompts <-chan string) {
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		select {
		case <-b.ended:
			// The context is the process's: its end is that of the sandbox.
			_ = p.stdout.Close()
		case <-finished:
		}
	}()
	select {
	case prompt, ok := <-prompts:
		if ok {
			p.prompt = prompt
			b.place.play(p)
		}
	case <-p.ctx.Done():
	case <-b.ended:
	}
}

// listen speaks the control protocol's side of the CLI.
func (p *player) listen(stdin io.Reader, prompts chan<- string) {
	defer close(prompts)
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, 16<<20)
	var once sync.Once
	for lines.Scan() {
		var line struct {
			Type      string `json:"type"`
			RequestID string `json:"request_id"`
			Request   struct {
				Subtype string   `json:"subtype"`
				System  []string `json:"systemPrompt"`
			} `json:"request"`
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return
		}
		switch line.Type {
		case "user":
			prompts <- line.Message.Content
		case "control_request":
			if line.Request.Subtype == "initialize" {
				p.system = strings.Join(line.Request.System, "\n")
			}
			p.write(`{"type":"control_response","response":{"subtype":"success","request_id":"` + line.RequestID + `","response":{}}}`)
			if line.Request.Subtype == "interrupt" {
				once.Do(func() { close(p.interrupted) })
			}
		}
	}
}

func (c *claudeProcess) Stdin() io.WriteCloser { return c.in }
func (c *claudeProcess) Stdout() io.ReadCloser { return c.out }
func (c *claudeProcess) Stderr() io.ReadCloser { return c.errs }

func (c *claudeProcess) Wait(ctx context.Context) (driver.Exit, error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	}
	select {
	case <-c.boxEnded:
		return driver.Exit{}, driver.ErrEnded
	default:
	}
	if c.killSignal.Load() {
		return driver.Exit{Code: -1, Signal: driver.SIGKILL}, nil
	}
	return c.player.exit, nil
}

func (c *claudeProcess) Signal(context.Context, driver.Signal) error { return nil }

func (c *claudeProcess) Kill(context.Context) error {
	select {
	case <-c.done:
	default:
		c.killSignal.Store(true)
		c.kill()
		<-c.done
	}
	return nil
}

func (c *claudeProcess) Resize(context.Context, driver.Winsize) error { return nil }
