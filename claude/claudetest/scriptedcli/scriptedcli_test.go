package scriptedcli_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest/scriptedcli"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func query(t *testing.T, play scriptedcli.Play) (*claude.Stream, *scriptedcli.Box) {
	t.Helper()
	box := scriptedcli.Start(t, play)
	st, err := claude.Query(t.Context(), box.Sandbox, "hello there", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st, box
}

func TestAPlay(t *testing.T) {
	st, box := query(t, func(c *scriptedcli.CLI) {
		p, _ := c.Prompt()
		c.Init(scriptedcli.Line{"model": "claude-x"})
		c.Delta("You ")
		c.Tool("toolu_1", "Bash", map[string]string{"command": "ls"})
		c.ToolResult("toolu_1", "a.txt", false)
		c.Text("You said: " + p.Text)
		c.Result(p, scriptedcli.Result{Text: "done", CostUSD: 0.25, Turns: 2})
		c.Drain()
	})
	res, err := st.Result()
	if err != nil {
		t.Fatal(err)
	}
	if res.CostUSD != 0.25 || res.Turns != 2 {
		t.Errorf("got %+v", res)
	}
	run := box.Runs()[0]
	if run.Args[0] != "claude" {
		t.Errorf("the command line is %q", run.Args)
	}
	if got := run.Controls(""); len(got) != 1 || got[0].Text("subtype") != "initialize" {
		t.Errorf("asked for %v", got)
	}
	last := run.Received()[1]
	if got, want := last.Get("message", "content"), any("hello there"); !cmp.Equal(got, want) {
		t.Errorf("the prompt was %v", last)
	}
}

// Every way for a run to end is an error of package claude that says which.
func TestEnds(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(c *scriptedcli.CLI, p scriptedcli.Prompt)
		says string
		is   error
	}{
		"status":  {func(c *scriptedcli.CLI, _ scriptedcli.Prompt) { c.Stderr("no disk\n"); c.Exit(7) }, "no disk", nil},
		"signal":  {func(c *scriptedcli.CLI, _ scriptedcli.Prompt) { c.Die(driver.SIGKILL) }, "", nil},
		"lost":    {func(c *scriptedcli.CLI, _ scriptedcli.Prompt) { c.Lose(driver.EndOOM) }, "", sandbox.ErrEnded},
		"half":    {func(c *scriptedcli.CLI, _ scriptedcli.Prompt) { c.WriteBytes([]byte(`{"type":"resu`)) }, "", nil},
		"returns": {func(*scriptedcli.CLI, scriptedcli.Prompt) {}, "", nil},
		"error": {func(c *scriptedcli.CLI, p scriptedcli.Prompt) {
			c.Result(p, scriptedcli.Result{IsError: true, Subtype: "error_max_turns", More: scriptedcli.Line{"errors": []string{"too many turns"}}})
			c.Drain()
		}, "turns", nil},
	} {
		t.Run(name, func(t *testing.T) {
			st, _ := query(t, func(c *scriptedcli.CLI) {
				p, _ := c.Prompt()
				test.end(c, p)
			})
			_, err := st.Result()
			if err == nil || !strings.Contains(err.Error(), test.says) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v", err)
			}
		})
	}
}

const recorded = `{"type":"system","subtype":"init","session_id":"s"}
this is no JSON

{"type":"control_response","response":{"subtype":"success","request_id":"1"}}
{"is_error":false,"result":"one","num_turns":1,"user_message_uuids":["old-1"],"subtype":"success","type":"result"}
{"is_error":false,"result":"bg","origin":{"kind":"task-notification"},"user_message_uuids":[],"subtype":"success","type":"result"}
{"is_error":false,"result":"two","user_message_uuid":"old-2","user_message_uuids":["old-2"],"subtype":"success","type":"result"}
`

// raw drives a run without package claude, and gives what it prints.
func raw(t *testing.T, play scriptedcli.Play, stdin string) (string, error) {
	t.Helper()
	cmd := scriptedcli.Start(t, play).Command(t.Context(), "claude")
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	return string(out), err
}

