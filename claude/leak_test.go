package claude_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// A CLI that is killed at any byte of what it writes.
func TestCutAtEveryByte(t *testing.T) {
	lines := []string{
		`{"type":"system","subtype":"init","session_id":"s-1","tools":["Bash"]}`,
		`{"event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"wörd \"x\""}},"type":"stream_event","uuid":"u"}`,
		`{"type":"control_request","request_id":"r","request":{"subtype":"nothing"}}`,
		`{"message":{"content":[{"type":"text","text":"word"}]},"type":"assistant"}`,
		`{"never":"heard of","type":"new"}`,
		`{"type":"result","subtype":"success","result":"done"}`,
	}
	all := strings.Join(lines, "\n") + "\n"
	for cut := range len(all) + 1 {
		st := query(t, nil, func(c *fakeCLI) {
			c.begin()
			go func() { _, _ = io.Copy(io.Discard, c.in) }()
			c.write("%s", all[:cut])
			c.exit(driver.Exit{Code: -1, Signal: driver.SIGKILL})
		})
		var got []string
		var last error
		for m, err := range st.Messages() {
			var bad *claude.ProtocolError
			switch {
			case err == nil:
				got = append(got, string(m.Raw()))
			case errors.As(err, &bad):
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("cut at %d: %v, want ErrUnexpectedEOF", cut, err)
				}
				got = append(got, string(bad.Line))
			default:
				last = err
			}
		}
		var want []string
		for line := range strings.Lines(all[:cut]) {
			if line = strings.TrimSuffix(line, "\n"); !strings.Contains(line, `"request_id":"r","request":{"subtype":"nothing"}}`) {
				want = append(want, line)
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("cut at %d: got %q, want %q", cut, got, want)
		}
		res, err := st.Result()
		finished := cut >= len(all)-1 // the last newline may be missing
		if finished != (res != nil) || finished != (err == nil) || (last == nil) != (err == nil) || !finished && !errors.Is(err, claude.ErrNoResult) {
			t.Fatalf("cut at %d: Result() = %v, %v; the last error was %v", cut, res, err, last)
		}
	}
}

// openFiles is how many descriptors this process has.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("counts descriptors in /proc: %v", err)
	}
	return len(entries)
}

// asking is a CLI that says something, asks, and never ends by itself.
func asking(question string) func(c *fakeCLI) {
	return func(c *fakeCLI) {
		initialize := c.read()
		c.answer(initialize, "{}")
		c.prompt()
		c.write(`{"type":"assistant","message":{"content":[{"type":"text","text":"word"}]}}` + "\n" + question + "\n")
		go func() { _, _ = io.Copy(io.Discard, c.in) }()
		<-c.ended
	}
}

const (
	mayI    = `{"type":"control_request","request_id":"q","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{}}}`
	hooked  = `{"type":"control_request","request_id":"q","request":{"subtype":"hook_callback","callback_id":"Stop-0","input":{}}}`
	toMCP   = `{"type":"control_request","request_id":"q","request":{"subtype":"mcp_message","server_name":"m","message":{"jsonrpc":"2.0","id":1,"method":"initialize"}}}`
	elicits = `{"type":"control_request","request_id":"q","request":{"subtype":"elicitation","mcp_server_name":"m","message":"?"}}`
)

type mcpFunc func(ctx context.Context, conn claude.MCPConn) error

func (f mcpFunc) ServeMCP(ctx context.Context, conn claude.MCPConn) error { return f(ctx, conn) }

// panicking has callbacks that panic.
func panicking() *claude.Options {
	return &claude.Options{
		CanUseTool: func(context.Context, *claude.ToolRequest) (*claude.Permission, error) { panic("permission") },
		Hooks: map[claude.HookEvent][]claude.Hook{claude.HookStop: {{
			Func: func(context.Context, *claude.HookInput) (*claude.HookOutput, error) { panic(errors.New("hook")) },
		}}},
		OnElicitation: func(context.Context, *claude.Elicitation) (*claude.ElicitationAnswer, error) { panic("elicitation") },
		MCPServers:    map[string]claude.MCPServer{"m": {InProcess: mcpFunc(func(context.Context, claude.MCPConn) error { panic("mcp") })}},
	}
}

