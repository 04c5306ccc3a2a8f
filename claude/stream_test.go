package claude_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func query(t *testing.T, opts *claude.Options, play func(c *fakeCLI)) *claude.Stream {
	t.Helper()
	st, err := claude.Query(t.Context(), fakeSandbox(t, play), "do it", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// gather reads all messages, as "type/subtype" or the error's type.
func gather(st *claude.Stream) (types []string, last error) {
	for m, err := range st.Messages() {
		var bad *claude.ProtocolError
		switch {
		case errors.As(err, &bad):
			types = append(types, "bad "+string(bad.Line))
		case err != nil:
			last = err
		case m.Subtype() != "":
			types = append(types, m.Type()+"/"+m.Subtype())
		default:
			types = append(types, m.Type())
		}
	}
	return types, last
}

func TestBadLinesAreKeptInOrderAndLoseNothing(t *testing.T) {
	st := query(t, nil, func(c *fakeCLI) {
		id, _ := c.begin()
		c.write(`{"type":"assistant","message":{}}` + "\n" + "panic: garbage\n")
		c.write(`{"type":"never_heard_of","deep":{"x":[1,{"type":"decoy"}]}}` + "\n[1]\n{\"no\":1}\n")
		c.result(id, "")
		c.drain()
	})
	types, err := gather(st)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"assistant", "bad panic: garbage", "never_heard_of", "bad [1]", `bad {"no":1}`, "result/success"}
	if got := strings.Join(types, "|"); got != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRawLinesAreExactHoweverWritesAreCut(t *testing.T) {
	long := `{"type":"assistant","message":{"content":[{"type":"text","text":"` + strings.Repeat("xyz\\n", 1<<20) + `"}]}}` + "\n"
	all := `{"type":"system","subtype":"init"}` + "\n" + long + "\n" + `{"type":"x"}` + "\n"
	var result bytes.Buffer
	play := func(c *fakeCLI) {
		id, _ := c.begin()
		for rest := all; rest != ""; {
			n := min(len(rest), 1+len(rest)%70000)
			c.write("%s", rest[:n])
			rest = rest[n:]
		}
		result.Reset()
		fmt.Fprintf(&result, `{"type":"result","subtype":"success","user_message_uuids":[%q]}`+"\n", id)
		c.write("%s", result.String())
		c.drain()
	}
	read, err := io.ReadAll(query(t, nil, play))
	if err != nil {
		t.Fatal(err)
	}
	if want := all + result.String(); string(read) != want {
		t.Errorf("Read gave %d bytes, want the %d written", len(read), len(want))
	}
	var lines []byte
	for line, err := range query(t, nil, play).Lines() {
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Errorf("a line of %d bytes is not one line", len(line))
		}
		lines = append(lines, line...)
	}
	if want := all + result.String(); string(lines) != want {
		t.Errorf("Lines gave %d bytes, want the %d written", len(lines), len(want))
	}
}

func TestEndWithoutResult(t *testing.T) {
	tests := map[string]struct {
		play func(c *fakeCLI)
		end  claude.End
		is   error
		text string
	}{
		"exit 0": {func(c *fakeCLI) { c.begin(); c.write(`{"type":"assistant"}` + "\n") }, claude.EndUnknown, claude.ErrNoResult, "without a result"},
		"exit 3": {func(c *fakeCLI) {
			c.begin()
			_, _ = io.WriteString(c.errW, "the reason\n")
			c.exit(driver.Exit{Code: 3})
		}, claude.EndAgentError, claude.ErrNoResult, "the reason"},
		"out of memory": {func(c *fakeCLI) { c.begin(); c.exit(driver.Exit{Code: -1, Signal: 9, OOM: true}) }, claude.EndOOM, claude.ErrNoResult, "memory"},
		"sandbox ended": {func(c *fakeCLI) { c.begin(); c.lose(driver.EndLifetime) }, claude.EndLifetime, sandbox.ErrEnded, "lifetime"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			st := query(t, nil, test.play)
			_, err := gather(st)
			var end *claude.EndError
			if !errors.As(err, &end) || !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("the last error is %v (%T), want an *EndError about %q that is %v", err, err, test.text, test.is)
			}
			res, again := st.Result()
			if res != nil || again == nil || again.Error() != err.Error() {
				t.Errorf("Result() = %v, %v; want the same error", res, again)
			}
			if got := claude.EndOf(err); got != test.end {
				t.Errorf("EndOf(%v) = %s, want %s", err, got, test.end)
			}
		})
	}
}

