package claude_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/claude/mcpserver"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/dirbucket"
)

// putsOff are options with which every use of these tools is put off.
func putsOff(script claudetest.Script, tools ...string) *claude.Options {
	opts := scripted(script)
	opts.Defer = func(_ context.Context, use *claude.ToolRequest) (bool, error) {
		for _, tool := range tools {
			if use.Tool == tool {
				return true, nil
			}
		}
		return false, nil
	}
	return opts
}

// mustDefer is the use with which a run ends.
func mustDefer(t *testing.T, st *claude.Stream) *claude.DeferredToolUse {
	t.Helper()
	res := mustResult(t, st)
	if res.DeferredToolUse == nil || res.DeferredToolUse.ID == "" {
		t.Fatalf("nothing was put off: %s", res.Raw())
	}
	return res.DeferredToolUse
}

// answering are options that answer a use that was put off in a conversation.
func answering(opts *claude.Options, conversation, use string, answer *claude.Permission) *claude.Options {
	o := *opts
	o.Resume, o.Answers = conversation, map[string]*claude.Permission{use: answer}
	return &o
}

// moved ends a sandbox, and gives another with its workspace and its conversations.
func moved(t *testing.T, from *sandbox.Sandbox) *sandbox.Sandbox {
	t.Helper()
	bucket, err := dirbucket.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	to := realBox(t)
	for name, dir := range map[string]func(*sandbox.Sandbox) string{
		"workspace": func(sb *sandbox.Sandbox) string { return sb.Dir() },
		"session": func(sb *sandbox.Sandbox) string {
			home, err := sb.Command(t.Context(), "sh", "-c", `printf %s "$HOME"`).Output()
			if err != nil {
				t.Fatal(err)
			}
			return string(home) + "/.claude/projects"
		},
	} {
		volume := storage.NewVolume(bucket, name, nil)
		if _, err := volume.Sync(t.Context(), from, dir(from)); err != nil {
			t.Fatal(err)
		}
		if err := volume.Init(t.Context(), to, dir(to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Terminate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return to
}

// written is a file of the workspace; "" where there is none.
func written(t *testing.T, sb *sandbox.Sandbox, name string) string {
	t.Helper()
	data, err := fs.ReadFile(sb.FS(t.Context()), name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// TestRealDeferral ends a sandbox while Claude waits for an answer, and gives it in
// another. The mode allows everything: that nothing runs before is due to Defer alone.
func TestRealDeferral(t *testing.T) {
	for name, c := range map[string]struct {
		answer *claude.Permission
		ran    string // what the tool has written
		told   string // what Claude is told of it
	}{
		"allowed": {claude.Allow(), "before\nasked\n", "it ran"},
		"changed": {&claude.Permission{Allowed: true, Input: map[string]any{"command": "echo changed >> ran; echo it ran", "description": "x"}}, "before\nchanged\n", "it ran"},
		"denied":  {claude.Deny("the boss says no"), "before\n", "the boss says no"},
	} {
		t.Run(name, func(t *testing.T) {
			opts := putsOff(claudetest.Sequence(bash("echo before >> ran"), bash("echo asked >> ran; echo it ran"), claudetest.Text("done")))
			opts.Defer = func(_ context.Context, use *claude.ToolRequest) (bool, error) {
				return strings.Contains(string(use.Input), "asked"), nil
			}
			model := opts.Endpoint.Handler.(*claudetest.Handler)
			sb := realBox(t)
			st := ask(t, sb, "x", opts)
			use := mustDefer(t, st)
			if use.Name != "Bash" || !strings.Contains(string(use.Input), "echo asked") {
				t.Errorf("put off is %+v", use)
			}
			if got := written(t, sb, "ran"); got != "before\n" {
				t.Errorf("before the answer the tools have written %q", got)
			}

			sb = moved(t, sb)
			next := ask(t, sb, "", answering(opts, st.SessionID(), use.ID, c.answer))
			results := toolResults(t, next)
			if res := mustResult(t, next); res.Text != "done" || res.DeferredToolUse != nil {
				t.Errorf("the result is %s", res.Raw())
			}
			if len(results) != 1 || results[0].ToolUseID != use.ID || !strings.Contains(results[0].Content.Text(), c.told) || results[0].IsError == c.answer.Allowed {
				t.Errorf("the tool gave %+v, want %q", results, c.told)
			}
			if got := written(t, sb, "ran"); got != c.ran {
				t.Errorf("the tools have written %q, want %q", got, c.ran)
			}
			if said := lastToolResult(model); !strings.Contains(said, c.told) {
				t.Errorf("the model was told %q, want %q", said, c.told)
			}

			_, err := claude.Query(t.Context(), sb, "", answering(opts, st.SessionID(), use.ID, claude.Allow()))
			if !errors.Is(err, claude.ErrNotDeferred) {
				t.Errorf("answered again: %v, want ErrNotDeferred", err)
			}
			if got := written(t, sb, "ran"); got != c.ran {
				t.Errorf("answered again, the tools have written %q, want %q", got, c.ran)
			}
		})
	}
}

// lastToolResult is what the model was told last of a tool.
func lastToolResult(model *claudetest.Handler) string {
	asked := model.Requests(claudetest.Main)
	var said string
	for _, m := range asked[len(asked)-1].Messages {
		for _, b := range m.Content {
			if b.Type == "tool_result" {
				said = b.Result
			}
		}
	}
	return said
}

// TestRealDeferralOfRuns does the same with runs that outlive their process.
func TestRealDeferralOfRuns(t *testing.T) {
	opts := putsOff(claudetest.Sequence(bash("echo asked >> ran"), claudetest.Text("done")), "Bash")
	opts.MaxRetries = 0
	sb := realBox(t)
	st, err := claude.NewClient(sb, opts).Start(t.Context(), "asks", "x")
	if err != nil {
		t.Fatal(err)
	}
	use := mustDefer(t, st)
	sb = moved(t, sb)
	client := claude.NewClient(sb, answering(opts, st.SessionID(), use.ID, claude.Allow()))
	st, err = client.Start(t.Context(), "answers", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Detach(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // goes on with it, and reads it again
		st, err = client.Adopt(t.Context(), "answers")
		if err != nil {
			t.Fatal(err)
		}
		if res := mustResult(t, st); res.Text != "done" {
			t.Errorf("the result is %s", res.Raw())
		}
	}
	if got := written(t, sb, "ran"); got != "asked\n" {
		t.Errorf("the tool has written %q", got)
	}
	if _, err := client.Start(t.Context(), "again", ""); !errors.Is(err, claude.ErrNotDeferred) {
		t.Errorf("answered again: %v, want ErrNotDeferred", err)
	}
}

// TestRealDeferralBeforePrompts says something else with the answer: the stream has what
// comes of both, and the result is the prompt's.
func TestRealDeferralBeforePrompts(t *testing.T) {
	for name, next := range map[string]func(t *testing.T, sb *sandbox.Sandbox, opts *claude.Options) *claude.Stream{
		"query": func(t *testing.T, sb *sandbox.Sandbox, opts *claude.Options) *claude.Stream {
			return ask(t, sb, "and now?", opts)
		},
		"session": func(t *testing.T, sb *sandbox.Sandbox, opts *claude.Options) *claude.Stream {
			s, err := claude.NewClient(sb, opts).NewSession(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			return send(t, s, "and now?")
		},
	} {
		t.Run(name, func(t *testing.T) {
			opts := putsOff(claudetest.Sequence(bash("echo asked >> ran"), claudetest.Text("went on"), claudetest.Text("answered")), "Bash")
			sb := realBox(t)
			st := ask(t, sb, "x", opts)
			use := mustDefer(t, st)
			st = next(t, sb, answering(opts, st.SessionID(), use.ID, claude.Allow()))
			var texts []string
			for m, err := range st.Messages() {
				if err != nil {
					t.Fatal(err)
				}
				if r, ok := m.(*claude.ResultMessage); ok {
					texts = append(texts, r.Text)
				}
			}
			if got := strings.Join(texts, ", "); got != "went on, answered" {
				t.Errorf("the results are %q", got)
			}
			if res := mustResult(t, st); res.Text != "answered" {
				t.Errorf("the result is %s", res.Raw())
			}
			if got := written(t, sb, "ran"); got != "asked\n" {
				t.Errorf("the tool has written %q", got)
			}
		})
	}
}

// TestRealDeferralKeepsAsking has no answer yet, or one for something else: it stays as
// it is, although the mode allows everything.
func TestRealDeferralKeepsAsking(t *testing.T) {
	opts := putsOff(claudetest.Sequence(bash("echo asked >> ran"), claudetest.Text("done")), "Bash")
	sb := realBox(t)
	st := ask(t, sb, "x", opts)
	use := mustDefer(t, st)
	mistaken := answering(opts, st.SessionID(), "toolu_other", claude.Allow())
	mistaken.Defer = nil
	if again := mustDefer(t, ask(t, sb, "", mistaken)); again.ID != use.ID {
		t.Errorf("put off is %+v, want %s", again, use.ID)
	}
	if got := written(t, sb, "ran"); got != "" {
		t.Errorf("without an answer the tool has written %q", got)
	}
	if res := mustResult(t, ask(t, sb, "", answering(opts, st.SessionID(), use.ID, claude.Allow()))); res.Text != "done" {
		t.Errorf("the result is %s", res.Raw())
	}
	if got := written(t, sb, "ran"); got != "asked\n" {
		t.Errorf("the tool has written %q", got)
	}
}

// TestRealDeferralOfSeveral has three uses in one message: one waits, and Claude knows of
// the others that it has to ask again.
func TestRealDeferralOfSeveral(t *testing.T) {
	three := claudetest.Join(bash("echo one >> ran"), bash("echo two >> ran"), bash("echo three >> ran"))
	opts := putsOff(claudetest.Sequence(three, bash("echo two >> ran"), claudetest.Text("done")), "Bash")
	sb := realBox(t)
	st := ask(t, sb, "x", opts)
	results := toolResults(t, st)
	use := mustDefer(t, st)
	if len(results) != 2 {
		t.Errorf("the tools gave %+v, want two that were not decided", results)
	}
	for _, r := range results {
		if !r.IsError || !strings.Contains(r.Content.Text(), "Ask for it again") || r.ToolUseID == use.ID {
			t.Errorf("a tool gave %+v", r)
		}
	}
	st = ask(t, sb, "", answering(opts, st.SessionID(), use.ID, claude.Allow()))
	second := mustDefer(t, st) // asked for again
	if got := written(t, sb, "ran"); got != "one\n" {
		t.Errorf("the tools have written %q", got)
	}
	mustResult(t, ask(t, sb, "", answering(opts, st.SessionID(), second.ID, claude.Allow())))
	if got := written(t, sb, "ran"); got != "one\ntwo\n" {
		t.Errorf("the tools have written %q", got)
	}
}

// TestRealDeferralOfQuestions puts off what Claude asks the user.
func TestRealDeferralOfQuestions(t *testing.T) {
	question := claudetest.Tool("AskUserQuestion", map[string]any{"questions": []any{map[string]any{
		"question": "Which colour?", "header": "Colour", "multiSelect": false,
		"options": []any{map[string]any{"label": "Red", "description": "r"}, map[string]any{"label": "Blue", "description": "b"}},
	}}})
	opts := putsOff(claudetest.Sequence(question, claudetest.Text("blue it is")), "AskUserQuestion")
	sb := realBox(t)
	st := ask(t, sb, "x", opts)
	use := mustDefer(t, st)
	var input map[string]any
	if err := json.Unmarshal(use.Input, &input); err != nil {
		t.Fatal(err)
	}
	input["answers"] = map[string]string{"Which colour?": "Blue"}
	sb = moved(t, sb)
	results := toolResults(t, ask(t, sb, "", answering(opts, st.SessionID(), use.ID, &claude.Permission{Allowed: true, Input: input})))
	if len(results) != 1 || results[0].IsError || !strings.Contains(results[0].Content.Text(), `"Which colour?"="Blue"`) {
		t.Errorf("the tool gave %+v", results)
	}
}

// TestRealDeferralOfMCPTools puts off a tool of this process. It is not there yet when the
// CLI goes on by itself: the use goes on waiting, and with a prompt it is asked about again.
func TestRealDeferralOfMCPTools(t *testing.T) {
	server := mcp.NewServer(&mcp.Implementation{Name: "shop", Version: "1"}, nil)
	bought := 0
	type order struct{ Item string }
	mcp.AddTool(server, &mcp.Tool{Name: "buy", Description: "buys"}, func(context.Context, *mcp.CallToolRequest, order) (*mcp.CallToolResult, any, error) {
		bought++
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "bought"}}}, nil, nil
	})
	const tool = "mcp__shop__buy"
	opts := putsOff(claudetest.Sequence(claudetest.Tool(tool, order{"a boat"}), claudetest.Text("done")), tool)
	opts.MCPServers = map[string]claude.MCPServer{"shop": mcpserver.New(server)}
	sb := realBox(t)
	st := ask(t, sb, "x", opts)
	use := mustDefer(t, st)

	answer := answering(opts, st.SessionID(), use.ID, claude.Allow())
	res, err := ask(t, sb, "", answer).Result()
	if claude.EndOf(err) != claude.EndAgentError || res.TerminalReason != "tool_deferred_unavailable" || res.DeferredToolUse == nil {
		t.Fatalf("before the tool is there: %v, pinned is that the CLI does not wait for it", err)
	}
	st = ask(t, sb, "go on", answer)
	results := toolResults(t, st)
	if res := mustResult(t, st); res.Text != "done" {
		t.Errorf("the result is %s", res.Raw())
	}
	if len(results) != 1 || results[0].Content.Text() != "bought" || bought != 1 {
		t.Errorf("the tool gave %+v, and was called %d times", results, bought)
	}
}

// TestRealDeferralByRules leaves it to the rules and CanUseTool once it is resumed
// without an answer.
func TestRealDeferralByRules(t *testing.T) {
	opts := putsOff(claudetest.Sequence(bash("echo asked >> ran"), claudetest.Text("done")), "Bash")
	opts.PermissionMode = claude.PermissionDefault
	sb := realBox(t)
	st := ask(t, sb, "x", opts)
	use := mustDefer(t, st)
	next := *opts
	next.Resume, next.Defer = st.SessionID(), nil
	var asked []string
	next.CanUseTool = func(_ context.Context, use *claude.ToolRequest) (*claude.Permission, error) {
		asked = append(asked, use.ToolUseID)
		return claude.Deny("not today"), nil
	}
	st = ask(t, sb, "well?", &next)
	_, _ = st.Result() // the scripted model has no more to say
	if len(asked) != 1 || asked[0] != use.ID {
		t.Errorf("asked about %q, want %s", asked, use.ID)
	}
	if got := written(t, sb, "ran"); got != "" {
		t.Errorf("the tool has written %q", got)
	}
}

// TestRealDeferralAsTheCLIHasIt pins what options of this package work around: where a
// newer CLI does better, they need not.
func TestRealDeferralAsTheCLIHasIt(t *testing.T) {
	hook := func(opts *claude.Options) *claude.Options {
		opts.Hooks = map[claude.HookEvent][]claude.Hook{claude.HookPreToolUse: {{
			Matcher: "Bash", Func: func(context.Context, *claude.HookInput) (*claude.HookOutput, error) {
				return &claude.HookOutput{Permission: "defer"}, nil
			},
		}}}
		return opts
	}
	t.Run("several", func(t *testing.T) {
		opts := hook(scripted(claudetest.Join(bash("echo one"), bash("echo two"))))
		if use := mustDefer(t, ask(t, realBox(t), "x", opts)); !strings.Contains(string(use.Input), "two") {
			t.Errorf("of two uses %s waits; it was the last one", use.Input)
		}
	})
	t.Run("subagent", func(t *testing.T) {
		agent := claudetest.Tool("Agent", map[string]any{"description": "help", "prompt": "help me", "subagent_type": "general-purpose"})
		opts := hook(with(claudetest.NewHandler(claudetest.Sequence(agent, claudetest.Text("begun"), claudetest.Text("done")), &claudetest.Options{Subagent: bash("echo sub >> ran")})))
		sb := realBox(t)
		if res := mustResult(t, ask(t, sb, "x", opts)); res.DeferredToolUse != nil {
			t.Errorf("a use of a subagent waits: %s; it was forgotten", res.DeferredToolUse.Input)
		}
		if got := written(t, sb, "ran"); got != "" {
			t.Errorf("the tool has written %q", got)
		}
	})
	t.Run("another prompt", func(t *testing.T) {
		opts := hook(scripted(claudetest.Sequence(bash("echo one"), claudetest.Text("done"))))
		model := opts.Endpoint.Handler.(*claudetest.Handler)
		sb := realBox(t)
		s, err := claude.NewClient(sb, opts).NewSession(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		use := mustDefer(t, send(t, s, "x"))
		mustResult(t, send(t, s, "something else"))
		if said := lastToolResult(model); !strings.Contains(said, "missing") {
			t.Errorf("in the same process Claude was told %q; it was that the result is missing", said)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := claude.Query(t.Context(), sb, "", answering(opts, s.ID(), use.ID, claude.Allow())); !errors.Is(err, claude.ErrNotDeferred) {
			t.Errorf("answered after another prompt: %v, want ErrNotDeferred", err)
		}
	})
}
