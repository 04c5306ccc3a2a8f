package mcpserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/claude/mcpserver"
	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

type place struct {
	City string `json:"city" jsonschema:"where"`
}

// weather is a server with a tool, and with one that asks the user.
func weather() *mcp.Server {
	srv := mcp.NewServer(&mcp.Implementation{Name: "weather", Version: "1"}, nil)
	mcp.AddTool(srv, &mcp.Tool{Name: "today", Description: "today's weather"},
		func(_ context.Context, _ *mcp.CallToolRequest, in place) (*mcp.CallToolResult, any, error) {
			switch in.City {
			case "":
				return nil, nil, errors.New("no city")
			case "Atlantis":
				panic("it has sunk")
			}
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "sun in " + in.City}}}, nil, nil
		})
	mcp.AddTool(srv, &mcp.Tool{Name: "ask", Description: "asks the user"},
		func(ctx context.Context, r *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
			answer, err := r.Session.Elicit(ctx, &mcp.ElicitParams{Message: "which city?", RequestedSchema: json.RawMessage(
				`{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}`)})
			if err != nil {
				return nil, nil, err
			}
			city, _ := answer.Content["city"].(string)
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: answer.Action + " " + city}}}, nil, nil
		})
	return srv
}

// session is one with the real CLI.
func session(t *testing.T, opts *claude.Options) *claude.Session {
	t.Helper()
	return sessionIn(t, box(t), opts)
}

