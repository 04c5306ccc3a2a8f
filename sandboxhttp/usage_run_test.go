package sandboxhttp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// bill writes the result of a turn that cost something, of two models.
func (p *player) bill() {
	p.write(`{"type":"result","subtype":"success","is_error":false,"result":"done","num_turns":2,"duration_ms":1,"total_cost_usd":0.25,` +
		`"modelUsage":{"a":{"inputTokens":1,"outputTokens":20,"cacheReadInputTokens":300,"cacheCreationInputTokens":4000},` +
		`"b":{"inputTokens":5,"outputTokens":60,"cacheReadInputTokens":700,"cacheCreationInputTokens":8000}},"session_id":"` + p.session + `"}`)
}

// billed is what bill comes to, but for the time.
var billed = usage.Amounts{
	Runs: 1, Cost: usage.Dollar / 4, InputTokens: 6, OutputTokens: 80, CacheReadTokens: 1000, CacheWriteTokens: 12_000,
}

// usedByRuns is what was used but for sandboxes, without the time, which must be some.
func usedByRuns(t *testing.T, l usage.Ledger) usage.Amounts {
	t.Helper()
	sum := used(t, l)
	if (sum.ClaudeTime > 0) != (sum.Runs > 0) {
		t.Errorf("%d runs took %v", sum.Runs, sum.ClaudeTime)
	}
	sum.Sandboxes, sum.ClaudeTime = 0, 0
	return sum
}

func TestUsageOfARun(t *testing.T) {
	gate := make(chan struct{})
	p, l := newPlace(t, func(p *player) { billAfter(p, gate) }), new(usage.Memory)
	s := serve(t, p, metered(l, usage.Quota{}))
	box := s.create("")
	f := s.prompt(box, "go")
	f.must()
	id := strings.TrimPrefix(box, "/sandbox/")
	if got := fmt.Sprint(places(t, l)); got != fmt.Sprintf("[sandbox of acme in %s run of acme in %s]", id, id) {
		t.Errorf("places while it runs: %s", got)
	}
	close(gate)
	f.end()
	counts(t, l, 1, 1) // who sees the end finds it counted
	if got := usedByRuns(t, l); got != billed {
		t.Errorf("used %+v, want %+v", got, billed)
	}
	entries, err := l.Entries(t.Context(), usage.Query{Account: "acme"})
	if err != nil || len(entries) != 2 {
		t.Fatalf("entries %v, %v", entries, err)
	}
	if e := entries[1]; f.run(box) != box+"/runs/"+e.RunID || e.ID != e.RunID || e.SandboxID != id || e.Kind != usage.KindRun {
		t.Errorf("entry %+v", e)
	}
}

// What comes from inside the sandbox is not taken for more than it can be, and does not
// keep the run from ending.
func TestUsageThatCannotBe(t *testing.T) {
	const huge = `{"inputTokens":9000000000000000000,"outputTokens":-7,"cacheReadInputTokens":9007199254740992}`
	p, l := newPlace(t, func(p *player) {
		p.write(`{"type":"result","subtype":"success","total_cost_usd":-1e300,"modelUsage":{"a":` + huge + `,"b":` + huge + `},"session_id":"s"}`)
	}), new(usage.Memory)
	s := serve(t, p, metered(l, usage.Quota{}))
	if end := s.prompt(s.create(""), "go").end(); end["end"] != "completed" {
		t.Errorf("end %v", end)
	}
	if got, want := usedByRuns(t, l), (usage.Amounts{Runs: 1, InputTokens: 1 << 53, CacheReadTokens: 1 << 53}); got != want {
		t.Errorf("used %+v, want %+v", got, want)
	}
}