func TestCutLastLine(t *testing.T) {
	play := func(c *fakeCLI) {
		c.begin()
		c.write(`{"type":"x"}` + "\n" + `{"type":"assi`)
	}
	types, err := gather(query(t, nil, play))
	if want := `x|bad {"type":"assi`; strings.Join(types, "|") != want || !errors.Is(err, claude.ErrNoResult) {
		t.Errorf("messages %q and %v, want %q and ErrNoResult", types, err, want)
	}
	raw, err := io.ReadAll(query(t, nil, play))
	if want := `{"type":"x"}` + "\n" + `{"type":"assi`; string(raw) != want || !errors.Is(err, claude.ErrNoResult) {
		t.Errorf("read %q and %v", raw, err)
	}
}

func TestFailedResults(t *testing.T) {
	tests := map[string]struct {
		more string
		kind claude.Kind
		end  claude.End
	}{
		"api error that calls itself a success": {`,"is_error":true,"api_error_status":401,"terminal_reason":"api_error"`, claude.KindAuthentication, claude.EndAgentError},
		"rate limit":                            {`,"is_error":true,"api_error_status":429`, claude.KindRateLimit, claude.EndAgentError},
		"overloaded":                            {`,"is_error":true,"api_error_status":529`, claude.KindOverloaded, claude.EndAgentError},
		"bad request":                           {`,"is_error":true,"api_error_status":400`, claude.KindInvalid, claude.EndAgentError},
		"connection":                            {`,"is_error":true,"api_error_status":null,"terminal_reason":"api_error"`, claude.KindAPI, claude.EndAgentError},
		"max turns":                             {`,"is_error":true,"subtype":"error_max_turns","errors":["Reached"]`, claude.KindMaxTurns, claude.EndBudget},
		"budget":                                {`,"is_error":true,"subtype":"error_max_budget_usd"`, claude.KindBudget, claude.EndBudget},
		"interrupted":                           {`,"is_error":true,"subtype":"error_during_execution","terminal_reason":"aborted_tools"`, claude.KindInterrupted, claude.EndCancelled},
		"error without a bit":                   {`,"subtype":"error_of_tomorrow"`, claude.KindExecution, claude.EndAgentError},
		"shapes of tomorrow":                    {`,"is_error":true,"errors":[{"text":"x"}],"usage":3,"num_turns":"many"`, claude.KindExecution, claude.EndAgentError},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			st := query(t, nil, func(c *fakeCLI) {
				id, _ := c.begin()
				c.result(id, test.more)
				c.drain()
				c.exit(driver.Exit{Code: 1})
			})
			res, err := st.Result()
			var failed *claude.ResultError
			if !errors.As(err, &failed) || failed.Kind != test.kind || failed.Result != res || res.CostUSD != 0.5 {
				t.Errorf("Result() = %+v, %v; want a *ResultError of kind %s with the cost", res, err, test.kind)
			}
			if got := claude.EndOf(err); got != test.end {
				t.Errorf("EndOf(%v) = %s, want %s", err, got, test.end)
			}
		})
	}
}

