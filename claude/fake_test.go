package claude_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// fakeSandbox is a sandbox whose every program is play: what a CLI might do on
// its streams, down to how the writes are cut.
func fakeSandbox(t *testing.T, play func(c *fakeCLI)) *sandbox.Sandbox {
	t.Helper()
	sb, err := sandbox.NewProvider(fakeProvider{play: play}).Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return sb
}

// missing is a program that is not there.
func missing(*fakeCLI) {}

type fakeProvider struct {
	driver.Provider
	play       func(c *fakeCLI)
	kernelPipe bool
}

func (p fakeProvider) Create(context.Context, *driver.Config) (driver.Sandbox, error) {
	return &fakeBox{play: p.play, kernelPipe: p.kernelPipe}, nil
}

func (p fakeProvider) List(context.Context, *driver.Filter) iter.Seq2[*driver.Info, error] {
	return func(func(*driver.Info, error) bool) {}
}

type fakeBox struct {
	driver.Sandbox
	play       func(c *fakeCLI)
	kernelPipe bool
	mu         sync.Mutex
	end        driver.End
}

func (b *fakeBox) ID() string               { return fmt.Sprintf("fake-%p", b) }
func (b *fakeBox) Files() driver.FileSystem { return noFiles{} }
func (b *fakeBox) Close() error             { return nil }

func (b *fakeBox) Info(context.Context) (*driver.Info, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	info := &driver.Info{ID: b.ID(), Dir: "/workspace", State: driver.StateRunning}
	if b.end != "" {
		info.State, info.End = driver.StateEnded, b.end
	}
	return info, nil
}

func (b *fakeBox) Start(_ context.Context, e *driver.Exec) (driver.Process, error) {
	if b.play == nil {
		return nil, fmt.Errorf("%s: %w", e.Args[0], exec.ErrNotFound)
	}
	// The program comes behind the script that locks the conversation.
	args := e.Args[5:]
	c := &fakeCLI{args: args, env: e.Env, box: b, ended: make(chan struct{}), signals: make(chan driver.Signal, 8)}
	c.inR, c.inW = io.Pipe()
	c.outR, c.outW = b.pipe()
	c.errR, c.errW = io.Pipe()
	c.in = bufio.NewReader(c.inR)
	go func() {
		b.play(c)
		c.exit(driver.Exit{})
	}()
	return c, nil
}

// pipe is what stdout goes through: as a rule one that keeps nothing, so that
// tests see every write.
func (b *fakeBox) pipe() (io.ReadCloser, io.WriteCloser) {
	if !b.kernelPipe {
		return io.Pipe()
	}
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	return r, w
}

type noFiles struct{ driver.FileSystem }

func (noFiles) Stat(context.Context, string) (fs.FileInfo, error) { return nil, fs.ErrNotExist }

// fakeCLI is one run of the program, from the inside, and the driver's process.
type fakeCLI struct {
	args, env []string
	box       *fakeBox
	in        *bufio.Reader
	signals   chan driver.Signal

	inR   *io.PipeReader
	inW   *io.PipeWriter
	outR  io.ReadCloser
	outW  io.WriteCloser
	errR  *io.PipeReader
	errW  *io.PipeWriter
	once  sync.Once
	ended chan struct{}
	end   driver.Exit
	err   error
}

// exit ends the program. Only the first call counts.
func (c *fakeCLI) exit(end driver.Exit) { c.stop(end, nil) }

// lose ends it as a sandbox that ended does.
func (c *fakeCLI) lose(end driver.End) {
	c.box.mu.Lock()
	c.box.end = end
	c.box.mu.Unlock()
	c.stop(driver.Exit{}, driver.ErrEnded)
}

func (c *fakeCLI) stop(end driver.Exit, err error) {
	c.once.Do(func() {
		c.end, c.err = end, err
		_ = c.outW.Close()
		_ = c.errW.Close()
		_ = c.inR.Close()
		close(c.ended)
	})
}

// write writes to stdout; errors mean that it was killed.
func (c *fakeCLI) write(format string, args ...any) {
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	_, _ = io.WriteString(c.outW, format)
}

// read gives the next line of stdin; nil at its end.
func (c *fakeCLI) read() map[string]any {
	line, err := c.in.ReadBytes('\n')
	if err != nil {
		return nil
	}
	var v map[string]any
	if err := json.Unmarshal(line, &v); err != nil {
		panic(err)
	}
	return v
}

// answer answers a control request with success.
func (c *fakeCLI) answer(request map[string]any, response string) {
	c.write(`{"type":"control_response","response":{"subtype":"success","request_id":%q,"response":%s}}`+"\n", request["request_id"], response)
}

// begin answers initialize and gives the prompt's uuid, and the request.
func (c *fakeCLI) begin() (uuid string, request map[string]any) {
	initialize := c.read()
	c.answer(initialize, "{}")
	uuid, _ = c.prompt()
	return uuid, initialize
}

// prompt reads a prompt.
func (c *fakeCLI) prompt() (uuid, text string) {
	line := c.read()
	if line == nil {
		return "", ""
	}
	message, _ := line["message"].(map[string]any)
	uuid, _ = line["uuid"].(string)
	text, _ = message["content"].(string)
	return uuid, text
}

// result writes the result of a prompt, with more fields as they are.
func (c *fakeCLI) result(uuid, more string) {
	c.write(`{"is_error":false,"subtype":"success","result":"done","num_turns":1,"total_cost_usd":0.5,"user_message_uuids":[%q],"session_id":"s-1"%s,"type":"result"}`+"\n", uuid, more)
}

// drain reads stdin to its end.
func (c *fakeCLI) drain() { _, _ = io.Copy(io.Discard, c.in) }

func (c *fakeCLI) Stdin() io.WriteCloser { return c.inW }
func (c *fakeCLI) Stdout() io.ReadCloser { return c.outR }
func (c *fakeCLI) Stderr() io.ReadCloser { return c.errR }

func (c *fakeCLI) Wait(ctx context.Context) (driver.Exit, error) {
	select {
	case <-c.ended:
		return c.end, c.err
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	}
}

func (c *fakeCLI) Signal(_ context.Context, sig driver.Signal) error {
	c.signals <- sig
	return nil
}

func (c *fakeCLI) Kill(context.Context) error {
	c.exit(driver.Exit{Code: -1, Signal: driver.SIGKILL})
	return nil
}

func (c *fakeCLI) Resize(context.Context, driver.Winsize) error { return nil }
