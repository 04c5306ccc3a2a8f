package sandboxhttp_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// talk says how many lines the prompt asks for, and succeeds.
func talk(p *player) {
	n := 1
	_, _ = fmt.Sscanf(p.prompt, "%d", &n)
	for i := range n {
		p.say(fmt.Sprintf("line %d", i+1))
	}
	p.succeed()
}

func TestRunStreamsEveryLineAsItWasWritten(t *testing.T) {
	// Odd, but as a CLI might write it.
	odd := []string{
		`{"session_id":"x","type":"system","subtype":"init"}`,
		`{"type":"assistant", "text":"spaces,  \u00fc and ü"}`,
		`{"type":"not known yet","x":[1,2,{"y":null}]}`,
		`{"type":"assistant","text":"` + strings.Repeat("long ", 400_000) + `"}`,
	}
	s := serve(t, newPlace(t, func(p *player) {
		for _, line := range odd {
			p.write(line)
		}
		p.succeed()
	}), nil)
	box := s.create("")
	f := s.prompt(box, "go")
	if got := f.resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		t.Errorf("Content-Type %q", got)
	}
	events := f.all()
	if len(events) != len(odd)+2 {
		t.Fatalf("%d events", len(events))
	}
	for i, e := range events {
		if e.id != i+2 { // the first line answers this server
			t.Errorf("event %d has id %d", i, e.id)
		}
		if i < len(odd) && e.data != odd[i] {
			t.Errorf("line %d came as %.80q", i+1, e.data)
		}
	}
	run := s.ask(200, "GET", f.run(box), "")
	for field, want := range map[string]any{
		"state": "ended", "end": "completed", "prompt": "go", "cost_usd": 0.25, "events": float64(len(events) + 1),
		"sandbox_id": strings.TrimPrefix(box, "/sandbox/"),
	} {
		if run[field] != want {
			t.Errorf("%s of the run is %v, want %v", field, run[field], want)
		}
	}
	var end map[string]any
	_ = json.Unmarshal([]byte(events[len(events)-1].data), &end)
	if end["end"] != "completed" || end["num_turns"] != float64(2) || end["session_id"] != run["session_id"] || end["error"] != "" {
		t.Errorf("end event %v", end)
	}
}

// Each line is there before the next is written, for all who follow.
func TestLinesComeAsTheyAreWritten(t *testing.T) {
	gate := make(chan struct{})
	s := serve(t, newPlace(t, func(p *player) {
		for i := range 5 {
			p.say(fmt.Sprint(i))
			<-gate
		}
		p.succeed()
	}), nil)
	box := s.create("")
	f := s.prompt(box, "go")
	second := s.follow("GET", f.run(box)+"/events", "")
	for i := range 5 {
		for _, f := range []*feed{f, second} {
			if e := f.must(); e.id != i+2 || !strings.Contains(e.data, fmt.Sprintf(`"text":"%d"`, i)) {
				t.Fatalf("event %d: %+v", i, e)
			}
		}
		gate <- struct{}{}
	}
	if f.end()["end"] != "completed" || second.end()["end"] != "completed" {
		t.Error("not completed")
	}
}

// A client is cut again and again, in the middle of an event too, and goes on.
func TestResumeGivesEveryEventExactlyOnce(t *testing.T) {
	const n = 2000
	s := serve(t, newPlace(t, talk), nil)
	box := s.create("")
	first := s.prompt(box, fmt.Sprint(n))
	path := first.run(box) + "/events"
	first.close()
	var got []event
	for cut := 0; ; cut++ {
		last := 0
		if len(got) > 0 {
			last = got[len(got)-1].id
		}
		var f *feed
		if cut%2 == 0 {
			f = s.follow("GET", path, "", "Last-Event-ID", fmt.Sprint(last))
		} else {
			f = s.follow("GET", fmt.Sprintf("%s?after=%d", path, last), "")
		}
		for range 97 {
			e, err := f.next()
			if err != nil {
				t.Fatal(err)
			}
			if e.id != 0 {
				got = append(got, e)
			}
			if e.name == "end" {
				break
			}
		}
		_, _ = f.br.Discard(5) // half an event is no event
		f.close()
		if got[len(got)-1].name == "end" {
			break
		}
	}
	if len(got) != n+3 { // with the answer to this server
		t.Fatalf("%d events", len(got))
	}
	for i, e := range got {
		if e.id != i+1 {
			t.Fatalf("event %d has id %d", i, e.id)
		}
	}
	if resp := s.request("GET", path, "", "Last-Event-ID", fmt.Sprint(n+3)); resp.StatusCode != http.StatusNoContent {
		t.Errorf("after the end: status %d", resp.StatusCode)
	}
	// The header wins over the address, which a browser repeats.
	f := s.follow("GET", path+"?after=0", "", "Last-Event-ID", fmt.Sprint(n+2))
	if events := f.all(); len(events) != 1 || events[0].name != "end" {
		t.Errorf("%d events after %d", len(events), n+2)
	}
}