func TestStartErrors(t *testing.T) {
	tests := map[string]struct {
		play     func(c *fakeCLI)
		opts     *claude.Options
		is       error
		contains string
	}{
		"no program": {nil, nil, exec.ErrNotFound, "Mounts"},
		"root": {func(c *fakeCLI) {
			_, _ = io.WriteString(c.errW, "--dangerously-skip-permissions cannot be used with root/sudo privileges\n")
			c.exit(driver.Exit{Code: 1})
		}, &claude.Options{PermissionMode: claude.PermissionBypass}, nil, "IS_SANDBOX=1"},
		"no conversation": {func(c *fakeCLI) {
			c.write(`{"type":"result","subtype":"error_during_execution","is_error":true,"errors":["No conversation found with session ID: x"]}` + "\n")
			c.exit(driver.Exit{Code: 1})
		}, &claude.Options{Resume: "x"}, claude.ErrUnknownConversation, "No conversation found"},
		"silent":   {func(c *fakeCLI) { c.drain() }, &claude.Options{StartTimeout: time.Millisecond}, context.DeadlineExceeded, "StartTimeout"},
		"refusing": {func(c *fakeCLI) { refuse(c, c.read()); c.drain() }, nil, nil, "initialize: not today"},
		"secret in stderr": {func(c *fakeCLI) {
			_, _ = io.WriteString(c.errW, "bad key sk-hidden-key\n")
			c.exit(driver.Exit{Code: 1})
		}, &claude.Options{Env: []string{"ANTHROPIC_API_KEY=sk-hidden-key"}}, nil, "bad key [redacted]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := claude.Query(t.Context(), fakeSandbox(t, test.play), "x", test.opts)
			var start *claude.StartError
			if !errors.As(err, &start) || !strings.Contains(err.Error(), test.contains) {
				t.Fatalf("Query: %v (%T), want a *StartError about %q", err, err, test.contains)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%v does not match %v", err, test.is)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, start.Err), "sk-hidden-key") {
				t.Errorf("the error holds the key: %v", err)
			}
			if got := claude.EndOf(err); got != claude.EndAgentError {
				t.Errorf("EndOf = %s", got)
			}
		})
	}
}

func refuse(c *fakeCLI, request map[string]any) {
	c.write(`{"type":"control_response","response":{"subtype":"error","request_id":%q,"error":"not today"}}`+"\n", request["request_id"])
}

func TestInvalidOptions(t *testing.T) {
	sb := fakeSandbox(t, missing)
	for _, opts := range []*claude.Options{
		{ResumeAt: "x"}, {Resume: "x", Continue: true}, {SessionID: "x"}, {SessionID: "6b510ccb-9b2e-4cd6-b1ff-6770472d4e44", Resume: "x"},
		{Thinking: claude.Thinking{Mode: "hard"}}, {TaskBudget: -1}, {DialogKinds: []string{"x"}},
		{MCPServers: map[string]claude.MCPServer{"m": {}}}, {MCPServers: map[string]claude.MCPServer{"m": {Command: "x", URL: "y"}}},
		{Hooks: map[claude.HookEvent][]claude.Hook{claude.HookStop: {{}}}}, {Agents: map[string]claude.Agent{"a": {}}},
		{Fork: true}, {MaxTurns: -1}, {MaxBudgetUSD: -1}, {AllowedTools: []string{" "}}, {Endpoint: claude.Endpoint{Token: "x"}},
	} {
		if _, err := claude.Query(t.Context(), sb, "x", opts); !errors.Is(err, sandbox.ErrInvalid) {
			t.Errorf("Query with %+v: %v, want ErrInvalid", opts, err)
		}
	}
	play := func(c *fakeCLI) { c.begin(); c.drain() }
	if _, err := claude.Query(t.Context(), fakeSandbox(t, play), "", nil); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("Query without a prompt: %v, want ErrInvalid", err)
	}
}

func TestBreakEndsTheRun(t *testing.T) {
	ended := make(chan struct{})
	st := query(t, nil, func(c *fakeCLI) {
		defer close(ended)
		c.begin()
		c.write(`{"type":"a"}` + "\n")
		for {
			select {
			case <-c.ended:
				return
			default:
				c.write(`{"type":"b"}` + "\n")
			}
		}
	})
	for range st.Messages() {
		break
	}
	<-ended
	res, err := st.Result()
	if res != nil || !errors.Is(err, claude.ErrClosed) || !errors.Is(err, claude.ErrNoResult) || claude.EndOf(err) != claude.EndCancelled {
		t.Errorf("Result() = %v, %v; want ErrClosed", res, err)
	}
}

func TestContextKillsTheRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	st, err := claude.Query(ctx, fakeSandbox(t, func(c *fakeCLI) {
		c.begin()
		c.write(`{"type":"a"}` + "\n")
		<-c.ended
	}), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, err = range st.Messages() {
		cancel()
	}
	if !errors.Is(err, context.Canceled) || claude.EndOf(err) != claude.EndCancelled {
		t.Errorf("the last error is %v, want context.Canceled", err)
	}
}

