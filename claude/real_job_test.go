package claude_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/broker"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// The test binary follows a run of that name in that sandbox, until it is killed, and
// prints a dot for each line.
const (
	followDirEnv = "VIVARIUM_TEST_FOLLOW_DIR"
	followBoxEnv = "VIVARIUM_TEST_FOLLOW_BOX"
)

const (
	followed     = "a-run"
	followedRuns = 12
)

func init() {
	if dir := os.Getenv(followDirEnv); dir != "" && len(os.Args) == 1 {
		if err := followRun(dir, os.Getenv(followBoxEnv)); err != nil {
			fmt.Fprintln(os.Stderr, "follow:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func followRun(dir, id string) error {
	ctx := context.Background()
	p, err := localbox.Open(&localbox.Options{Dir: dir})
	if err != nil {
		return err
	}
	sb, err := p.Attach(ctx, id)
	if err != nil {
		return err
	}
	st, err := startOrAdopt(ctx, sb, durable(claudetest.Prompted()))
	if err != nil {
		return err
	}
	for _, err := range st.Lines() {
		if err != nil {
			return err
		}
		fmt.Print(".")
	}
	_, err = st.Result()
	return err
}

// durable are options for runs that are taken over: the CLI must try again where the
// model's API is away for a while, and only tokens of a broker are served.
func durable(script claudetest.Script) *claude.Options {
	opts := scripted(script)
	opts.MaxRetries = 0
	return opts
}

// startOrAdopt is what a server does that may have been killed at any point.
func startOrAdopt(ctx context.Context, sb *sandbox.Sandbox, opts *claude.Options) (*claude.Stream, error) {
	c := claude.NewClient(sb, opts)
	var prompt strings.Builder
	for i := range followedRuns {
		fmt.Fprintf(&prompt, "run: echo %d >> done\n", i)
	}
	st, err := c.Start(ctx, followed, prompt.String())
	if errors.Is(err, fs.ErrExist) {
		return c.Adopt(ctx, followed)
	}
	return st, err
}

// journal is all that a job wrote.
func journal(t *testing.T, sb *sandbox.Sandbox, name string) string {
	t.Helper()
	job, err := sb.Job(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	out, err := job.Output(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	all, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// TestRealRunIsTakenOver kills those who follow a run, at any point of it: all that
// Claude did it did once, and the last one to follow gets all of it.
func TestRealRunIsTakenOver(t *testing.T) {
	sb := realBox(t)
	info, err := sb.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), followDirEnv+"="+boxDirs[sb], followBoxEnv+"="+info.ID)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		// Until so many lines were given, or a moment before there are any.
		if n := rand.IntN(10); n == 0 {
			timer := time.NewTimer(time.Duration(rand.IntN(500)) * time.Millisecond)
			<-timer.C
		} else {
			_, _ = io.ReadFull(bufio.NewReader(out), make([]byte, n)) // or to its end
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed, or has seen the end
	}
	var whole bytes.Buffer
	opts := durable(claudetest.Prompted())
	opts.Journal = &whole
	st, err := startOrAdopt(t.Context(), sb, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for line, err := range st.Lines() {
		if err != nil {
			t.Fatalf("after %q: %v", line, err)
		}
	}
	if res := mustResult(t, st); res.Turns != followedRuns+1 {
		t.Errorf("%d turns", res.Turns)
	}
	var want strings.Builder
	for i := range followedRuns {
		fmt.Fprintln(&want, i)
	}
	if got, err := sb.FS(t.Context()).ReadFile("done"); string(got) != want.String() || err != nil {
		t.Errorf("done: %q, %v", got, err)
	}
	if all := journal(t, sb, followed); whole.String() != all {
		t.Errorf("the last one to follow got %d bytes, the job wrote %d", whole.Len(), len(all))
	}
}

// TestRealDetach lets go of a run where Claude waits for an answer of ours, and takes it
// over: the question is asked again, the prompt is not.
func TestRealDetach(t *testing.T) {
	sb := realBox(t)
	model := claudetest.Start(t, claudetest.Prompted())
	newBroker := func() *broker.Broker { // as each process has one of its own
		transport := &http.Transport{}
		t.Cleanup(transport.CloseIdleConnections)
		b, err := broker.New(&broker.Options{Upstream: model.URL, Key: broker.APIKey("sk-ant-the-real-one"), Transport: transport})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	opts := durable(nil)
	opts.Endpoint.Handler, opts.PermissionMode = newBroker(), claude.PermissionDefault
	var asked atomic.Int64
	waiting := make(chan struct{})
	opts.CanUseTool = func(ctx context.Context, use *claude.ToolRequest) (*claude.Permission, error) {
		if asked.Add(1) == 1 {
			close(waiting)
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		return &claude.Permission{Allowed: true}, nil
	}
	var before, after bytes.Buffer
	opts.Journal = &before
	st, err := claude.NewClient(sb, opts).Start(t.Context(), "r", "write hello.txt: hi there")
	if err != nil {
		t.Fatal(err)
	}
	<-waiting
	if err := st.Detach(); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Result(); !errors.Is(err, claude.ErrDetached) || !errors.Is(err, claude.ErrNoResult) {
		t.Errorf("the stream that was let go of: %v", err)
	}
	if _, err := claude.NewClient(sb, opts).Start(t.Context(), "r", "again"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	opts.Journal, opts.Endpoint.Handler = &after, newBroker()
	st, err = claude.NewClient(sb, opts).Adopt(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	mustResult(t, st)
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	if data, err := sb.FS(t.Context()).ReadFile("hello.txt"); string(data) != "hi there" || err != nil {
		t.Errorf("hello.txt: %q, %v", data, err)
	}
	if all := journal(t, sb, "r"); after.String() != all || !strings.HasPrefix(all, before.String()) || before.Len() == 0 {
		t.Errorf("the job wrote %d bytes, of which %d and %d were given", len(all), before.Len(), after.Len())
	}
	again, err := claude.NewClient(sb, opts).Adopt(t.Context(), "r") // it has ended
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if mustResult(t, again).Turns != 2 || asked.Load() != 2 {
		t.Errorf("what has ended gives another result, or was asked again")
	}
}

// refusing is a journal that takes nothing.
type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }

// TestRealDetachAtTheStart lets go of a run before the CLI has answered: the one that
// takes it over asks the prompt.
func TestRealDetachAtTheStart(t *testing.T) {
	sb := realBox(t)
	opts := durable(claudetest.Prompted())
	full := errors.New("the disk is full")
	opts.Journal = refusing{full}
	st, err := claude.NewClient(sb, opts).Start(t.Context(), "r", "write hello.txt: hi there")
	var failed *claude.StartError
	if st != nil || !errors.As(err, &failed) || !errors.Is(err, claude.ErrDetached) || !errors.Is(err, full) {
		t.Fatalf("Start: %v", err)
	}
	opts.Journal = nil
	if st, err = claude.NewClient(sb, opts).Adopt(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	mustResult(t, st)
	if data, err := sb.FS(t.Context()).ReadFile("hello.txt"); string(data) != "hi there" || err != nil {
		t.Errorf("hello.txt: %q, %v", data, err)
	}
}

// TestRealDetachAfterTheResult lets go of a run that has its result, and goes on for what
// runs in the background: it has not ended, and the one that takes it over sees it end.
func TestRealDetachAfterTheResult(t *testing.T) {
	sb := realBox(t)
	opts := durable(claudetest.Sequence(
		claudetest.Tool("Bash", map[string]any{"command": "until [ -e go ]; do sleep 0.1; done", "description": "wait", "run_in_background": true}),
		claudetest.Text("begun"), claudetest.Text("it has ended"),
	))
	st, err := claude.NewClient(sb, opts).Start(t.Context(), "r", "x")
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range st.Messages() {
		if err != nil {
			if !errors.Is(err, claude.ErrDetached) {
				t.Errorf("the stream ends with %v", err)
			}
			break
		}
		if _, ok := m.(*claude.ResultMessage); ok {
			if err := st.Detach(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := st.Result(); !errors.Is(err, claude.ErrDetached) || claude.EndOf(err) != claude.EndUnknown {
		t.Errorf("what was let go of ends with %v, %s", err, claude.EndOf(err))
	}
	if st, err = claude.NewClient(sb, opts).Adopt(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := sb.FS(t.Context()).WriteFile("go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustResult(t, st)
}

// TestRealDetachByContext ends the context that a run was started with, and closes it
// when it is taken over: only that ends the CLI.
func TestRealDetachByContext(t *testing.T) {
	sb := realBox(t)
	var gate claudetest.Gate
	opts := durable(claudetest.Sequence(claudetest.Tool("Bash", map[string]any{"command": "sleep 600", "description": "wait"}), gate.Wait))
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	st, err := claude.NewClient(sb, opts).Start(ctx, "r", "x")
	if err != nil {
		t.Fatal(err)
	}
	cancel(why)
	if _, err := st.Result(); !errors.Is(err, claude.ErrDetached) || !errors.Is(err, why) {
		t.Errorf("after the context's end: %v", err)
	}
	job, err := sb.Job(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := job.Status(t.Context()); err != nil || st.Exit != nil || st.Lost {
		t.Fatalf("the run: %+v, %v", st, err)
	}
	st, err = claude.NewClient(sb, opts).Adopt(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Interrupt(t.Context()); err != nil {
		t.Fatal(err)
	}
	var failed *claude.ResultError
	if _, err := st.Result(); !errors.As(err, &failed) || failed.Kind != claude.KindInterrupted {
		t.Errorf("after the interrupt: %v", err)
	}
	if st, err = claude.NewClient(sb, opts).Start(t.Context(), "closed", "x"); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if job, err = sb.Job(t.Context(), "closed"); err != nil {
		t.Fatal(err)
	}
	if st, err := job.Status(t.Context()); err != nil || st.Exit == nil {
		t.Errorf("after Close: %+v, %v", st, err)
	}
	if _, err := claude.NewClient(sb, opts).Adopt(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Adopt of none: %v", err)
	}
	if _, err := sb.StartJob(t.Context(), &sandbox.JobConfig{Name: "other", Args: []string{"true"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := claude.NewClient(sb, opts).Adopt(t.Context(), "other"); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("Adopt of another job: %v", err)
	}
}