func TestResumeFromNonsenseIsRefused(t *testing.T) {
	gate := make(chan struct{})
	s := serve(t, newPlace(t, func(p *player) { p.say("one"); <-gate; p.succeed() }), nil)
	box := s.create("")
	f := s.prompt(box, "go")
	f.must()
	path := f.run(box) + "/events"
	for _, after := range []string{"-1", "x", "1.5", "99999999999999999999999", "3"} {
		fields := s.refused(422, "validation_failed", "GET", path+"?after="+after, "")
		if len(fields) != 1 || fields[0] != "after" {
			t.Errorf("after=%s: fields %v", after, fields)
		}
	}
	close(gate)
	f.all()
}

// A run goes on without anybody, and can be followed from the start.
func TestClosingTheStreamDoesNotCancelTheRun(t *testing.T) {
	gate := make(chan struct{})
	s := serve(t, newPlace(t, func(p *player) {
		p.say("one")
		select {
		case <-gate:
		case <-p.ctx.Done():
			return
		}
		p.say("two")
		p.succeed()
	}), nil)
	box := s.create("")
	f := s.prompt(box, "go")
	f.must()
	f.close()
	close(gate)
	if events := s.follow("GET", f.run(box)+"/events", "").all(); len(events) != 4 {
		t.Errorf("%d events", len(events))
	}
}

func TestManyFollowers(t *testing.T) {
	const n = 500
	followAll(t, 200, 0, func(p *player) {
		for range n {
			p.say("a line")
		}
	}, n+3)
}

// Those who never read take nothing from those who do. Their lines are more than
// what sockets hold.
func TestFollowersThatNeverRead(t *testing.T) {
	const n = 1000
	text := strings.Repeat("a long line ", 1500)
	followAll(t, 5, 5, func(p *player) {
		for range n {
			p.say(text)
		}
	}, n+3)
}

// followAll follows one run by many, who must each see so many events.
func followAll(t *testing.T, followers, stuck int, play func(*player), want int) {
	begin := make(chan struct{})
	s := serve(t, newPlace(t, func(p *player) { <-begin; play(p); p.succeed() }), nil)
	box := s.create("")
	f := s.prompt(box, "go")
	path := f.run(box) + "/events"
	for range stuck {
		s.follow("GET", path, "")
	}
	var wg sync.WaitGroup
	for range followers {
		g := s.follow("GET", path, "")
		wg.Go(func() {
			defer g.close()
			for i := 1; i <= want; i++ {
				e, err := g.next()
				if err != nil || e.id != i && e.name != "heartbeat" {
					t.Errorf("event %d: id %d, %v", i, e.id, err)
					return
				}
				if e.name == "heartbeat" {
					i--
				}
			}
		})
	}
	close(begin)
	wg.Wait()
	if events := f.all(); len(events) != want-1 {
		t.Errorf("%d events", len(events))
	}
}

func TestMemoryOfARunIsBounded(t *testing.T) {
	const n = 5000
	s := serve(t, newPlace(t, talk), func(c *sandboxhttp.Config) { c.Limits.RunBytes = 64 << 10 })
	box := s.create("")
	f := s.prompt(box, fmt.Sprint(n))
	f.close()
	until(t, "the run's end", func() bool { return s.ask(200, "GET", f.run(box), "")["state"] == "ended" })
	events := s.follow("GET", f.run(box)+"/events?after=3", "").all()
	var gap struct{ From, To int }
	if err := json.Unmarshal([]byte(events[0].data), &gap); err != nil || events[0].name != "gap" || events[0].id != 0 {
		t.Fatalf("the first is %+v", events[0])
	}
	if gap.From != 4 || events[1].id != gap.To+1 || events[len(events)-1].id != n+3 {
		t.Errorf("gap %+v, then %d to %d", gap, events[1].id, events[len(events)-1].id)
	}
}

func TestMemoryOfEndedRunsIsBounded(t *testing.T) {
	s := serve(t, newPlace(t, talk), func(c *sandboxhttp.Config) { c.Limits.EventBytes, c.Limits.KeptRuns = 200_000, 3 })
	box := s.create("")
	var runs []string
	for range 5 {
		f := s.prompt(box, "500")
		f.all()
		runs = append(runs, f.run(box))
	}
	until(t, "the oldest runs to be forgotten", func() bool {
		return len(s.ask(200, "GET", box+"/runs", "")["runs"].([]any)) == 3
	})
	s.refused(404, "not_found", "GET", runs[0], "")
	s.refused(404, "not_found", "GET", runs[1]+"/events", "")
	if events := s.follow("GET", runs[2]+"/events", "").all(); events[0].name != "gap" || events[1].name != "end" {
		t.Errorf("the oldest of those that are kept has %d events, the first %+v", len(events), events[0])
	}
	if events := s.follow("GET", runs[4]+"/events", "").all(); len(events) != 502 {
		t.Errorf("the newest has %d events", len(events))
	}
}