func TestOneWayOfReading(t *testing.T) {
	st := query(t, nil, func(c *fakeCLI) { id, _ := c.begin(); c.result(id, ""); c.drain() })
	if _, err := gather(st); err != nil {
		t.Fatal(err)
	}
	if _, err := gather(st); !errors.Is(err, claude.ErrConsumed) {
		t.Errorf("Messages again: %v, want ErrConsumed", err)
	}
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, claude.ErrConsumed) {
		t.Errorf("Read after Messages: %v, want ErrConsumed", err)
	}
	for range 2 {
		if res, err := st.Result(); err != nil || res.Text != "done" {
			t.Errorf("Result() = %+v, %v", res, err)
		}
	}
}

func TestQueryWaitsForBackgroundWork(t *testing.T) {
	st := query(t, nil, func(c *fakeCLI) {
		id, _ := c.begin()
		c.result(id, "")
		c.drain() // the input ends with the result
		c.write(`{"type":"assistant"}` + "\n")
		c.write(`{"type":"result","subtype":"success","result":"and now","origin":{"kind":"task-notification"}}` + "\n")
	})
	types, err := gather(st)
	if got := strings.Join(types, " "); err != nil || got != "result/success assistant result/success" {
		t.Errorf("messages %q, %v", got, err)
	}
	if res, err := st.Result(); err != nil || res.Text != "and now" || res.Origin != "task-notification" {
		t.Errorf("Result() = %+v, %v; want the last", res, err)
	}
}

func TestUnansweredRequestsOfTheCLIAreRefused(t *testing.T) {
	st := query(t, nil, func(c *fakeCLI) {
		id, _ := c.begin()
		c.write(`{"request_id":"r-7","request":{"subtype":"can_use_tool"},"type":"control_request"}` + "\n" + `{"type":"keep_alive"}` + "\n")
		answer, _ := c.read()["response"].(map[string]any)
		if answer["subtype"] == "error" && answer["request_id"] == "r-7" {
			c.result(id, "")
		}
		c.drain()
	})
	if types, err := gather(st); err != nil || len(types) != 1 {
		t.Errorf("messages %q, %v; want the result alone", types, err)
	}
}

func noHook(context.Context, *claude.HookInput) (*claude.HookOutput, error) { return nil, nil }

