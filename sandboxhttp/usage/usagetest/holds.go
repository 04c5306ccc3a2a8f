package usagetest

import (
	"reflect"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

func dollars(n usage.MicroUSD) usage.Budget { return usage.Budget{Cost: n * usage.Dollar} }

func cost(n usage.MicroUSD) usage.Amounts { return usage.Amounts{Cost: n * usage.Dollar} }

// holdsCount: what goes on counts as used, whichever kind of place holds it, and with
// the place goes what it held.
func holdsCount(t *testing.T, l pair) {
	q := usage.Quota{PerDay: dollars(10)}
	reserve(t, l.one, run("a", q, dollars(6)))
	other := run("b", q, dollars(4))
	other.Kind = "of somebody else"
	reserve(t, l.other, other)
	e := refused(t, l.one, run("c", q, usage.Budget{}), usage.LimitDollarsPerDay)
	same(t, "the error", e, usage.ExceededError{
		Account: acme, Limit: usage.LimitDollarsPerDay, Max: int64(10 * usage.Dollar), Held: int64(10 * usage.Dollar), Need: 1,
	})
	release(t, l.other, usage.KindRun, "a")
	same(t, "what is held", reserve(t, l.one, run("c", q, dollars(6))).Held, dollars(6))
}

// holdsShrink: a place holds what is left where that is less than was asked for.
func holdsShrink(t *testing.T, l pair) {
	q := usage.Quota{PerDay: usage.Budget{Cost: 10 * usage.Dollar, ClaudeTime: time.Hour}}
	asked := usage.Budget{Cost: 7 * usage.Dollar, ClaudeTime: 40 * time.Minute, Tokens: 5000}
	same(t, "the first place", reserve(t, l.one, run("a", q, asked)).Held, asked)
	left := usage.Budget{Cost: 3 * usage.Dollar, ClaudeTime: 20 * time.Minute, Tokens: 5000}
	same(t, "the second place", reserve(t, l.other, run("b", q, asked)).Held, left)
	same(t, "the second place in the list", wantPlaces(t, l.one, acme, "run a", "run b")[1].Held, left)
	refused(t, l.one, run("c", q, asked), usage.LimitClaudeTimePerDay)
}

// holdsAreTakenFrom: an entry takes its amounts from what its place holds, so that
// nothing counts twice, whether it is told of in one entry or in many.
func holdsAreTakenFrom(t *testing.T, l pair) {
	q := usage.Quota{PerDay: dollars(10)}
	left := func(want usage.MicroUSD) {
		t.Helper()
		p := reserve(t, l.other, run("probe", q, dollars(10)))
		same(t, "what is left", p.Held, dollars(want))
		release(t, l.other, usage.KindRun, "probe")
	}
	reserve(t, l.one, run("run", q, dollars(6)))
	left(4)
	for _, id := range []string{"request-1", "request-2", "request-2"} {
		part := entry(id, usage.KindRun, cost(2))
		part.Place = "run"
		add(t, l.one, part)
		left(4)
	}
	same(t, "what is held", wantPlaces(t, l.one, acme, "run run")[0].Held, dollars(2))
	add(t, l.other, entry("run", usage.KindRun, cost(3))) // more than it held
	left(3)
	same(t, "what is held", wantPlaces(t, l.one, acme, "run run")[0].Held, usage.Budget{})
	add(t, l.one, entry("elsewhere", usage.KindRun, cost(1)))
	left(2)
	release(t, l.one, usage.KindRun, "run")
	left(2)
	wantUsed(t, l.one, cost(8))
}

// nothingLeft: what holds nothing begins as long as anything is left, and can pass the
// limit; then nothing begins until the next day.
func nothingLeft(t *testing.T, l pair) {
	q := usage.Quota{PerDay: dollars(10)}
	add(t, l.one, entry("before", usage.KindRun, usage.Amounts{Cost: 10*usage.Dollar - 1}))
	reserve(t, l.other, run("run", q, usage.Budget{}))
	reserve(t, l.other, run("beside it", q, usage.Budget{}))
	add(t, l.one, entry("run", usage.KindRun, cost(2)))
	e := refused(t, l.other, run("next", q, usage.Budget{}), usage.LimitDollarsPerDay)
	if e.Used != int64(12*usage.Dollar-1) || e.RetryAfter != tomorrow {
		t.Errorf("the error is %+v", e)
	}
	reserve(t, l.one, sandbox("sb", q)) // which is not about money
	late := run("next", q, usage.Budget{})
	late.Time = start.Add(tomorrow - 1)
	if e := refused(t, l.one, late, usage.LimitDollarsPerDay); e.RetryAfter != 1 {
		t.Errorf("a nanosecond before the next day: %v", e.RetryAfter)
	}
	late.Time = start.Add(tomorrow)
	reserve(t, l.one, late)
}

// least: what cannot do with less is refused, and told whether waiting helps.
func least(t *testing.T, l pair) {
	q := usage.Quota{PerDay: usage.Budget{BytesOut: 100}}
	restore := func(id string, size int64) usage.Reservation {
		return usage.Reservation{Account: acme, Kind: usage.KindRestore, ID: id, Time: start, Quota: q, Least: usage.Budget{BytesOut: size}}
	}
	if e := refused(t, l.one, restore("large", 101), usage.LimitBytesOutPerDay); e.RetryAfter != 0 || e.Need != 101 {
		t.Errorf("more than a day ever has: %+v", e)
	}
	same(t, "what is held", reserve(t, l.one, restore("a", 70)).Held, usage.Budget{BytesOut: 70})
	if e := refused(t, l.other, restore("b", 31), usage.LimitBytesOutPerDay); e.RetryAfter != 0 || e.Held != 70 {
		t.Errorf("what is held by another: %+v", e)
	}
	reserve(t, l.one, restore("c", 30))
	add(t, l.one, entry("a", usage.KindRestore, usage.Amounts{BytesOut: 70}))
	release(t, l.one, usage.KindRestore, "a", "c")
	if e := refused(t, l.other, restore("b", 31), usage.LimitBytesOutPerDay); e.RetryAfter != tomorrow || e.Used != 70 {
		t.Errorf("what is used: %+v", e)
	}
	reserve(t, l.one, usage.Reservation{Account: acme, Kind: usage.KindSave, ID: "save", Time: start, Quota: q})
}

// everyLimit: each limit of a day refuses the kind that is about it, and others only
// for what they hold.
func everyLimit(t *testing.T, l pair) {
	used := usage.Amounts{
		Sandboxes: 1, ClaudeTime: 1, Cost: 1, CacheReadTokens: 1, BytesIn: 1, BytesOut: 1,
	}
	add(t, l.one, entry("all", usage.KindRun, used))
	kinds := []usage.Kind{usage.KindSandbox, usage.KindRun, usage.KindRun, usage.KindRun, usage.KindSave, usage.KindRestore}
	limits := []usage.Limit{
		usage.LimitSandboxesPerDay, usage.LimitClaudeTimePerDay, usage.LimitDollarsPerDay,
		usage.LimitTokensPerDay, usage.LimitBytesInPerDay, usage.LimitBytesOutPerDay,
	}
	for i, limit := range limits {
		one := usage.Budget{}
		reflect.ValueOf(&one).Elem().Field(i).SetInt(1)
		ask := usage.Reservation{Account: acme, Kind: kinds[i], ID: string(limit), Time: start, Quota: usage.Quota{PerDay: one}}
		refused(t, l.other, ask, limit)
		ask.Kind = "of somebody else"
		reserve(t, l.one, ask)
		ask.ID, ask.Hold = "holding", one
		refused(t, l.one, ask, limit)
	}
}

// nothingAllowed: a negative limit lets nothing through.
func nothingAllowed(t *testing.T, l pair) {
	refused(t, l.one, sandbox("sb", usage.Quota{SandboxesAtOnce: -1}), usage.LimitSandboxesAtOnce)
	refused(t, l.one, run("run", usage.Quota{RunsAtOnce: -5}, usage.Budget{}), usage.LimitRunsAtOnce)
	e := refused(t, l.one, run("run", usage.Quota{PerDay: dollars(-1)}, usage.Budget{}), usage.LimitDollarsPerDay)
	if e.RetryAfter != 0 {
		t.Errorf("waiting %v does not help", e.RetryAfter)
	}
	wantPlaces(t, l.other, acme)
}

// noLimits: the zero quota limits nothing, and places hold what they ask for.
func noLimits(t *testing.T, l pair) {
	for _, id := range []string{"a", "b", "c"} {
		reserve(t, l.one, sandbox(id, usage.Quota{}))
		same(t, "what is held", reserve(t, l.one, run(id, usage.Quota{}, dollars(1_000_000))).Held, dollars(1_000_000))
	}
	wantPlaces(t, l.other, acme, "run a", "run b", "run c", "sandbox a", "sandbox b", "sandbox c")
}