// waiting has callbacks that wait for their contexts.
func waiting(begun chan<- struct{}) *claude.Options {
	return &claude.Options{
		CanUseTool: func(ctx context.Context, _ *claude.ToolRequest) (*claude.Permission, error) {
			begun <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		},
		MCPServers: map[string]claude.MCPServer{"m": {InProcess: mcpFunc(func(ctx context.Context, conn claude.MCPConn) error {
			_, _ = conn.Receive(ctx)
			begun <- struct{}{}
			_, err := conn.Receive(ctx)
			return err
		})}},
	}
}

func TestNothingIsLeft(t *testing.T) {
	started := func(t *testing.T, opts *claude.Options, question string) (*claude.Stream, context.CancelFunc) {
		sb, err := sandbox.NewProvider(fakeProvider{kernelPipe: true, play: asking(question)}).Create(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		st, err := claude.Query(ctx, sb, "x", opts)
		if err != nil {
			t.Fatal(err)
		}
		return st, cancel
	}
	ends := map[string]func(t *testing.T){
		"break Messages": func(t *testing.T) {
			st, _ := started(t, nil, "")
			for range st.Messages() {
				break
			}
		},
		"break Lines": func(t *testing.T) {
			st, _ := started(t, nil, "")
			for range st.Lines() {
				break
			}
		},
		"break Text": func(t *testing.T) {
			st, _ := started(t, nil, "")
			for range st.Text() {
				break
			}
		},
		"panic in the loop": func(t *testing.T) {
			st, _ := started(t, nil, "")
			defer func() { _ = recover() }()
			for range st.Messages() {
				panic("here")
			}
		},
		"cancel": func(t *testing.T) {
			st, cancel := started(t, nil, "")
			cancel()
			if _, err := st.Result(); !errors.Is(err, context.Canceled) {
				t.Errorf("Result: %v", err)
			}
		},
		"cancel a callback": func(t *testing.T) {
			begun := make(chan struct{}, 1)
			st, cancel := started(t, waiting(begun), mayI)
			<-begun
			cancel()
			if _, err := st.Result(); !errors.Is(err, context.Canceled) {
				t.Errorf("Result: %v", err)
			}
		},
		"close with a server": func(t *testing.T) {
			begun := make(chan struct{}, 1)
			st, _ := started(t, waiting(begun), toMCP)
			<-begun
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		},
	}
	for name, question := range map[string]string{"CanUseTool": mayI, "hook Stop": hooked, "MCP server m": toMCP, "OnElicitation": elicits} {
		ends["panic in "+name] = func(t *testing.T) {
			st, _ := started(t, panicking(), question)
			_, err := st.Result()
			var panicked *claude.PanicError
			if !errors.As(err, &panicked) || panicked.Callback != name || len(panicked.Stack) == 0 || !errors.Is(err, claude.ErrNoResult) {
				t.Errorf("Result: %v, want the *PanicError of %s", err, name)
			}
			if claude.EndOf(err) != claude.EndAgentError {
				t.Errorf("EndOf = %s", claude.EndOf(err))
			}
		}
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			before := openFiles(t)
			running := goleak.IgnoreCurrent()
			for range 3 {
				end(t)
			}
			if err := goleak.Find(running); err != nil {
				t.Error(err)
			}
			if after := openFiles(t); after > before {
				t.Errorf("%d descriptors, %d before", after, before)
			}
		})
	}
}

