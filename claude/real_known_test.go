package claude_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
)

// Everything that the CLI says in these scenarios has a type here. make
// claude-newer runs them with the newest CLI, which tells what it has come to say.
func TestRealMessagesAreKnown(t *testing.T) {
	all := func(script claudetest.Script) *claude.Options {
		opts := scripted(script)
		opts.Partial, opts.HookEvents, opts.ReplayPrompts, opts.PromptSuggestions = true, true, true, true
		opts.ForwardSubagentText, opts.AgentProgressSummaries, opts.FileCheckpointing = true, true, true
		opts.Hooks = map[claude.HookEvent][]claude.Hook{claude.HookPreToolUse: {{
			Func: func(context.Context, *claude.HookInput) (*claude.HookOutput, error) { return nil, nil },
		}}}
		return opts
	}
	denied := all(claudetest.Sequence(bash("touch x; nc -l 99"), claudetest.Text("well")))
	denied.PermissionMode = claude.PermissionDontAsk
	retried := all(claudetest.Sequence(claudetest.Overloaded(), claudetest.Text("at last")))
	retried.MaxRetries = 2
	scenarios := map[string]struct {
		opts    *claude.Options
		prompts []string
	}{
		"words":      {all(claudetest.Join(claudetest.Thinking("hm"), claudetest.Text("a", "b"))), []string{"x", "y"}},
		"tools":      {all(claudetest.Sequence(bash("echo x"), bash("sleep 0.1; exit 3"), claudetest.Text("done"))), []string{"x"}},
		"denied":     {denied, []string{"x"}},
		"retried":    {retried, []string{"x"}},
		"failed":     {all(claudetest.Error(400, "invalid_request_error", "no")), []string{"x"}},
		"commands":   {all(claudetest.Text("a summary")), []string{"x", "/cost", "/context", "/compact", "/clear", "/nothing", "y"}},
		"background": {all(claudetest.Sequence(claudetest.Tool("Bash", map[string]any{"command": "sleep 1", "description": "wait", "run_in_background": true}), claudetest.Text("begun"), claudetest.Text("ended"))), []string{"x"}},
		"subagent": {all(claudetest.Sequence(claudetest.Tool("Agent", map[string]any{
			"description": "help", "prompt": "help me", "subagent_type": "general-purpose"}), claudetest.Text("helped"), claudetest.Text("done"))), []string{"x"}},
	}
	for _, name := range slices.Sorted(maps.Keys(scenarios)) {
		t.Run(name, func(t *testing.T) {
			scenario := scenarios[name]
			s := realSession(t, scenario.opts)
			for _, prompt := range scenario.prompts {
				wantKnown(t, send(t, s, prompt))
			}
			if err := s.WaitIdle(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantKnown(t, send(t, s, "what came since")) // with what came since the last turn
		})
	}
}

func wantKnown(t *testing.T, st *claude.Stream) {
	t.Helper()
	var seen []string
	for m, err := range st.Messages() {
		var failed *claude.ResultError
		if errors.As(err, &failed) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if unknown, ok := m.(*claude.UnknownMessage); ok {
			t.Errorf("no type for %s", unknown.Raw())
		}
		name := m.Type()
		if m.Subtype() != "" {
			name += "/" + m.Subtype()
		}
		if !slices.Contains(seen, name) {
			seen = append(seen, name)
		}
	}
	t.Log(strings.Join(seen, " "))
}
