package claude_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/claude/mcpserver"
)

// realSession is a session with the real CLI and a scripted model.
func realSession(t *testing.T, opts *claude.Options) *claude.Session {
	t.Helper()
	s, err := claude.NewClient(realBox(t), opts).NewSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func bash(command string) claudetest.Script {
	return claudetest.Tool("Bash", map[string]any{"command": command, "description": "run it"})
}

// toolResults are the results of the tools in a turn.
func toolResults(t *testing.T, st *claude.Stream) (results []claude.ContentBlock) {
	t.Helper()
	for m, err := range st.Messages() {
		if err != nil {
			t.Fatal(err)
		}
		if u, ok := m.(*claude.UserMessage); ok {
			results = append(results, u.Content().ToolResults()...)
		}
	}
	return results
}

func TestRealPermissions(t *testing.T) {
	opts := scripted(claudetest.Sequence(
		bash("touch changed; echo asked"), claudetest.Text("one"),
		bash("touch denied"), claudetest.Text("two"),
		bash("touch remembered"), bash("touch remembered"), claudetest.Text("three"),
		bash("nc -l 99"), claudetest.Text("never"),
	))
	opts.PermissionMode = claude.PermissionDefault
	var mu sync.Mutex
	var asked []string
	opts.CanUseTool = func(_ context.Context, use *claude.ToolRequest) (*claude.Permission, error) {
		mu.Lock()
		defer mu.Unlock()
		var input struct{ Command string }
		if err := json.Unmarshal(use.Input, &input); err != nil {
			return nil, err
		}
		asked = append(asked, use.Tool+" "+input.Command)
		switch {
		case strings.Contains(input.Command, "changed"):
			return &claude.Permission{Allowed: true, Input: map[string]any{"command": "echo other", "description": "x"}}, nil
		case strings.Contains(input.Command, "denied"):
			return claude.Deny("because I say so"), nil
		case strings.Contains(input.Command, "remembered"):
			return &claude.Permission{Allowed: true, Remember: use.Suggestions}, nil
		}
		return &claude.Permission{Message: "stop it", Interrupt: true}, nil
	}
	s := realSession(t, opts)
	if r := toolResults(t, send(t, s, "x")); len(r) != 1 || r[0].Content.Text() != "other" {
		t.Errorf("with changed input the tool gave %+v", r)
	}
	if r := toolResults(t, send(t, s, "x")); len(r) != 1 || !r[0].IsError || !strings.Contains(r[0].Content.Text(), "because I say so") {
		t.Errorf("denied, the tool gave %+v", r)
	}
	if r := toolResults(t, send(t, s, "x")); len(r) != 2 || r[0].IsError || r[1].IsError {
		t.Errorf("allowed, the tools gave %+v", r)
	}
	_, err := send(t, s, "x").Result()
	if claude.EndOf(err) != claude.EndCancelled {
		t.Errorf("denied with an interrupt: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) < 4 || len(asked) > 5 {
		t.Errorf("asked %q", asked)
	}
	t.Logf("asked %q", asked)
}

// TestRealManagedSettings denies by settings that the sandbox's own cannot undo.
func TestRealManagedSettings(t *testing.T) {
	opts := scripted(claudetest.Sequence(bash("echo ran"), claudetest.Text("done")))
	opts.Settings = map[string]any{"permissions": map[string]any{"allow": []string{"Bash"}}}
	opts.ManagedSettings = map[string]any{"permissions": map[string]any{"deny": []string{"Bash"}}}
	if r := toolResults(t, ask(t, realBox(t), "x", opts)); len(r) != 1 || !r[0].IsError {
		t.Errorf("the tool gave %+v", r)
	}
}

// TestRealNoPrompts has a function to ask, which must not be called.
func TestRealNoPrompts(t *testing.T) {
	opts := scripted(claudetest.Sequence(bash("touch x"), claudetest.Text("done")))
	opts.PermissionMode, opts.NoPrompts = claude.PermissionDefault, true
	opts.CanUseTool = func(context.Context, *claude.ToolRequest) (*claude.Permission, error) {
		t.Error("it was asked")
		return &claude.Permission{Allowed: true}, nil
	}
	if r := toolResults(t, ask(t, realBox(t), "x", opts)); len(r) != 1 || !r[0].IsError {
		t.Errorf("the tool gave %+v", r)
	}
}

// TestRealPermissionTool asks a tool of a server in this process.
func TestRealPermissionTool(t *testing.T) {
	opts := scripted(claudetest.Sequence(bash("touch no"), bash("touch yes"), claudetest.Text("done")))
	opts.PermissionMode, opts.PermissionTool = claude.PermissionDefault, "mcp__guard__ask"
	server := mcp.NewServer(&mcp.Implementation{Name: "guard", Version: "1"}, nil)
	type question struct {
		ToolName string         `json:"tool_name"`
		Input    map[string]any `json:"input"`
		UseID    string         `json:"tool_use_id,omitempty"`
	}
	mcp.AddTool(server, &mcp.Tool{Name: "ask", Description: "decides"}, func(_ context.Context, _ *mcp.CallToolRequest, q question) (*mcp.CallToolResult, any, error) {
		answer := map[string]any{"behavior": "deny", "message": "not this one"}
		if q.Input["command"] == "touch yes" {
			answer = map[string]any{"behavior": "allow", "updatedInput": q.Input}
		}
		text, err := json.Marshal(answer)
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: string(text)}}}, nil, err
	})
	opts.MCPServers = map[string]claude.MCPServer{"guard": mcpserver.New(server)}
	r := toolResults(t, ask(t, realBox(t), "x", opts))
	if len(r) != 2 || !r[0].IsError || !strings.Contains(r[0].Content.Text(), "not this one") || r[1].IsError {
		t.Errorf("the tools gave %+v", r)
	}
}