// The CLI withdraws a question, and the answer that comes all the same is not sent.
func TestWithdrawnQuestion(t *testing.T) {
	begun := make(chan struct{}, 1)
	answered := make(chan string, 1)
	sb := fakeSandbox(t, func(c *fakeCLI) {
		id, _ := c.begin()
		c.write(mayI + "\n")
		<-begun
		c.write(`{"type":"control_cancel_request","request_id":"q"}` + "\n")
		c.write(`{"type":"control_request","request_id":"q2","request":{"subtype":"nothing"}}` + "\n")
		answer, _ := json.Marshal(c.read())
		answered <- string(answer)
		c.result(id, "")
		c.drain()
	})
	st, err := claude.Query(t.Context(), sb, "x", waiting(begun))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.Result(); err != nil {
		t.Error(err)
	}
	if got := <-answered; !strings.Contains(got, `"q2"`) {
		t.Errorf("the CLI was sent %s", got)
	}
}

// A control request ends with its context, and is withdrawn.
func TestControlIsBounded(t *testing.T) {
	withdrawn := make(chan map[string]any, 1)
	s := session(t, func(c *fakeCLI) {
		c.answer(c.read(), "{}")
		request := c.read()
		line := c.read()
		if line["request_id"] != request["request_id"] {
			line = nil
		}
		withdrawn <- line
		c.drain()
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	done := make(chan error)
	go func() { done <- s.Control(ctx, "get_settings", nil, nil) }()
	cancel(enough)
	if err := <-done; !errors.Is(err, enough) {
		t.Errorf("Control: %v, want the context's cause", err)
	}
	if line := <-withdrawn; line["type"] != "control_cancel_request" {
		t.Errorf("the CLI was sent %v", line)
	}
}

func TestCallbackAnswers(t *testing.T) {
	opts := &claude.Options{
		CanUseTool: func(_ context.Context, use *claude.ToolRequest) (*claude.Permission, error) {
			switch use.ToolUseID {
			case "allow":
				return claude.Allow(), nil
			case "nil":
				return nil, nil
			case "error":
				return nil, errors.New("no idea")
			}
			return &claude.Permission{Message: "no", Interrupt: true}, nil
		},
		OnUserDialog: func(_ context.Context, d *claude.UserDialog) (any, error) {
			if d.Kind == "known" {
				return map[string]int{"n": 1}, nil
			}
			return nil, nil
		},
		DialogKinds: []string{"known"},
	}
	may := func(id string) string {
		return fmt.Sprintf(`{"subtype":"can_use_tool","tool_name":"Bash","input":{"command":"ls"},"tool_use_id":%q}`, id)
	}
	for request, want := range map[string]string{
		may("allow"): `{"behavior":"allow","toolUseID":"allow","updatedInput":{"command":"ls"}}`,
		may("nil"):   `{"behavior":"deny","message":"not allowed","toolUseID":"nil"}`,
		may("error"): `{"behavior":"deny","message":"the host could not decide: no idea","toolUseID":"error"}`,
		may("deny"):  `{"behavior":"deny","interrupt":true,"message":"no","toolUseID":"deny"}`,
		`{"subtype":"request_user_dialog","dialog_kind":"known","payload":{}}`: `{"behavior":"completed","result":{"n":1}}`,
		`{"subtype":"request_user_dialog","dialog_kind":"other","payload":{}}`: `{"behavior":"cancelled"}`,
		`{"subtype":"hook_callback","callback_id":"unknown"}`:                  `the host does not answer "hook_callback"`,
	} {
		var got string
		st := query(t, opts, func(c *fakeCLI) {
			id, _ := c.begin()
			c.write(`{"type":"control_request","request_id":"q","request":%s}`+"\n", request)
			response, _ := c.read()["response"].(map[string]any)
			var b bytes.Buffer
			if response["error"] != nil {
				fmt.Fprint(&b, response["error"])
			} else if err := json.NewEncoder(&b).Encode(response["response"]); err != nil {
				t.Error(err)
			}
			got = strings.TrimSpace(b.String())
			c.result(id, "")
			c.drain()
		})
		if _, err := st.Result(); err != nil {
			t.Error(err)
		}
		if got != want {
			t.Errorf("%s was answered with %s, want %s", request, got, want)
		}
	}
}