func TestReplay(t *testing.T) {
	play, err := scriptedcli.Replay(strings.NewReader(recorded))
	if err != nil {
		t.Fatal(err)
	}
	got, err := raw(t, play, `{"type":"control_request","request_id":"i","request":{"subtype":"initialize"}}
{"type":"user","uuid":"u1","message":{"role":"user","content":"a"}}
{"type":"user","uuid":"u2","message":{"role":"user","content":[{"type":"text","text":"b"}]}}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(`{"response":{"request_id":"i","response":{},"subtype":"success"},"type":"control_response"}
{"type":"system","subtype":"init","session_id":"s"}
this is no JSON
{"is_error":false,"num_turns":1,"result":"one","subtype":"success","type":"result","user_message_uuids":["u1"]}
{"is_error":false,"result":"bg","origin":{"kind":"task-notification"},"user_message_uuids":[],"subtype":"success","type":"result"}
{"is_error":false,"result":"two","subtype":"success","type":"result","user_message_uuid":"u2","user_message_uuids":["u2"]}
`, "\n")
	if diff := cmp.Diff(want, strings.Split(got, "\n")); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
	if _, err := scriptedcli.Replay(io.MultiReader(strings.NewReader("{}"), failing{})); err == nil {
		t.Error("a recording that cannot be read was taken")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("no") }

// The CLI's own questions make the round trip, in the other side's words.
func TestAsking(t *testing.T) {
	var allowed, refused scriptedcli.Line
	var errs []error
	play := func(c *scriptedcli.CLI) {
		c.Handle("set_model", func(r scriptedcli.Line) (any, error) { return nil, errors.New("no " + r.Text("request", "model")) })
		var err error
		allowed, err = c.AskPermission("Bash", map[string]string{"command": "ls"}).Wait()
		errs = append(errs, err)
		refused, err = c.Ask(map[string]any{"subtype": "hook_callback"}).Wait()
		errs = append(errs, err)
		withdrawn := c.Ask(map[string]any{"subtype": "elicitation"})
		withdrawn.Withdraw()
		<-c.Interrupted()
		c.Drain()
		_, err = withdrawn.Wait()
		errs = append(errs, err)
	}
	box := scriptedcli.Start(t, play)
	cmd := box.Command(t.Context(), "claude")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(stdout)
	next := func() (line scriptedcli.Line) {
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		return line
	}
	say := func(line string) {
		if _, err := io.WriteString(stdin, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	want := scriptedcli.Line{"type": "control_request", "request_id": "scripted-1", "request": map[string]any{
		"subtype": "can_use_tool", "tool_name": "Bash", "tool_use_id": "toolu_1", "input": map[string]any{"command": "ls"},
	}}
	if diff := cmp.Diff(want, next()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	say(`{"type":"control_request","request_id":"m","request":{"subtype":"set_model","model":"x"}}`)
	if got := next(); got.Text("response", "error") != "no x" || got.Text("response", "request_id") != "m" {
		t.Errorf("answered %v", got)
	}
	say(`{"type":"control_response","response":{"subtype":"success","request_id":"scripted-1","response":{"behavior":"allow"}}}`)
	next()
	say(`{"type":"control_response","response":{"subtype":"error","request_id":"scripted-2","error":"not here"}}`)
	next()
	if got := next(); got.Text("type") != "control_cancel_request" || got.Text("request_id") != "scripted-3" {
		t.Errorf("withdrew with %v", got)
	}
	say(`{"type":"control_request","request_id":"i","request":{"subtype":"interrupt"}}`)
	next()
	if err := stdin.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if allowed.Text("behavior") != "allow" || refused != nil || errs[0] != nil || errs[1] == nil || !errors.Is(errs[2], scriptedcli.ErrNoAnswer) {
		t.Errorf("got %v, %v, %v", allowed, refused, errs)
	}
}

func TestSignalsAndStdin(t *testing.T) {
	ready := make(chan struct{}, 1)
	for name, test := range map[string]struct {
		play scriptedcli.Play
		sig  sandbox.Signal
		code int
	}{
		"TERM": {func(c *scriptedcli.CLI) { ready <- struct{}{}; <-c.Ended() }, driver.SIGTERM, 143},
		"KILL": {func(c *scriptedcli.CLI) { ready <- struct{}{}; <-c.Ended() }, driver.SIGKILL, -1},
		"caught": {func(c *scriptedcli.CLI) {
			signals := c.Signals()
			ready <- struct{}{}
			<-signals
			c.Exit(3)
		}, driver.SIGTERM, 3},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := scriptedcli.Start(t, test.play).Command(t.Context(), "claude")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-ready
			if err := cmd.Signal(test.sig); err != nil {
				t.Error(err)
			}
			exit, ok := errors.AsType[*sandbox.ExitError](cmd.Wait())
			if !ok || exit.Code != test.code {
				t.Errorf("ended with %+v, want status %d", exit, test.code)
			}
		})
	}
	t.Run("what is no JSON", func(t *testing.T) {
		_, err := raw(t, func(c *scriptedcli.CLI) { c.Prompt() }, "nonsense\n")
		if exit, ok := errors.AsType[*sandbox.ExitError](err); !ok || exit.Code != 1 || !strings.Contains(string(exit.Stderr), "Error parsing") {
			t.Errorf("got %v", err)
		}
	})
}

// A test that forgets its runs leaves nothing behind.
func TestForgotten(t *testing.T) {
	box := scriptedcli.Start(t, func(c *scriptedcli.CLI) {
		for c.Text("flood"); ; c.Text("flood") {
			select {
			case <-c.Ended():
				return
			default:
			}
		}
	})
	cmd := box.Command(context.Background(), "claude")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 10)); err != nil {
		t.Error(err)
	}
}