func TestInterrupt(t *testing.T) {
	s := serve(t, newPlace(t, func(p *player) {
		p.say("working")
		select {
		case <-p.interrupted:
			p.stopped()
		case <-p.ctx.Done():
		}
	}), nil)
	box := s.create("")
	f := s.prompt(box, "go")
	f.must()
	for range 2 { // a second time does nothing
		s.ask(202, "POST", f.run(box)+"/interrupt", "")
	}
	if end := f.end(); end["end"] != "cancelled" || end["cost_usd"] != 0.1 {
		t.Errorf("end %v", end)
	}
	s.ask(202, "POST", f.run(box)+"/interrupt", "{}")
	s.refused(404, "not_found", "POST", box+"/runs/run-x/interrupt", "")
}

// The CLI has not taken the prompt: there is nothing that could stop.
func TestInterruptBeforeTheStart(t *testing.T) {
	p := newPlace(t, talk)
	p.deaf = true
	s := serve(t, p, nil)
	box := s.create("")
	f := s.prompt(box, "go")
	s.ask(202, "POST", f.run(box)+"/interrupt", "")
	if end := f.end(); end["end"] != "cancelled" {
		t.Errorf("end %v", end)
	}
}

func TestInterruptKillsWhatDoesNotStop(t *testing.T) {
	s := serve(t, newPlace(t, func(p *player) { p.say("deaf"); <-p.ctx.Done() }),
		func(c *sandboxhttp.Config) { c.Limits.InterruptGrace = 10 * time.Millisecond })
	box := s.create("")
	f := s.prompt(box, "go")
	f.must()
	s.ask(202, "POST", f.run(box)+"/interrupt", "")
	if end := f.end(); end["end"] != "cancelled" || !strings.Contains(end["error"].(string), "killed") {
		t.Errorf("end %v", end)
	}
}

func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		play func(*player, *placeBox)
		end  string
	}{
		"no result":     {func(p *player, _ *placeBox) { p.say("hm") }, "unknown"},
		"crash":         {func(p *player, _ *placeBox) { p.exit.Code = 3 }, "agent_error"},
		"out of memory": {func(p *player, _ *placeBox) { p.exit = driver.Exit{Code: -1, Signal: driver.SIGKILL, OOM: true} }, "oom"},
		"api error": {func(p *player, _ *placeBox) {
			p.write(`{"type":"result","subtype":"success","is_error":true,"api_error_status":401,"result":"Invalid API key"}`)
		}, "agent_error"},
		"too many turns": {func(p *player, _ *placeBox) {
			p.write(`{"type":"result","subtype":"error_max_turns","is_error":true}`)
		}, "budget"},
		"too dear": {func(p *player, _ *placeBox) {
			p.write(`{"type":"result","subtype":"error_max_budget_usd","is_error":true}`)
		}, "budget"},
		"garbage":           {func(p *player, _ *placeBox) { p.write("not json"); p.write("\x00\xff\r{") }, "unknown"},
		"sandbox idle":      {func(p *player, b *placeBox) { p.say("hm"); b.end(driver.EndIdle) }, "idle"},
		"sandbox too old":   {func(p *player, b *placeBox) { p.say("hm"); b.end(driver.EndLifetime) }, "lifetime"},
		"sandbox lost":      {func(p *player, b *placeBox) { p.say("hm"); b.end(driver.EndProviderLost) }, "provider_lost"},
		"longer than limit": {func(p *player, _ *placeBox) { p.say("hm"); <-p.ctx.Done() }, "run_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			place := newPlace(t, nil)
			place.play = func(p *player) { c.play(p, place.only()) }
			s := serve(t, place, func(config *sandboxhttp.Config) {
				if c.end == "run_timeout" {
					config.Limits.RunTime = 50 * time.Millisecond
				}
			})
			box := s.create("")
			f := s.prompt(box, "go")
			if end := f.end(); end["end"] != c.end || end["error"] == "" {
				t.Errorf("end %v, want %s", end, c.end)
			}
			if run := s.ask(200, "GET", f.run(box), ""); run["end"] != c.end || run["state"] != "ended" {
				t.Errorf("the run is %v", run)
			}
		})
	}
}