func TestWhatIsSent(t *testing.T) {
	var got struct {
		args, env []string
		request   map[string]any
	}
	st := query(t, &claude.Options{
		Model: "sonnet", SystemPrompt: "be brief", AppendSystemPrompt: "be kind", AllowedTools: []string{"Read", "Bash(git *)"},
		DisallowedTools: []string{"WebFetch"}, PermissionMode: claude.PermissionAcceptEdits, MaxTurns: 3, MaxBudgetUSD: 0.25, Partial: true,
		Env: []string{"CLAUDE_CODE_MAX_RETRIES=7"}, ExtraArgs: []string{"--extra=1"}, CLIPath: "/opt/cli",
		FallbackModel: "haiku", Thinking: claude.Thinking{Budget: 9, Display: "omitted"}, Effort: "low", Betas: []string{"b1", "b2"}, TaskBudget: 5,
		Agent: "lead", Agents: map[string]claude.Agent{"lead": {Description: "d", Prompt: "hidden-agent"}}, Tools: []string{}, SettingSources: []string{"user"},
		ExtraDirs: []string{"/a", "/b"}, ProjectConfigRoot: "/c", StrictMCP: true, HookEvents: true, ReplayPrompts: true, Ephemeral: true,
		Settings: map[string]string{"model": "hidden-setting"}, Skills: []string{"pdf"}, Plugins: []claude.Plugin{{Path: "/p", NoMCP: true}},
		MCPServers: map[string]claude.MCPServer{
			"s": {Command: "srv", Args: []string{"hidden-arg"}, Timeout: time.Minute, Ask: []string{"t"}},
			"h": {URL: "http://h", Headers: map[string]string{"X": "hidden-header"}}, "e": {URL: "http://e", SSE: true},
			"in": {InProcess: mcpFunc(nil), Deny: []string{"u"}},
		},
		Hooks:        map[claude.HookEvent][]claude.Hook{claude.HookStop: {{Matcher: "m", Timeout: time.Second, Block: true, Func: noHook}}},
		CanUseTool:   func(context.Context, *claude.ToolRequest) (*claude.Permission, error) { return nil, nil },
		OutputSchema: &jsonschema.Schema{Type: "object"}, Title: "t", ToolAliases: map[string]string{"Bash": "x"}, PlanInstructions: "plan",
		ExcludeDynamicSections: true, FreshSystemPrompt: true, ForwardSubagentText: true, AgentProgressSummaries: true, PromptSuggestions: true,
		TasksSurviveInterrupt: true, FileCheckpointing: true, VerbatimPrompts: true,
		NoPrompts: true, QuestionPreview: "html", ManagedSettings: map[string]bool{"allowManagedHooksOnly": true},
	}, func(c *fakeCLI) {
		id, initialize := c.begin()
		got.args, got.env = c.args, c.env
		got.request, _ = initialize["request"].(map[string]any)
		c.result(id, "")
		c.drain()
	})
	if _, err := st.Result(); !errors.Is(err, claude.ErrNoOutput) { // the schema asks for some
		t.Fatal(err)
	}
	args := strings.Join(got.args, " ")
	for _, want := range []string{
		"/opt/cli --output-format=stream-json --verbose --input-format=stream-json ", " --model=sonnet ", " --permission-mode=acceptEdits ",
		" --max-turns=3 ", " --max-budget-usd=0.25 ", " --allowedTools=Read --allowedTools=Bash(git *) ", " --disallowedTools=WebFetch ",
		" --include-partial-messages", " --session-id=", " --extra=1", " --fallback-model=haiku ", " --max-thinking-tokens=9 ", " --thinking-display=omitted ",
		" --effort=low ", " --betas=b1,b2 ", " --task-budget=5 ", " --agent=lead ", " --permission-prompt-tool=stdio ", " --tools= ", " --allowedTools=Skill(pdf) ",
		" --setting-sources=user ", " --add-dir=/a --add-dir=/b ", " --project-config-root=/c ", " --strict-mcp-config ", " --include-hook-events ",
		" --replay-user-messages ", " --no-session-persistence ", " --await-initialize ", " --initialize-fields=settings ",
		" --permission-prompts=none ", " --managed-settings-in-initialize ",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("the arguments %q have no %q", args, want)
		}
	}
	if strings.Contains(args, "brief") || strings.Contains(args, "do it") || strings.Contains(args, "hidden") {
		t.Errorf("the arguments show the prompts: %q", args)
	}
	if fmt.Sprint(got.request["systemPrompt"]) != "[be brief]" || got.request["appendSystemPrompt"] != "be kind" {
		t.Errorf("initialize has %v", got.request)
	}
	delete(got.request, "systemPrompt")
	sent, err := json.Marshal(got.request)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"agentProgressSummaries":true,"agents":{"lead":{"description":"d","prompt":"hidden-agent"}},"appendSystemPrompt":"be kind",` +
		`"excludeDynamicSections":true,"forwardSubagentText":true,` +
		`"hooks":{"Stop":[{"hookCallbackIds":["Stop-0"],"matcher":"m","onFailure":"block","timeout":1}]},"jsonSchema":{"type":"object"},` +
		`"managedSettings":{"allowManagedHooksOnly":true},"mcpServers":{"e":{"type":"sse","url":"http://e"},"h":{"headers":{"X":"hidden-header"},"type":"http","url":"http://h"},` +
		`"s":{"args":["hidden-arg"],"command":"srv","timeout":60000,"tools":[{"name":"t","permission_policy":"always_ask"}],"type":"stdio"}},` +
		`"perTaskStopAffordance":true,"planModeInstructions":"plan","plugins":[{"path":"/p","skipMcpDiscovery":true,"type":"local"}],"promptSuggestions":true,` +
		`"sdkMcpServerConfigs":{"in":{"name":"in","tools":[{"name":"u","permission_policy":"always_deny"}],"type":"sdk"}},"sdkMcpServers":["in"],` +
		`"settings":{"model":"hidden-setting"},"skills":["pdf"],"subtype":"initialize","systemPromptSnapshot":false,"title":"t","toolAliases":{"Bash":"x"}}`
	if string(sent) != want {
		t.Errorf("initialize has\n%s, want\n%s", sent, want)
	}
	env := strings.Join(got.env, " ")
	if !strings.Contains(env, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1") || !strings.HasSuffix(env, "CLAUDE_CODE_MAX_RETRIES=7") || !strings.Contains(env, "QUESTION_PREVIEW_FORMAT=html") || strings.Contains(env, "IS_SANDBOX") {
		t.Errorf("the environment is %q", env)
	}
}