func TestQuotaOfRunsAtOnce(t *testing.T) {
	cli, l := newPaced(), new(usage.Memory)
	s := serve(t, newPlace(t, cli.play), metered(l, usage.Quota{RunsAtOnce: 1}))
	one, two := s.create(""), s.create("")
	f := s.prompt(one, "go")
	f.must()
	for _, box := range []string{one, two} {
		s.exceeds(usage.LimitRunsAtOnce, "wait for one to end", true, "POST", box+"/claude", `{"prompt":"go"}`, "Idempotency-Key", "k")
		if list := s.ask(200, "GET", box+"/runs", "")["runs"].([]any); box == two && len(list) != 0 {
			t.Errorf("what was refused is listed: %v", list)
		}
	}
	s.ask(202, "POST", f.run(one)+"/interrupt", "")
	f.end()
	close(cli.gate)
	// What was refused was not begun, and is when it is asked for again.
	if end := s.prompt(two, "go", "Idempotency-Key", "k").end(); end["end"] != "completed" {
		t.Errorf("end %v", end)
	}
	counts(t, l, 2, 2)
}

func TestQuotaOfRunsPerDay(t *testing.T) {
	for limit, perDay := range map[usage.Limit]usage.Budget{
		usage.LimitDollarsPerDay:    {Cost: 1},
		usage.LimitTokensPerDay:     {Tokens: 100},
		usage.LimitClaudeTimePerDay: {ClaudeTime: 1},
	} {
		l := new(usage.Memory)
		s := serve(t, newPlace(t, (*player).bill), metered(l, usage.Quota{PerDay: perDay}))
		box := s.create("")
		s.prompt(box, "go").end() // one that holds nothing begins as long as anything is left
		s.exceeds(limit, "wait until 00:00 UTC", true, "POST", box+"/claude", `{"prompt":"go"}`)
		if got := usedByRuns(t, l); got != billed {
			t.Errorf("%s: used %+v", limit, got)
		}
		counts(t, l, 1, 1)
	}
}

// What the day has left lowers a run's budget, and what a run holds counts as used.
func TestBudgetOfARun(t *testing.T) {
	for most, want := range map[usage.MicroUSD][]string{
		0:                          {"2", "2", "2"}, // no limit
		100 * usage.Dollar:         {"2", "2", "2"},
		3500 * usage.Dollar / 1000: {"2", "1.5", ""},
	} {
		budgets := make(chan string, 3)
		cli := newPaced()
		p := newPlace(t, func(p *player) {
			budget := ""
			for _, arg := range p.args {
				if text, ok := strings.CutPrefix(arg, "--max-budget-usd="); ok {
					budget = text
				}
			}
			budgets <- budget
			cli.play(p)
		})
		l := new(usage.Memory)
		s := serve(t, p, metered(l, usage.Quota{PerDay: usage.Budget{Cost: most}}, func(c *sandboxhttp.Config) {
			c.Claude = &claude.Options{MaxBudgetUSD: 2}
		}))
		box := s.create("")
		var feeds []*feed
		for _, budget := range want {
			if budget == "" {
				s.exceeds(usage.LimitDollarsPerDay, "wait for that to end", true, "POST", box+"/claude", `{"prompt":"go"}`)
				continue
			}
			feeds = append(feeds, s.prompt(box, "go"))
			if got := <-budgets; got != budget {
				t.Errorf("of %v a day, run %d may cost %q, want %s", most, len(feeds), got, budget)
			}
		}
		close(cli.gate)
		for _, f := range feeds {
			f.end()
		}
		if got := used(t, l).Cost; got != usage.MicroUSD(len(feeds))*usage.Dollar/4 {
			t.Errorf("used %v", got)
		}
		counts(t, l, 1, 1)
	}
}

// What is left of a day's time ends a run.
func TestTimeOfARun(t *testing.T) {
	p, l := newPlace(t, func(p *player) { p.say("one"); <-p.ctx.Done() }), new(usage.Memory)
	s := serve(t, p, metered(l, usage.Quota{PerDay: usage.Budget{ClaudeTime: time.Second}}, func(c *sandboxhttp.Config) {
		c.Limits.RunTime = time.Hour
	}))
	box := s.create("")
	if end := s.prompt(box, "go").end(); end["end"] != "run_timeout" {
		t.Errorf("end %v", end)
	}
	s.exceeds(usage.LimitClaudeTimePerDay, "wait until 00:00 UTC", true, "POST", box+"/claude", `{"prompt":"go"}`)
	counts(t, l, 1, 1)
}

