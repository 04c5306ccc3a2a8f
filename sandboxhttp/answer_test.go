package sandboxhttp_test

import (
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// askTwice asks whether it may run two commands, and says what was answered.
func askTwice(p *player) {
	for _, id := range []string{"toolu_1", "toolu_2"} {
		p.write(`{"type":"control_request","request_id":"ask-` + id + `","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{"command":"ls"},` +
			`"tool_use_id":"` + id + `","title":"Run ls?","permission_suggestions":[{"type":"setMode","mode":"acceptEdits","destination":"session"}]}}`)
		select {
		case line := <-p.answers:
			p.say(line)
		case <-p.ctx.Done():
			return
		}
	}
	p.succeed()
}

// question waits for a question of a run, and gives it.
func (s *server) question(run string) map[string]any {
	s.t.Helper()
	var list []any
	until(s.t, "a question", func() bool {
		list, _ = s.ask(200, "GET", run, "")["questions"].([]any)
		return len(list) > 0
	})
	return list[0].(map[string]any)
}

func TestQuestions(t *testing.T) {
	s := serve(t, newPlace(t, askTwice), nil)
	box := s.create("")
	f := s.prompt(box, "go")
	run := f.run(box)
	q := s.question(run)
	if q["id"] != "toolu_1" || q["tool"] != "Bash" || q["title"] != "Run ls?" || q["input"].(map[string]any)["command"] != "ls" || q["asked_at"] == nil {
		t.Errorf("the question is %v", q)
	}
	seen := false
	for !seen {
		e, err := f.next()
		if err != nil {
			t.Fatal(err)
		}
		seen = e.name == "control" && strings.Contains(e.data, `"toolu_1"`)
	}
	s.as("acme viewer").refused(403, "forbidden", "POST", run+"/answer", `{"question":"toolu_1","allow":true}`)
	s.as("other").refused(404, "not_found", "POST", run+"/answer", `{"question":"toolu_1","allow":true}`)
	for body, field := range map[string]string{
		`{"allow":true}`:         "question",
		`{"question":"toolu_1"}`: "allow",
		`{"question":"toolu_1","allow":false,"remember":true}`: "allow",
		`{"question":"toolu_1","allow":true,"message":"no"}`:   "allow",
		`{"question":"toolu_1","allow":true,"input":[1]}`:      "input",
	} {
		if fields := s.refused(422, "validation_failed", "POST", run+"/answer", body); len(fields) != 1 || fields[0] != field {
			t.Errorf("%s: %v", body, fields)
		}
	}
	s.refused(404, "not_found", "POST", run+"/answer", `{"question":"toolu_9","allow":true}`)
	s.ask(204, "POST", run+"/answer", `{"question":"toolu_1","allow":true,"remember":true,"input":{"command":"ls -l"}}`)
	e := f.must()
	for _, want := range []string{`\"behavior\":\"allow\"`, `ls -l`, `acceptEdits`} {
		if !strings.Contains(e.data, want) {
			t.Errorf("%s is not in the answer: %s", want, e.data)
		}
	}
	if q := s.question(run); q["id"] != "toolu_2" {
		t.Errorf("then %v", q)
	}
	s.refused(409, "answered", "POST", run+"/answer", `{"question":"toolu_1","allow":false}`)
	for range 2 { // with a key the second one is the first again
		s.ask(204, "POST", run+"/answer", `{"question":"toolu_2","allow":false,"message":"not that"}`, "Idempotency-Key", "a")
	}
	if e := f.must(); !strings.Contains(e.data, "not that") || !strings.Contains(e.data, `\"deny\"`) {
		t.Errorf("the second answer: %s", e.data)
	}
	if end := f.end(); end["end"] != "completed" {
		t.Errorf("end %v", end)
	}
	s.refused(409, "run_ended", "POST", run+"/answer", `{"question":"toolu_3","allow":true}`)
	if q := s.ask(200, "GET", run, "")["questions"]; q != nil {
		t.Errorf("questions of a run that has ended: %v", q)
	}
}

// A question is asked again by the next server, and answered there, once.
func TestQuestionsOutliveTheServer(t *testing.T) {
	p, keep := newPlace(t, askTwice), durable(new(sandboxhttp.MemoryStore), nil)
	first := serve(t, p, keep)
	box := first.create("")
	f := first.prompt(box, "go")
	run := f.run(box)
	first.question(run)
	first.ask(204, "POST", run+"/answer", `{"question":"toolu_1","allow":true}`)
	until(t, "the second question", func() bool { return first.question(run)["id"] == "toolu_2" })
	first.shutdown()

	s := serve(t, p, keep)
	if q := s.question(run); q["id"] != "toolu_2" || q["input"].(map[string]any)["command"] != "ls" {
		t.Errorf("the question is %v", q)
	}
	s.ask(204, "POST", run+"/answer", `{"question":"toolu_2","allow":true}`)
	events := s.follow("GET", run+"/events", "").all()
	said := 0
	for _, e := range events {
		said += strings.Count(e.data, `\"behavior\":\"allow\"`)
	}
	if last := events[len(events)-1]; said != 2 || !strings.Contains(last.data, "completed") {
		t.Errorf("%d answers arrived; the end is %s", said, last.data)
	}
}

// Who is asked is the server's choice, if it has made one.
func TestWhoIsAsked(t *testing.T) {
	for name, c := range map[string]struct {
		options claude.Options
		body    string
		asks    bool
	}{
		"by default":         {asks: true},
		"of the request":     {options: claude.Options{PermissionMode: claude.PermissionBypass}, body: `,"permission_mode":"default"`, asks: true},
		"bypass":             {options: claude.Options{PermissionMode: claude.PermissionBypass}},
		"bypass, by request": {body: `,"permission_mode":"bypassPermissions"`},
		"nobody":             {options: claude.Options{NoPrompts: true}},
		"a tool":             {options: claude.Options{PermissionTool: "mcp__x__y"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := make(chan []string, 1)
			p := newPlace(t, func(p *player) { args <- p.args; p.succeed() })
			s := serve(t, p, func(config *sandboxhttp.Config) { config.Claude = &c.options })
			s.follow("POST", s.create("")+"/claude", `{"prompt":"go"`+c.body+`}`).all()
			if asks := strings.Contains(strings.Join(<-args, " "), "--permission-prompt-tool=stdio"); asks != c.asks {
				t.Errorf("asks: %v", asks)
			}
		})
	}
}
