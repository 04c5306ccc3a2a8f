package claude_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func session(t *testing.T, play func(c *fakeCLI)) *claude.Session {
	t.Helper()
	s, err := claude.NewClient(fakeSandbox(t, play), nil).NewSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func send(t *testing.T, s *claude.Session, prompt string) *claude.Stream {
	t.Helper()
	st, err := s.Query(t.Context(), prompt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// turns answers prompts with what they say, until the end of input.
func turns(c *fakeCLI) {
	c.answer(c.read(), "{}")
	for {
		id, text := c.prompt()
		if id == "" {
			return
		}
		c.write(`{"type":"assistant","message":{"content":[{"type":"text","text":%q}]}}`+"\n", text)
		c.result(id, fmt.Sprintf(`,"result":%q`, text))
	}
}

func TestTurns(t *testing.T) {
	s := session(t, turns)
	for _, prompt := range []string{"one", "two", "three"} {
		st := send(t, s, prompt)
		types, err := gather(st)
		if got := strings.Join(types, " "); err != nil || got != "assistant result/success" {
			t.Errorf("%s: messages %q, %v", prompt, got, err)
		}
		if res, err := st.Result(); err != nil || res.Text != prompt {
			t.Errorf("%s: Result() = %+v, %v", prompt, res, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Query(t.Context(), "four"); !errors.Is(err, claude.ErrClosed) && !errors.Is(err, claude.ErrNoResult) {
		t.Errorf("Send after Close: %v", err)
	}
}

// Prompts that come while a turn goes on: one becomes part of the turn, the other
// has its own.
func TestQueuedPrompts(t *testing.T) {
	s := session(t, func(c *fakeCLI) {
		c.answer(c.read(), "{}")
		one, _ := c.prompt()
		two, _ := c.prompt()
		three, _ := c.prompt()
		c.write(`{"type":"assistant"}` + "\n")
		c.write(`{"type":"result","subtype":"success","result":"both","user_message_uuids":[%q,%q]}`+"\n", one, two)
		c.write(`{"type":"system","subtype":"init","session_id":"s"}` + "\n")
		c.result(three, `,"result":"alone"`)
		c.drain()
	})
	var streams []*claude.Stream
	for _, prompt := range []string{"one", "two", "three"} {
		streams = append(streams, send(t, s, prompt))
	}
	for i, want := range []string{"assistant result/success: both", "result/success: both", "system/init result/success: alone"} {
		types, err := gather(streams[i])
		if err != nil {
			t.Fatal(err)
		}
		res, err := streams[i].Result()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(types, " ") + ": " + res.Text; got != want {
			t.Errorf("stream %d gave %q, want %q", i, got, want)
		}
		if !slices.Contains(res.PromptIDs, streams[i].PromptID()) {
			t.Errorf("the result of stream %d is for the prompts %q", i, res.PromptIDs)
		}
	}
}

// A prompt that waits is taken back, not the turn before it interrupted.
func TestTakeBack(t *testing.T) {
	s := session(t, func(c *fakeCLI) {
		c.answer(c.read(), "{}")
		one, _ := c.prompt()
		two, _ := c.prompt()
		request := c.read()
		body, _ := request["request"].(map[string]any)
		c.answer(request, fmt.Sprintf(`{"cancelled":%v}`, body["subtype"] == "cancel_async_message" && body["message_uuid"] == two))
		c.result(one, "")
		c.drain()
	})
	first, second := send(t, s, "one"), send(t, s, "two")
	if err := second.Interrupt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Result(); !errors.Is(err, claude.ErrTakenBack) || claude.EndOf(err) != claude.EndCancelled {
		t.Errorf("the second: %v (%s), want ErrTakenBack", err, claude.EndOf(err))
	}
	if _, err := first.Result(); err != nil {
		t.Errorf("the first: %v", err)
	}
}

func TestOneUserOfAConversation(t *testing.T) {
	sb := fakeSandbox(t, turns)
	client := claude.NewClient(sb, nil)
	s, err := client.Resume(t.Context(), "c-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Resume(t.Context(), "c-1"); !errors.Is(err, claude.ErrSessionInUse) {
		t.Errorf("Resume again: %v, want ErrSessionInUse", err)
	}
	if _, err := claude.Query(t.Context(), sb, "x", &claude.Options{Resume: "c-1"}); !errors.Is(err, claude.ErrSessionInUse) {
		t.Errorf("Query of the same: %v, want ErrSessionInUse", err)
	}
	fork, err := client.Fork(t.Context(), "c-1")
	if err != nil {
		t.Fatal(err)
	}
	if fork.ID() == "c-1" {
		t.Error("a fork has the id of the conversation that it left")
	}
	if err := errors.Join(fork.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := client.Resume(t.Context(), "c-1")
	if err != nil {
		t.Fatalf("Resume after Close: %v", err)
	}
	_ = again.Close()
}

// A result of work in the background is no answer to a prompt, and what came
// between two turns is not lost.
func TestResultsThatAreNotTheTurns(t *testing.T) {
	const task = `{"type":"result","subtype":"success","result":"task","origin":{"kind":"task-notification"}}` + "\n"
	s := session(t, func(c *fakeCLI) {
		c.answer(c.read(), "{}")
		id, _ := c.prompt()
		c.write(task)
		c.write(`{"type":"result","subtype":"success","result":"older","user_message_uuids":["somebody-else"]}` + "\n")
		c.result(id, `,"result":"first"`)
		c.write(`{"type":"system","subtype":"task_notification"}` + "\n" + task)
		id, _ = c.prompt()
		c.result(id, `,"result":"second"`)
		c.drain()
	})
	st := send(t, s, "one")
	types, err := gather(st)
	if res, _ := st.Result(); err != nil || len(types) != 3 || res.Text != "first" {
		t.Errorf("messages %q, %v, result %+v", types, err, res)
	}
	st = send(t, s, "two")
	types, err = gather(st)
	if res, _ := st.Result(); err != nil || strings.Join(types, " ") != "system/task_notification result/success result/success" || res.Text != "second" {
		t.Errorf("messages %q, %v, result %+v", types, err, res)
	}
}

// interruptible is a turn that never ends by itself. The CLI says the first
// time that it has not begun with the prompt.
func interruptible(c *fakeCLI) {
	c.answer(c.read(), "{}")
	for {
		id, _ := c.prompt()
		if id == "" {
			return
		}
		c.write(`{"type":"assistant"}` + "\n")
		c.answer(c.read(), fmt.Sprintf(`{"still_queued":[%q]}`, id))
		c.answer(c.read(), `{"still_queued":[]}`)
		c.result(id, `,"is_error":true,"subtype":"error_during_execution","terminal_reason":"aborted_streaming"`)
	}
}

func TestInterrupt(t *testing.T) {
	s := session(t, interruptible)
	for range 2 {
		st := send(t, s, "x")
		if err := s.Interrupt(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := st.Result()
		var failed *claude.ResultError
		if !errors.As(err, &failed) || failed.Kind != claude.KindInterrupted || claude.EndOf(err) != claude.EndCancelled {
			t.Errorf("Result: %v, want an interrupted turn", err)
		}
		if err := st.Interrupt(t.Context()); err != nil {
			t.Errorf("Interrupt after the end: %v", err)
		}
	}
}

func TestContextOfSendInterruptsTheTurn(t *testing.T) {
	s := session(t, interruptible)
	ctx, cancel := context.WithCancelCause(t.Context())
	st, err := s.Query(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	cancel(why)
	if _, err := st.Result(); !errors.Is(err, why) || claude.EndOf(err) != claude.EndCancelled {
		t.Errorf("Result: %v, want the context's cause", err)
	}
	if err := send(t, s, "still alive").Close(); err != nil {
		t.Errorf("the next turn: %v", err)
	}
}

func TestBreakInterruptsTheTurn(t *testing.T) {
	s := session(t, interruptible)
	for range send(t, s, "x").Messages() {
		break
	}
	st := send(t, s, "y")
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}

// A reader that does not read holds up the CLI, but not an interrupt.
func TestInterruptPassesWhatNobodyReads(t *testing.T) {
	line := `{"type":"assistant","pad":"` + strings.Repeat("x", 1<<20) + `"}` + "\n"
	s := session(t, func(c *fakeCLI) {
		c.answer(c.read(), "{}")
		id, _ := c.prompt()
		for range 10 {
			c.write("%s", line)
		}
		c.answer(c.read(), "{}")
		c.result(id, `,"is_error":true,"terminal_reason":"aborted_streaming"`)
		c.drain()
	})
	st := send(t, s, "x")
	if err := st.Interrupt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if types, _ := gather(st); len(types) != 11 {
		t.Errorf("%d messages, want all 11", len(types))
	}
}

func TestSettings(t *testing.T) {
	requests := make(chan map[string]any, 3)
	s := session(t, func(c *fakeCLI) {
		c.answer(c.read(), "{}")
		for range 2 {
			r := c.read()
			body, _ := r["request"].(map[string]any)
			requests <- body
			c.answer(r, "{}")
		}
		refuse(c, c.read())
		c.drain()
	})
	if err := s.SetModel(t.Context(), "opus"); err != nil {
		t.Fatal(err)
	}
	if r := <-requests; r["subtype"] != "set_model" || r["model"] != "opus" {
		t.Errorf("sent %v", r)
	}
	if err := s.SetPermissionMode(t.Context(), claude.PermissionPlan); err != nil {
		t.Fatal(err)
	}
	if r := <-requests; r["subtype"] != "set_permission_mode" || r["mode"] != "plan" {
		t.Errorf("sent %v", r)
	}
	var refused *claude.ControlError
	if err := s.SetModel(t.Context(), "none"); !errors.As(err, &refused) || refused.Message != "not today" {
		t.Errorf("SetModel: %v, want a *ControlError", err)
	}
}

func TestSessionThatDies(t *testing.T) {
	s := session(t, func(c *fakeCLI) {
		c.answer(c.read(), "{}")
		c.prompt()
		c.exit(driver.Exit{Code: 137})
	})
	if _, err := send(t, s, "x").Result(); !errors.Is(err, claude.ErrNoResult) {
		t.Errorf("Result: %v, want ErrNoResult", err)
	}
	if _, err := s.Query(t.Context(), "y"); !errors.Is(err, claude.ErrNoResult) {
		t.Errorf("Send: %v, want the end of the CLI", err)
	}
	if err := s.SetModel(t.Context(), "opus"); err == nil {
		t.Error("SetModel of a CLI that has ended succeeded")
	}
}

func TestCloseDuringATurnKills(t *testing.T) {
	s := session(t, func(c *fakeCLI) {
		c.begin()
		<-c.ended
	})
	st := send(t, s, "x")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Result(); !errors.Is(err, claude.ErrNoResult) || !errors.Is(err, claude.ErrClosed) {
		t.Errorf("Result: %v, want ErrClosed", err)
	}
}

func TestText(t *testing.T) {
	event := func(e string) string {
		return `{"event":` + e + `,"type":"stream_event","parent_tool_use_id":null}` + "\n"
	}
	delta := func(s string) string {
		return event(fmt.Sprintf(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%q}}`, s))
	}
	say := func(id, s string) string {
		return fmt.Sprintf(`{"message":{"id":%q,"content":[{"type":"text","text":%q}]},"type":"assistant"}`, id, s) + "\n"
	}
	start := event(`{"type":"message_start","message":{"id":"m1"}}`)
	block := event(`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`)
	tests := map[string]struct{ lines, want string }{
		"partial, once":  {start + block + delta("Hel") + delta("lo") + say("m1", "Hello"), "Hel|lo"},
		"whole":          {say("m1", "Hello"), "Hello"},
		"two blocks":     {say("m1", "a") + say("m1", "b"), "a|\n\nb"},
		"partial blocks": {start + block + delta("a") + block + delta("b") + delta("c"), "a|\n\nb|c"},
		"partial, then one that was not streamed": {start + block + delta("a") + say("m1", "a") + say("m2", "from a command"), "a|\n\nfrom a command"},
		"not the user's": {
			`{"type":"assistant","parent_tool_use_id":"t1","message":{"content":[{"type":"text","text":"sub"}]}}` + "\n" +
				`{"type":"assistant","message":{"content":[{"type":"thinking","thinking":"hm"},{"type":"tool_use","id":"t","name":"Bash","input":{}}]}}` + "\n" +
				`{"type":"assistant","error":"rate_limit","message":{"content":[{"type":"text","text":"API Error"}]}}` + "\nnoise\n" + say("m2", "ok"), "ok",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			st := query(t, nil, func(c *fakeCLI) { id, _ := c.begin(); c.write("%s", test.lines); c.result(id, ""); c.drain() })
			var got []string
			for s, err := range st.Text() {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, s)
			}
			if text := strings.Join(got, "|"); text != test.want {
				t.Errorf("Text gave %q, want %q", text, test.want)
			}
		})
	}
}