// box is a sandbox with the real CLI.
func box(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	cli := clitest.CLI(t)
	dir, err := os.MkdirTemp("", "mcp-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p, err := localbox.Open(&localbox.Options{Dir: dir})
	if err != nil {
		t.Skipf("needs isolated sandboxes: %v", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	sb, err := p.Create(t.Context(), &sandbox.Config{Mounts: cli.Mounts(), Timeout: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(sb.Terminate(ctx), sb.Close()); err != nil {
			t.Error(err)
		}
	})
	return sb
}

func sessionIn(t *testing.T, sb *sandbox.Sandbox, opts *claude.Options) *claude.Session {
	t.Helper()
	s, err := claude.NewClient(sb, opts).NewSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestRealInProcess(t *testing.T) {
	model := claudetest.NewHandler(claudetest.Sequence(
		claudetest.Tool("mcp__weather__today", map[string]any{"city": "Bern"}),
		claudetest.Tool("mcp__weather__today", map[string]any{"city": ""}),
		claudetest.Tool("mcp__weather__today", map[string]any{"city": "Atlantis"}),
		claudetest.Text("done"),
		claudetest.Tool("mcp__more__today", map[string]any{"city": "Rome"}),
		claudetest.Text("done"),
	), nil)
	s := session(t, &claude.Options{
		Endpoint: claude.Endpoint{Handler: model}, PermissionMode: claude.PermissionBypass, MaxRetries: -1,
		MCPServers: map[string]claude.MCPServer{"weather": mcpserver.New(weather())},
	})
	results := turn(t, s)
	if len(results) != 3 {
		t.Fatalf("%d results of tools", len(results))
	}
	if got := results[0]; got.IsError || got.Content.Text() != "sun in Bern" {
		t.Errorf("today gave %+v", got)
	}
	if got := results[1]; !got.IsError || !strings.Contains(got.Content.Text(), "no city") {
		t.Errorf("today without a city gave %+v", got)
	}
	if got := results[2]; !got.IsError || !strings.Contains(got.Content.Text(), "it has sunk") {
		t.Errorf("a tool that panics gave %+v", got)
	}
	status, err := s.MCPStatus(t.Context())
	if err != nil || len(status) != 1 || status[0].Name != "weather" || status[0].Status != "connected" || len(status[0].Tools) != 2 {
		t.Errorf("MCPStatus = %+v, %v", status, err)
	}
	change, err := s.SetMCPServers(t.Context(), map[string]claude.MCPServer{"more": mcpserver.New(weather())})
	if err != nil || len(change.Errors) != 0 {
		t.Fatalf("SetMCPServers = %+v, %v", change, err)
	}
	if results := turn(t, s); len(results) != 1 || results[0].Content.Text() != "sun in Rome" {
		t.Errorf("after SetMCPServers: %+v", results)
	}
}

// A server over HTTP that the CLI connects to by itself, and that asks the user.
// TestRealTakenOver has a run taken over between two calls of a tool: the server of the
// process that comes later has not seen the client connect, and serves it all the same.
func TestRealTakenOver(t *testing.T) {
	sb := box(t)
	var gate claudetest.Gate
	model := claudetest.NewHandler(func(w *claudetest.Reply, r *claudetest.Request) {
		switch len(r.ToolResults()) {
		case 0:
			w.Tool("mcp__weather__today", map[string]any{"city": "Bern"})
		default:
			if len(r.Calls()) == 1 {
				gate.Wait(w, r)
				w.Tool("mcp__weather__today", map[string]any{"city": "Rome"})
				return
			}
			w.Text("done")
		}
	}, nil)
	var calls atomic.Int64
	client := func() *claude.Client {
		srv := weather()
		srv.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
			return func(ctx context.Context, method string, r mcp.Request) (mcp.Result, error) {
				if method == "tools/call" {
					calls.Add(1)
				}
				return next(ctx, method, r)
			}
		})
		return claude.NewClient(sb, &claude.Options{
			Endpoint: claude.Endpoint{Handler: model}, PermissionMode: claude.PermissionBypass,
			MCPServers: map[string]claude.MCPServer{"weather": mcpserver.New(srv)},
		})
	}
	st, err := client().Start(t.Context(), "r", "x")
	if err != nil {
		t.Fatal(err)
	}
	<-gate.Reached()
	if err := st.Detach(); err != nil {
		t.Fatal(err)
	}
	gate.Open()
	if st, err = client().Adopt(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var results []string
	for m, err := range st.Messages() {
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := m.(*claude.UserMessage); ok {
			for _, r := range m.Content().ToolResults() {
				results = append(results, r.Content.Text())
			}
		}
	}
	if got := strings.Join(results, ", "); got != "sun in Bern, sun in Rome" || calls.Load() != 2 {
		t.Errorf("the tool gave %q in %d calls", got, calls.Load())
	}
}

func TestRealElicitation(t *testing.T) {
	model := claudetest.NewHandler(claudetest.Sequence(
		claudetest.Tool("mcp__remote__ask", map[string]any{}), claudetest.Text("done")), nil)
	sb := box(t)
	l, err := sb.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := weather()
	server := &http.Server{Handler: mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return srv }, nil), ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
		for session := range srv.Sessions() {
			_ = session.Close()
		}
	})
	s := sessionIn(t, sb, &claude.Options{
		Endpoint: claude.Endpoint{Handler: model}, PermissionMode: claude.PermissionBypass, MaxRetries: -1,
		MCPServers: map[string]claude.MCPServer{"remote": {URL: "http://" + l.Addr().String()}},
		OnElicitation: func(_ context.Context, e *claude.Elicitation) (*claude.ElicitationAnswer, error) {
			if e.Server != "remote" || e.Message != "which city?" || e.Schema == nil {
				t.Errorf("asked %+v", e)
			}
			return &claude.ElicitationAnswer{Action: "accept", Content: map[string]any{"city": "Oslo"}}, nil
		},
	})
	results := turn(t, s)
	if len(results) != 1 || results[0].IsError || results[0].Content.Text() != "accept Oslo" {
		t.Errorf("ask gave %+v", results)
	}
	if err := s.ReconnectMCP(t.Context(), "remote"); err != nil {
		t.Errorf("ReconnectMCP: %v", err)
	}
	if err := s.ToggleMCP(t.Context(), "remote", false); err != nil {
		t.Errorf("ToggleMCP: %v", err)
	}
	if status, err := s.MCPStatus(t.Context()); err != nil || len(status) != 1 || status[0].Status != "disabled" {
		t.Errorf("MCPStatus = %+v, %v", status, err)
	}
}

func turn(t *testing.T, s *claude.Session) (results []claude.ContentBlock) {
	t.Helper()
	st, err := s.Query(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
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

// conn is a connection whose client is the test.
type conn struct{ in, out chan json.RawMessage }

func (c *conn) Receive(ctx context.Context) (json.RawMessage, error) {
	select {
	case m, ok := <-c.in:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *conn) Send(_ context.Context, m json.RawMessage) error {
	c.out <- m
	return nil
}

func TestServeMCPEnds(t *testing.T) {
	for name, end := range map[string]func(c *conn, cancel func()){
		"context": func(_ *conn, cancel func()) { cancel() },
		"EOF":     func(c *conn, _ func()) { close(c.in) },
	} {
		t.Run(name, func(t *testing.T) {
			c := &conn{in: make(chan json.RawMessage), out: make(chan json.RawMessage, 1)}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error)
			go func() { ended <- mcpserver.New(weather()).InProcess.ServeMCP(ctx, c) }()
			c.in <- json.RawMessage(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
			if answer := <-c.out; !strings.Contains(string(answer), `"weather"`) {
				t.Errorf("initialize gave %s", answer)
			}
			end(c, cancel)
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