func TestRealHooks(t *testing.T) {
	opts := scripted(claudetest.Sequence(bash("echo before"), claudetest.Text("done")))
	var mu sync.Mutex
	seen := map[claude.HookEvent]*claude.HookInput{}
	note := func(out *claude.HookOutput) []claude.Hook {
		return []claude.Hook{{Timeout: time.Minute, Func: func(_ context.Context, in *claude.HookInput) (*claude.HookOutput, error) {
			mu.Lock()
			defer mu.Unlock()
			seen[in.Event] = in
			return out, nil
		}}}
	}
	opts.Hooks = map[claude.HookEvent][]claude.Hook{
		claude.HookPreToolUse:  note(&claude.HookOutput{Permission: "allow", UpdatedInput: map[string]any{"command": "echo after", "description": "x"}}),
		claude.HookPostToolUse: note(nil), claude.HookUserPromptSubmit: note(&claude.HookOutput{Context: "marker-context"}),
		claude.HookStop: note(nil),
	}
	opts.HookEvents = true
	model := opts.Endpoint.Handler.(*claudetest.Handler)
	s := realSession(t, opts)
	if r := toolResults(t, send(t, s, "hello")); len(r) != 1 || r[0].Content.Text() != "after" {
		t.Errorf("the tool gave %+v, want what the hook made of it", r)
	}
	if said := conversation(model); !strings.Contains(said, "marker-context") {
		t.Errorf("the model was told %q, without the hook's context", said)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for event := range opts.Hooks {
		if in := seen[event]; in == nil {
			t.Errorf("no hook for %s was called", event)
		} else if in.SessionID != s.ID() || in.Raw == nil {
			t.Errorf("%s was told %+v", event, in)
		}
	}
	if in := seen[claude.HookUserPromptSubmit]; in != nil && in.Prompt != "hello" {
		t.Errorf("the prompt was %q", in.Prompt)
	}
	if in := seen[claude.HookPreToolUse]; in != nil && (in.Tool != "Bash" || in.ToolUseID == "" || !strings.Contains(string(in.ToolInput), "echo before")) {
		t.Errorf("PreToolUse was told %+v", in)
	}
}

func TestRealWithdrawnQuestion(t *testing.T) {
	opts := scripted(claudetest.Sequence(bash("touch x"), claudetest.Text("still here")))
	opts.PermissionMode = claude.PermissionDefault
	asked, ended := make(chan struct{}), make(chan error, 1)
	opts.CanUseTool = func(ctx context.Context, _ *claude.ToolRequest) (*claude.Permission, error) {
		close(asked)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, ctx.Err()
	}
	s := realSession(t, opts)
	st := send(t, s, "x")
	<-asked
	if err := s.Interrupt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the callback's context ended with %v", err)
	}
	if _, err := st.Result(); claude.EndOf(err) != claude.EndCancelled {
		t.Errorf("Result: %v", err)
	}
	if res := mustResult(t, send(t, s, "go on")); res.Text != "still here" {
		t.Errorf("the next turn says %q", res.Text)
	}
}

func TestRealImagesAndDocuments(t *testing.T) {
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	opts := scripted(claudetest.Text("seen"))
	model := opts.Endpoint.Handler.(*claudetest.Handler)
	s := realSession(t, opts)
	st, err := s.Query(t.Context(), "look", claude.Image("image/png", picture.Bytes()), claude.Document("notes", "text/plain", []byte("marker-document")))
	if err != nil {
		t.Fatal(err)
	}
	mustResult(t, st)
	asked := model.Requests(claudetest.Main)
	var types []string
	for _, m := range asked[len(asked)-1].Messages {
		for _, b := range m.Content {
			types = append(types, b.Type)
		}
	}
	if got := strings.Join(types, " "); !strings.Contains(got, "image") || !strings.Contains(got, "document") {
		t.Errorf("the model was sent blocks of the types %q", got)
	}
}

type answer struct {
	City  string `json:"city" jsonschema:"where it is"`
	Count int    `json:"count"`
}