// A run that cannot be begun leaves no place.
func TestPlacesOfRunsThatDoNotBegin(t *testing.T) {
	for _, method := range []string{"Reserve", "SaveRun"} {
		p, l := newPlace(t, talk), newBrittle()
		s := serve(t, p, metered(l, usage.Quota{}, func(c *sandboxhttp.Config) { c.Store = l }))
		box := s.create("")
		l.fail(method, 1)
		if p := s.ask(500, "POST", box+"/claude", `{"prompt":"1"}`); strings.Contains(fmt.Sprint(p), "db-7") {
			t.Errorf("%v", p)
		}
		counts(t, l.Ledger, 1, 1)
		if runs := s.ask(200, "GET", box+"/runs", "")["runs"].([]any); len(runs) != 0 {
			t.Errorf("%s: runs %v", method, runs)
		}
		s.prompt(box, "1").end()
		if got := used(t, l.Ledger); got.Runs != 1 {
			t.Errorf("%s: used %+v", method, got)
		}
		s.shutdown()
		s.refused(503, "shutting_down", "POST", box+"/claude", `{"prompt":"1"}`)
		counts(t, l.Ledger, 1, 1)
	}
}

// However a run ends, it counts once and its place is free.
func TestPlacesOfRunsThatEnd(t *testing.T) {
	for name, end := range map[string]func(p *place, s *server, box string, f *feed){
		"interrupted":       func(_ *place, s *server, box string, f *feed) { s.ask(202, "POST", f.run(box)+"/interrupt", "") },
		"its sandbox ended": func(p *place, _ *server, _ string, _ *feed) { p.only().end(driver.EndOOM) },
		"deleted":           func(_ *place, s *server, box string, _ *feed) { s.ask(200, "DELETE", box, "") },
	} {
		t.Run(name, func(t *testing.T) {
			cli, l := newPaced(), new(usage.Memory)
			p := newPlace(t, cli.play)
			s := serve(t, p, metered(l, usage.Quota{}))
			box := s.create("")
			f := s.prompt(box, "go")
			f.must()
			end(p, s, box, f)
			f.end()
			s.ask(200, "GET", box, "")
			if list := places(t, l); strings.Contains(fmt.Sprint(list), "run") {
				t.Errorf("places %q", list)
			}
			if got := usedByRuns(t, l); got.Runs != 1 {
				t.Errorf("used %+v", got)
			}
		})
	}
}

// A ledger that does not answer holds up the end, as records would, until it does.
func TestRunsAreCountedBeforeTheirEndIsRecorded(t *testing.T) {
	for _, store := range []bool{true, false} {
		for _, method := range []string{"Add", "Release"} {
			p, l := newPlace(t, (*player).bill), newBrittle()
			s := serve(t, p, metered(l, usage.Quota{}, func(c *sandboxhttp.Config) {
				if store {
					c.Store = l
				}
			}))
			box := s.create("")
			l.fail(method, 2)
			if end := s.prompt(box, "go").end(); end["end"] != "completed" {
				t.Errorf("end %v", end)
			}
			counts(t, l.Ledger, 1, 1)
			if got := usedByRuns(t, l.Ledger); got != billed {
				t.Errorf("used %+v", got)
			}
		}
	}
}

// A run that several servers have looked after counts once: the first was shut down in the
// middle of it, and another in the middle of counting it.
func TestUsageOfARunThatIsTakenOver(t *testing.T) {
	for _, method := range []string{"Add", "Release", "SaveRun"} {
		withAndWithoutLogs(t, func(t *testing.T, logs runlog.Store) {
			gate := make(chan struct{})
			p, l := newPlace(t, func(p *player) { billAfter(p, gate) }), newBrittle()
			keep := metered(l, usage.Quota{RunsAtOnce: 1}, durable(l, logs))
			first := serve(t, p, keep)
			box := first.create("")
			f := first.prompt(box, "go")
			f.must()
			run := f.run(box)
			first.shutdown()
			counts(t, l.Ledger, 2, 1) // it goes on

			second := serve(t, p, keep)
			second.exceeds(usage.LimitRunsAtOnce, "wait for one to end", true, "POST", box+"/claude", `{"prompt":"go"}`)
			until(t, "the second looks after it", func() bool {
				return second.request("GET", run, "").StatusCode == 200
			})
			l.fail(method, 1<<30)
			close(gate)
			until(t, "the second cannot record its end", func() bool { return strings.Contains(second.log.String(), "cannot record how a run ended") })
			second.shutdown()
			l.fail(method, 0)

			third := serve(t, p, keep)
			if end := third.follow("GET", run+"/events", "").end(); end["end"] != "completed" {
				t.Errorf("end %v", end)
			}
			counts(t, l.Ledger, 1, 1)
			if got := usedByRuns(t, l.Ledger); got != billed {
				t.Errorf("%s: used %+v, want %+v", method, got, billed)
			}
			if got := used(t, l.Ledger).ClaudeTime; got != time.Millisecond { // as the result says, not until somebody looked
				t.Errorf("%s: it took %v", method, got)
			}
		})
	}
}

