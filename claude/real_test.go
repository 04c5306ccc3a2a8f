package claude_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// realBox is a sandbox without a network that has the real CLI in it, or a
// reason why the test is skipped.
func realBox(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	cli := clitest.CLI(t)
	dir, err := os.MkdirTemp("", "claude-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p, err := localbox.Open(&localbox.Options{Dir: dir})
	if err != nil {
		t.Skipf("needs isolated sandboxes: %v", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	sb, err := p.Create(ctx, &sandbox.Config{Mounts: cli.Mounts(), Timeout: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	boxDirs[sb] = dir
	t.Cleanup(func() {
		delete(boxDirs, sb)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(sb.Terminate(ctx), sb.Close()); err != nil {
			t.Errorf("terminate: %v", err)
		}
	})
	return sb
}

// boxDirs are where realBox keeps its sandboxes, for other processes.
var boxDirs = map[*sandbox.Sandbox]string{}

// scripted are options for the real CLI with a scripted model.
func scripted(script claudetest.Script) *claude.Options {
	return with(claudetest.NewHandler(script, nil))
}

func with(h http.Handler) *claude.Options {
	return &claude.Options{
		PermissionMode: claude.PermissionBypass, MaxRetries: -1,
		Endpoint: claude.Endpoint{Handler: h},
	}
}

func ask(t *testing.T, sb *sandbox.Sandbox, prompt string, opts *claude.Options) *claude.Stream {
	t.Helper()
	st, err := claude.Query(t.Context(), sb, prompt, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func mustResult(t *testing.T, st *claude.Stream) *claude.ResultMessage {
	t.Helper()
	res, err := st.Result()
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestRealWritesAFile(t *testing.T) {
	sb := realBox(t)
	st := ask(t, sb, "write hello.txt: hi there", scripted(claudetest.Prompted()))
	var tools []string
	for m, err := range st.Messages() {
		if err != nil {
			t.Fatal(err)
		}
		if m.SessionID() != st.SessionID() {
			t.Errorf("%s is of session %q, want %q", m.Type(), m.SessionID(), st.SessionID())
		}
		switch m := m.(type) {
		case *claude.InitMessage:
			if m.Dir != sb.Dir() || m.PermissionMode != claude.PermissionBypass || len(m.Tools) == 0 {
				t.Errorf("init is %+v", m)
			}
		case *claude.AssistantMessage:
			for _, use := range m.Content().ToolUses() {
				tools = append(tools, use.Name)
			}
		}
	}
	res := mustResult(t, st)
	if len(tools) != 1 || tools[0] != "Write" || res.Turns != 2 || res.CostUSD <= 0 || res.Usage.OutputTokens == 0 {
		t.Errorf("tools %q, result %+v", tools, res)
	}
	data, err := sb.FS(t.Context()).ReadFile("hello.txt")
	if err != nil || string(data) != "hi there" {
		t.Errorf("hello.txt: %q, %v", data, err)
	}
}

// The model says its second word only when the first has been read here: what
// was buffered on the way would never come.
func TestRealStreamsAsItHappens(t *testing.T) {
	sb := realBox(t)
	t.Run("lines", func(t *testing.T) {
		var gate claudetest.Gate
		st := ask(t, sb, "x", scripted(claudetest.Sequence(
			claudetest.Tool("Bash", map[string]any{"command": "echo marker-1", "description": "say it"}),
			claudetest.Join(gate.Wait, claudetest.Text("over")),
		)))
		for line, err := range st.Lines() {
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(line), `"tool_result"`) && strings.Contains(string(line), "marker-1") {
				gate.Open()
			}
		}
		if res := mustResult(t, st); res.Text != "over" {
			t.Errorf("result %q", res.Text)
		}
	})
	t.Run("words", func(t *testing.T) {
		var gate claudetest.Gate
		opts := scripted(claudetest.Join(claudetest.Text("one "), gate.Wait, claudetest.Text("two")))
		opts.Partial = true
		var words []string
		for word, err := range ask(t, sb, "x", opts).Text() {
			if err != nil {
				t.Fatal(err)
			}
			words = append(words, word)
			gate.Open()
		}
		if got := strings.Join(words, "|"); got != "one |two" {
			t.Errorf("words %q", got)
		}
	})
}

func TestRealSession(t *testing.T) {
	sb := realBox(t)
	model := claudetest.NewHandler(func(w *claudetest.Reply, r *claudetest.Request) {
		w.Text("you said " + r.Prompt())
	}, nil)
	opts := with(model)
	opts.SystemPrompt, opts.AppendSystemPrompt = "be a parrot", "and polite"
	client := claude.NewClient(sb, opts)
	s, err := client.NewSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := s.ID()
	turn := func(s *claude.Session, prompt string) {
		t.Helper()
		st := send(t, s, prompt)
		if res := mustResult(t, st); res.Text != "you said "+prompt || st.SessionID() != s.ID() {
			t.Errorf("%q was answered with %q in %s", prompt, res.Text, st.SessionID())
		}
	}
	turn(s, "one")
	if err := s.SetModel(t.Context(), "haiku"); err != nil {
		t.Fatal(err)
	}
	turn(s, "two")
	asked := model.Requests(claudetest.Main)
	if last := asked[len(asked)-1]; !strings.Contains(last.Model, "haiku") || !strings.Contains(last.System, "be a parrot") || !strings.Contains(last.System, "and polite") {
		t.Errorf("asked %s with the system prompt %q", last.Model, last.System)
	}
	if err := s.SetPermissionMode(t.Context(), claude.PermissionPlan); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	resumed, err := client.Resume(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer resumed.Close()
	turn(resumed, "three")
	if resumed.ID() != id {
		t.Errorf("resumed as %s, want %s", resumed.ID(), id)
	}
	if said := conversation(model); !strings.Contains(said, "one") || !strings.Contains(said, "two") {
		t.Errorf("the model was told %q: the turns before are missing", said)
	}
	fork, err := client.Fork(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer fork.Close()
	turn(fork, "four")
	if said := conversation(model); fork.ID() == id || !strings.Contains(said, "one") {
		t.Errorf("forked as %s of %s, told %q", fork.ID(), id, said)
	}
}

// conversation is what the model was told last.
func conversation(model *claudetest.Handler) string {
	asked := model.Requests(claudetest.Main)
	var said strings.Builder
	for _, m := range asked[len(asked)-1].Messages {
		for _, b := range m.Content {
			said.WriteString(b.Text + "\n")
		}
	}
	return said.String()
}

func TestRealInterrupt(t *testing.T) {
	sb := realBox(t)
	var gate claudetest.Gate
	s, err := claude.NewClient(sb, scripted(claudetest.Sequence(
		claudetest.Join(claudetest.Text("one "), gate.Wait, claudetest.Text("two")),
		claudetest.Text("still here"),
	))).NewSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st := send(t, s, "x")
	<-gate.Reached()
	if err := s.Interrupt(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = st.Result()
	var failed *claude.ResultError
	if !errors.As(err, &failed) || failed.Kind != claude.KindInterrupted {
		t.Errorf("Result: %v, want an interrupted turn", err)
	}
	if res := mustResult(t, send(t, s, "go on")); res.Text != "still here" {
		t.Errorf("the next turn says %q", res.Text)
	}
}

// An interrupt right behind the prompt meets a CLI that has not begun with it.
func TestRealInterruptAtOnce(t *testing.T) {
	sb := realBox(t)
	var gate claudetest.Gate
	s, err := claude.NewClient(sb, scripted(claudetest.Join(gate.Wait, claudetest.Text("late")))).NewSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 3 {
		st := send(t, s, "x")
		if err := s.Interrupt(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Result(); claude.EndOf(err) != claude.EndCancelled {
			t.Errorf("Result: %v, want an interrupted turn", err)
		}
	}
}

func TestRealFailures(t *testing.T) {
	sb := realBox(t)
	loop := claudetest.Tool("Bash", map[string]any{"command": "true", "description": "do nothing"})
	tests := map[string]struct {
		script claudetest.Script
		change func(o *claude.Options)
		kind   claude.Kind
	}{
		"key":        {claudetest.Error(401, "authentication_error", "invalid x-api-key"), nil, claude.KindAuthentication},
		"rate limit": {claudetest.RateLimited(time.Second), nil, claude.KindRateLimit},
		"overloaded": {claudetest.Overloaded(), nil, claude.KindOverloaded},
		"refused":    {claudetest.Error(400, "invalid_request_error", "no"), nil, claude.KindInvalid},
		"broken":     {claudetest.Error(500, "api_error", "no"), nil, claude.KindAPI},
		"cut":        {claudetest.Disconnect(), nil, claude.KindAPI},
		"turns":      {loop, func(o *claude.Options) { o.MaxTurns = 2 }, claude.KindMaxTurns},
		"budget":     {loop, func(o *claude.Options) { o.MaxBudgetUSD = 0.00003 }, claude.KindBudget},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			opts := scripted(test.script)
			if test.change != nil {
				test.change(opts)
			}
			res, err := ask(t, sb, "x", opts).Result()
			var failed *claude.ResultError
			if !errors.As(err, &failed) || failed.Kind != test.kind || res == nil {
				t.Errorf("Result() = %+v, %v; want kind %s", res, err, test.kind)
			}
		})
	}
	t.Run("no conversation", func(t *testing.T) {
		opts := scripted(claudetest.Text("x"))
		opts.Resume = "11111111-1111-4111-8111-111111111111"
		if _, err := claude.Query(t.Context(), sb, "x", opts); !errors.Is(err, claude.ErrUnknownConversation) {
			t.Errorf("Query: %v, want ErrUnknownConversation", err)
		}
	})
}

func TestRealBackgroundWork(t *testing.T) {
	sb := realBox(t)
	script := func(command string) claudetest.Script {
		return claudetest.Sequence(
			claudetest.Tool("Bash", map[string]any{"command": command, "description": "wait", "run_in_background": true}),
			claudetest.Text("begun"), claudetest.Text("ended"))
	}
	t.Run("waited for", func(t *testing.T) {
		if res := mustResult(t, ask(t, sb, "x", scripted(script("sleep 1")))); res.Text != "ended" || res.Origin != "task-notification" {
			t.Errorf("result %q of origin %q, want what came of the background", res.Text, res.Origin)
		}
	})
	t.Run("not waited for", func(t *testing.T) {
		opts := scripted(script("sleep 600"))
		opts.BackgroundWait = -1
		if res := mustResult(t, ask(t, sb, "x", opts)); res.Text != "begun" {
			t.Errorf("result %q", res.Text)
		}
		gone(t, sb, "sleep 600")
	})
}

// gone checks that no process of that name is left.
func gone(t *testing.T, sb *sandbox.Sandbox, name string) {
	t.Helper()
	script := `for p in /proc/[0-9]*; do tr '\0' ' ' <$p/cmdline 2>/dev/null | grep -F -x -- "$0 " && exit 1; done; exit 0`
	if out, err := sb.Command(t.Context(), "sh", "-c", script, name).Output(); err != nil {
		t.Errorf("%q is still running: %s %v", name, out, err)
	}
}

func TestRealKill(t *testing.T) {
	sb := realBox(t)
	var gate claudetest.Gate
	opts := scripted(claudetest.Sequence(
		claudetest.Join(claudetest.Text("x"), claudetest.Tool("Bash", map[string]any{
			"command": "setsid sleep 700 >/dev/null 2>&1 & echo on", "description": "leave something"})),
		gate.Wait,
	))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	st, err := claude.Query(ctx, sb, "x", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	<-gate.Reached()
	cancel()
	if _, err := st.Result(); !errors.Is(err, context.Canceled) || claude.EndOf(err) != claude.EndCancelled {
		t.Errorf("Result: %v, want context.Canceled", err)
	}
	gone(t, sb, "sleep 700")
	again := scripted(claudetest.Text("back"))
	again.Resume = st.SessionID()
	if res := mustResult(t, ask(t, sb, "go on", again)); res.Text != "back" || res.SessionID() != st.SessionID() {
		t.Errorf("after the kill: %q in %s", res.Text, res.SessionID())
	}
}