func TestRealStructuredOutput(t *testing.T) {
	sb := realBox(t)
	give := claudetest.Sequence(claudetest.Tool("StructuredOutput", map[string]any{"city": "Bern", "count": 3}), claudetest.Text("there"))
	got, res, err := claude.QueryAs[answer](t.Context(), sb, "x", scripted(give))
	if err != nil || got != (answer{"Bern", 3}) || res.CostUSD <= 0 {
		t.Errorf("QueryAs = %+v, %+v, %v", got, res, err)
	}
	_, res, err = claude.QueryAs[answer](t.Context(), sb, "x", scripted(claudetest.Text("I will not")))
	var failed *claude.ResultError
	if !errors.Is(err, claude.ErrNoOutput) || !errors.As(err, &failed) || failed.Kind != claude.KindNoOutput || res == nil {
		t.Errorf("without output: %+v, %v, want ErrNoOutput", res, err)
	}
}

func TestRealControl(t *testing.T) {
	opts := scripted(claudetest.Sequence(
		claudetest.Tool("Write", map[string]any{"file_path": "/workspace/kept.txt", "content": "new"}), claudetest.Text("written"),
	))
	opts.FileCheckpointing = true
	s := realSession(t, opts)
	if info := s.Info(); len(info.Commands) == 0 || len(info.Models) == 0 || info.Raw == nil {
		t.Errorf("Info has %d commands, %d models", len(info.Commands), len(info.Models))
	}
	st := send(t, s, "x")
	mustResult(t, st)
	usage, err := s.ContextUsage(t.Context())
	if err != nil || usage.MaxTokens == 0 || len(usage.Categories) == 0 {
		t.Errorf("ContextUsage = %+v, %v", usage, err)
	}
	if err := s.SetMaxThinkingTokens(t.Context(), 2000); err != nil {
		t.Error(err)
	}
	var version struct{ Version string }
	if err := s.Control(t.Context(), "get_binary_version", nil, &version); err != nil || version.Version == "" {
		t.Errorf("get_binary_version: %+v, %v", version, err)
	}
	var refused *claude.ControlError
	if err := s.Control(t.Context(), "no_such_request", nil, nil); !errors.As(err, &refused) {
		t.Errorf("no_such_request: %v, want a *ControlError", err)
	}
	if r, err := s.RewindFiles(t.Context(), st.PromptID(), true); err != nil || len(r.Files) != 1 {
		t.Errorf("RewindFiles: %+v, %v", r, err)
	}
	if _, err := s.RewindFiles(t.Context(), st.PromptID(), false); err != nil {
		t.Errorf("RewindFiles: %v", err)
	}
	if status, err := s.MCPStatus(t.Context()); err != nil || len(status) != 0 {
		t.Errorf("MCPStatus = %+v, %v", status, err)
	}
}

func TestRealWaitIdle(t *testing.T) {
	opts := scripted(claudetest.Sequence(
		claudetest.Tool("Bash", map[string]any{"command": "sleep 1", "description": "wait", "run_in_background": true}),
		claudetest.Text("begun"), claudetest.Text("ended"), claudetest.Text("next")))
	s := realSession(t, opts)
	if res := mustResult(t, send(t, s, "x")); res.Text != "begun" {
		t.Errorf("the turn says %q", res.Text)
	}
	if err := s.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for m, err := range send(t, s, "y").Messages() {
		if err != nil {
			t.Fatal(err)
		}
		if r, ok := m.(*claude.ResultMessage); ok {
			texts = append(texts, r.Text)
		}
	}
	if got := strings.Join(texts, " "); got != "ended next" {
		t.Errorf("after WaitIdle the results are %q, want what came of the background first", got)
	}
}

func TestRealOptions(t *testing.T) {
	opts := scripted(claudetest.Text("hello"))
	opts.Agents = map[string]claude.Agent{"helper": {Description: "helps", Prompt: "help", Tools: []string{"Read"}}}
	opts.Settings = map[string]any{"env": map[string]string{"MARKER": "from settings"}}
	opts.Tools = []string{"Read", "Bash"}
	opts.Thinking = claude.Thinking{Budget: 2000}
	opts.Effort = "low"
	opts.FallbackModel = "haiku"
	opts.Title = "a title"
	opts.ExtraDirs = []string{"/tmp"}
	opts.SettingSources = []string{}
	opts.ReplayPrompts, opts.PromptSuggestions, opts.ForwardSubagentText, opts.AgentProgressSummaries = true, true, true, true
	opts.MCPServers = map[string]claude.MCPServer{"broken": {Command: "/nonexistent"}}
	opts.Stderr = &bytes.Buffer{}
	opts.SessionID = "6b510ccb-9b2e-4cd6-b1ff-6770472d4e44"
	var init *claude.InitMessage
	replayed := false
	st := ask(t, realBox(t), "hi", opts)
	for m, err := range st.Messages() {
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *claude.InitMessage:
			init = m
		case *claude.UserMessage:
			replayed = replayed || m.Replay
		}
	}
	if init == nil || fmt.Sprint(init.Tools) != "[Bash Read]" || len(init.MCPServers) != 1 || !strings.Contains(fmt.Sprint(init.Agents), "helper") {
		t.Fatalf("init is %+v", init)
	}
	if !replayed || st.SessionID() != opts.SessionID {
		t.Errorf("replayed %v, the conversation is %s", replayed, st.SessionID())
	}
}