// A run goes on, and has a place, although the ledger began anew and the account may have no
// more of them.
func TestRunsOfBeforeHavePlaces(t *testing.T) {
	cli, store := newPaced(), new(sandboxhttp.MemoryStore)
	p := newPlace(t, cli.play)
	first := serve(t, p, metered(nil, usage.Quota{}, durable(store, nil)))
	box := first.create("")
	f := first.prompt(box, "go")
	f.must()
	first.shutdown()
	l := new(usage.Memory)
	s := serve(t, p, metered(l, usage.Quota{RunsAtOnce: -1}, durable(store, nil)))
	until(t, "the run has a place", func() bool { return len(places(t, l)) == 1 })
	close(cli.gate)
	if end := s.follow("GET", f.run(box)+"/events", "").end(); end["end"] != "completed" {
		t.Errorf("end %v", end)
	}
	if got := usedByRuns(t, l); got.Runs != 1 || len(places(t, l)) != 0 {
		t.Errorf("used %+v, places %q", got, places(t, l))
	}
}

// A ledger that cannot be reached keeps nobody from taking the run over later.
func TestTakeoverThatCannotReserve(t *testing.T) {
	cli, l := newPaced(), newBrittle()
	p, keep := newPlace(t, cli.play), metered(l, usage.Quota{}, durable(l, nil))
	first := serve(t, p, keep)
	box := first.create("")
	f := first.prompt(box, "go")
	f.must()
	first.shutdown()
	l.fail("Reserve", 1)
	s := serve(t, p, keep)
	until(t, "the log says so", func() bool { return strings.Contains(s.log.String(), "db-7") })
	close(cli.gate)
	if end := s.follow("GET", f.run(box)+"/events", "").end(); end["end"] != "completed" {
		t.Errorf("end %v", end)
	}
	counts(t, l.Ledger, 1, 1)
}

// A run that ended while no server was there took as long as it did, not until somebody
// looked.
func TestTimeOfARunThatNobodyLookedAfter(t *testing.T) {
	p, l, store := newPlace(t, talk), new(usage.Memory), new(sandboxhttp.MemoryStore)
	keep := metered(l, usage.Quota{}, durable(store, nil))
	first := serve(t, p, keep)
	box := first.create("")
	first.shutdown()
	began := time.Now().Add(-100 * time.Hour)
	rec := &sandboxhttp.Run{
		ID: "run-lost", SandboxID: strings.TrimPrefix(box, "/sandbox/"), Account: "acme", Prompt: "go", State: sandboxhttp.StateRunning, StartedAt: began,
	}
	if err := store.SaveRun(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	for _, b := range p.boxes {
		b.info.EndedAt = began.Add(time.Minute)
		b.info.State, b.info.End = driver.StateEnded, driver.EndIdle
		close(b.ended)
	}
	p.mu.Unlock()
	s := serve(t, p, keep)
	until(t, "it has ended", func() bool { return s.ask(200, "GET", box+"/runs/run-lost", "")["state"] == "ended" })
	if got := used(t, l); got.Runs != 1 || got.ClaudeTime != time.Minute {
		t.Errorf("used %+v", got)
	}
	counts(t, l, 0, 1)
}

// billAfter says something, and goes on when the gate is closed.
func billAfter(p *player, gate <-chan struct{}) {
	p.say("one")
	select {
	case <-gate:
		p.bill()
	case <-p.ctx.Done():
	}
}