func TestALineTooLongEndsTheRun(t *testing.T) {
	s := serve(t, newPlace(t, func(p *player) { p.say(strings.Repeat("x", 5000)); p.succeed() }),
		func(c *sandboxhttp.Config) { c.Limits.LineBytes = 4096 })
	f := s.prompt(s.create(""), "go")
	if end := f.end(); end["end"] != "agent_error" || !strings.Contains(end["error"].(string), "bytes") {
		t.Errorf("end %v", end)
	}
}

// What runs in a sandbox may write without ever ending the line.
func TestALineWithoutEndEndsTheRun(t *testing.T) {
	const limit = 1 << 20
	s := serve(t, newPlace(t, func(p *player) {
		p.say("one")
		for range 2 {
			_, _ = io.WriteString(p.stdout, strings.Repeat("x", limit))
		}
		<-p.ctx.Done() // it is killed although the line goes on
	}), func(c *sandboxhttp.Config) { c.Limits.LineBytes = limit })
	box := s.create("")
	for range 2 {
		f := s.prompt(box, "go")
		if e := f.must(); e.id != 2 {
			t.Errorf("the line before: %+v", e)
		}
		if end := f.end(); end["end"] != "agent_error" || !strings.Contains(end["error"].(string), "1048576 bytes") {
			t.Errorf("end %v", end)
		}
	}
}

func TestCLIThatDoesNotStart(t *testing.T) {
	place := newPlace(t, talk)
	s := serve(t, place, nil)
	box := s.create("")
	place.fail("start", fmt.Errorf("no such program"))
	f := s.prompt(box, "go")
	if end := f.end(); end["end"] == "completed" || end["error"] == "" {
		t.Errorf("end %v", end)
	}
}

func TestOneRunAtATimeInAConversation(t *testing.T) {
	gate := make(chan struct{})
	s := serve(t, newPlace(t, func(p *player) {
		p.say("one")
		if p.prompt == "wait" {
			<-gate
		}
		p.succeed()
	}), func(c *sandboxhttp.Config) { c.Limits.Runs = 2 })
	box := s.create("")
	f := s.prompt(box, "wait")
	f.must()
	session := s.ask(200, "GET", f.run(box), "")["session_id"].(string)
	again := fmt.Sprintf(`{"prompt":"again","session_id":%q}`, session)
	s.refused(409, "run_in_progress", "POST", box+"/claude", again)
	other := s.prompt(box, "another conversation") // goes on beside it
	if other.end()["end"] != "completed" {
		t.Error("the other conversation did not complete")
	}
	second := s.prompt(box, "wait")
	second.must()
	s.refused(429, "exhausted", "POST", box+"/claude", `{"prompt":"a third"}`)
	close(gate)
	f.all()
	second.all()
	// Who has seen the end may go on at once.
	g := s.follow("POST", box+"/claude", again)
	if end := g.end(); end["end"] != "completed" || end["session_id"] != session {
		t.Errorf("end %v", end)
	}
	if runs := s.ask(200, "GET", box+"/runs", "")["runs"].([]any); len(runs) != 4 ||
		runs[0].(map[string]any)["prompt"] != "wait" || runs[3].(map[string]any)["prompt"] != "again" {
		t.Errorf("runs %v", runs)
	}
}

func TestHeartbeat(t *testing.T) {
	gate := make(chan struct{})
	s := serve(t, newPlace(t, func(p *player) { <-gate; p.succeed() }),
		func(c *sandboxhttp.Config) { c.Limits.Heartbeat = time.Millisecond })
	f := s.prompt(s.create(""), "go")
	for range 3 {
		if e, err := f.next(); err != nil || e != (event{name: "heartbeat", data: "{}"}) {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	close(gate)
	f.all()
}

func TestOptionsOfARun(t *testing.T) {
	var seen *player
	s := serve(t, newPlace(t, func(p *player) { seen = p; talk(p) }), nil)
	box := s.create("")
	s.follow("POST", box+"/claude", `{"prompt":"go","model":"sonnet","max_turns":3,"allowed_tools":["Bash(git *)"],
		"disallowed_tools":["WebFetch"],"permission_mode":"plan","partial":false,"system_prompt":"be brief","append_system_prompt":"x"}`).all()
	args := strings.Join(seen.args, " ")
	for _, want := range []string{"--model=sonnet", "--max-turns=3", "--allowedTools=Bash(git *)", "--disallowedTools=WebFetch", "--permission-mode=plan"} {
		if !strings.Contains(args, want) {
			t.Errorf("no %s in %s", want, args)
		}
	}
	if strings.Contains(args, "partial") || strings.Contains(args, "brief") || seen.system != "be brief" {
		t.Errorf("arguments %s, system prompt %q", args, seen.system)
	}
	s.prompt(box, "go").all()
	if args := strings.Join(seen.args, " "); !strings.Contains(args, "--include-partial-messages") {
		t.Errorf("without partial: %s", args)
	}
}
