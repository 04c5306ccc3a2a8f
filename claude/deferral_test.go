package claude_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
)

func TestDeferralOptions(t *testing.T) {
	id := "6b510ccb-9b2e-4cd6-b1ff-6770472d4e44"
	for name, opts := range map[string]*claude.Options{
		"nothing to resume": {Answers: map[string]*claude.Permission{"a": claude.Allow()}},
		"no answer":         {Resume: id, Answers: map[string]*claude.Permission{"a": nil}},
		"no id":             {Resume: id, Answers: map[string]*claude.Permission{"": claude.Allow()}},
		"interrupt":         {Resume: id, Answers: map[string]*claude.Permission{"a": {Interrupt: true}}},
	} {
		if _, err := claude.Query(t.Context(), fakeSandbox(t, missing), "", opts); !errors.Is(err, sandbox.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if _, err := claude.NewClient(fakeSandbox(t, missing), &claude.Options{Resume: id}).Start(t.Context(), "x", ""); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("an empty prompt without answers: %v, want ErrInvalid", err)
	}
}

// TestDeferralDecides asks the hook as a CLI does, in two turns.
func TestDeferralDecides(t *testing.T) {
	type question struct{ id, agent string }
	use := func(c *fakeCLI, q question) string {
		c.write(`{"type":"control_request","request_id":%q,"request":{"subtype":"hook_callback","callback_id":"Defer","tool_use_id":%q,"input":`+
			`{"hook_event_name":"PreToolUse","tool_name":"Bash","tool_input":{"command":%q},"tool_use_id":%q,"agent_id":%q}}}`+"\n", "q-"+q.id, q.id, q.id, q.id, q.agent)
		answer, _ := c.read()["response"].(map[string]any)
		if answer["subtype"] != "success" {
			return fmt.Sprint(answer)
		}
		response, _ := answer["response"].(map[string]any)
		specific, _ := response["hookSpecificOutput"].(map[string]any)
		if specific == nil {
			return "nothing"
		}
		return fmt.Sprint(specific["permissionDecision"], " ", specific["permissionDecisionReason"], " ", specific["updatedInput"])
	}
	const deferred = "defer <nil> <nil>"
	decided := make(chan map[string]string, 1)
	sb := fakeSandbox(t, func(c *fakeCLI) {
		got := map[string]string{}
		id, _ := c.begin()
		got["before the turn"] = use(c, question{id: "later-0"})
		c.write(`{"type":"system","subtype":"init"}` + "\n")
		for _, q := range []question{{id: "now"}, {id: "later-1"}, {id: "broken"}, {"later-2", "agent"}, {id: "answered"}, {id: "refused"}, {id: "later-0"}} {
			got[q.id] = use(c, q)
		}
		c.result(id, `,"stop_reason":"tool_deferred","terminal_reason":"tool_deferred","deferred_tool_use":{"id":"later-0","name":"Bash","input":{}}`)
		id, _ = c.prompt()
		got["next turn"] = use(c, question{id: "later-3"})
		c.result(id, "")
		decided <- got
		c.drain()
	})
	s, err := claude.NewClient(sb, &claude.Options{
		Resume: "6b510ccb-9b2e-4cd6-b1ff-6770472d4e44",
		Answers: map[string]*claude.Permission{
			"answered": {Allowed: true, Input: map[string]any{"command": "true"}}, "refused": claude.Deny(""),
		},
		Defer: func(_ context.Context, use *claude.ToolRequest) (bool, error) {
			if use.ToolUseID == "broken" {
				return false, errors.New("no idea")
			}
			return use.Tool == "Bash" && strings.HasPrefix(use.ToolUseID, "later"), nil
		},
	}).NewSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if use := mustResult(t, send(t, s, "x")).DeferredToolUse; use == nil || use.ID != "later-0" {
		t.Errorf("put off is %+v", use)
	}
	mustResult(t, send(t, s, "y"))
	const wait = "deny Not decided: another use of a tool beside this one waits for an answer. Ask for it again after that. <nil>"
	got := <-decided
	for name, want := range map[string]string{
		"before the turn": deferred, "now": "nothing", "later-1": wait, "broken": "deny the host could not decide: no idea <nil>", "later-2": "nothing",
		"answered": "allow <nil> map[command:true]", "refused": "deny not allowed <nil>", "later-0": deferred, "next turn": deferred,
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

// TestDeferralWaitsForHooks has the CLI wait for the hooks of a conversation that is
// resumed: it begins at once with a use that was put off.
func TestDeferralWaitsForHooks(t *testing.T) {
	args := make(chan []string, 1)
	sb := fakeSandbox(t, func(c *fakeCLI) {
		args <- c.args
		id, _ := c.begin()
		c.result(id, "")
		c.drain()
	})
	st := ask(t, sb, "x", &claude.Options{Resume: "6b510ccb-9b2e-4cd6-b1ff-6770472d4e44"})
	mustResult(t, st)
	if got := strings.Join(<-args, " "); !strings.Contains(got, "--await-initialize") {
		t.Errorf("the arguments are %q", got)
	}
}
