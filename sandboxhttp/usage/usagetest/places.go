package usagetest

import (
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// samePlace: asking again, after a lost answer or from another server, takes no second
// place and gives the first one as it is, also where there is room no more.
func samePlace(t *testing.T, l pair) {
	q := usage.Quota{RunsAtOnce: 1, PerDay: usage.Budget{Cost: 4 * usage.Dollar}}
	first := reserve(t, l.one, run("run", q, usage.Budget{Cost: 3 * usage.Dollar}))
	same(t, "the place", first, usage.Place{
		Account: acme, Kind: usage.KindRun, ID: "run", SandboxID: "sb", Time: start, Held: usage.Budget{Cost: 3 * usage.Dollar},
	})
	again := run("run", q, usage.Budget{Cost: usage.Dollar})
	again.Time, again.SandboxID = start.Add(time.Hour), "another"
	same(t, "the place, asked for again", reserve(t, l.other, again), first)
	same(t, "the list", wantPlaces(t, l.other, acme, "run run"), []usage.Place{first})
	refused(t, l.one, run("next", q, usage.Budget{}), usage.LimitRunsAtOnce)
	release(t, l.one, usage.KindRun, "run")
	reserve(t, l.one, run("next", q, usage.Budget{}))
	refused(t, l.other, run("run", q, usage.Budget{}), usage.LimitRunsAtOnce)
}

// atOnce: a limit is for each account and kind, and what it says is what is taken.
func atOnce(t *testing.T, l pair) {
	q := usage.Quota{SandboxesAtOnce: 2, RunsAtOnce: 1}
	reserve(t, l.one, sandbox("a", q))
	reserve(t, l.other, sandbox("b", q))
	e := refused(t, l.one, sandbox("c", q), usage.LimitSandboxesAtOnce)
	same(t, "the error", e, usage.ExceededError{Account: acme, Limit: usage.LimitSandboxesAtOnce, Max: 2, Used: 2, Need: 1})
	reserve(t, l.one, run("a", q, usage.Budget{}))
	refused(t, l.other, run("b", q, usage.Budget{}), usage.LimitRunsAtOnce)
	stranger := sandbox("c", q)
	stranger.Account = "globex"
	reserve(t, l.one, stranger)
	wantPlaces(t, l.one, acme, "run a", "sandbox a", "sandbox b")
	reserve(t, l.one, sandbox("c", usage.Quota{SandboxesAtOnce: 3})) // a quota can change
	refused(t, l.one, sandbox("d", q), usage.LimitSandboxesAtOnce)
}

// releaseOnce: a place that was released is not released for the one who took it next.
func releaseOnce(t *testing.T, l pair) {
	q := usage.Quota{SandboxesAtOnce: 1}
	reserve(t, l.one, sandbox("a", q))
	release(t, l.other, usage.KindSandbox, "a")
	reserve(t, l.one, sandbox("b", q))
	release(t, l.one, usage.KindSandbox, "a", "a", "never was")
	release(t, l.other, usage.KindRun, "b") // of another kind
	is(t, "Release of another account's", l.other.Release(t.Context(), "globex", usage.KindSandbox, "b"), nil)
	wantPlaces(t, l.one, acme, "sandbox b")
	refused(t, l.other, sandbox("c", q), usage.LimitSandboxesAtOnce)
}

// placesOfKinds: one id can be that of a sandbox, a run and of something else.
func placesOfKinds(t *testing.T, l pair) {
	q := usage.Quota{SandboxesAtOnce: 1, RunsAtOnce: 1}
	reserve(t, l.one, sandbox("id", q))
	reserve(t, l.one, run("id", q, usage.Budget{}))
	for _, kind := range []usage.Kind{usage.KindSave, usage.KindRestore, "of somebody else"} {
		reserve(t, l.other, usage.Reservation{Account: acme, Kind: kind, ID: "id", Time: start, Quota: q})
	}
	wantPlaces(t, l.one, acme, "of somebody else id", "restore id", "run id", "sandbox id", "save id")
	release(t, l.one, usage.KindRun, "id")
	wantPlaces(t, l.other, acme, "of somebody else id", "restore id", "sandbox id", "save id")
}

// sandboxesPerDay: one that is being made counts; one that could not be made does not
// any more when its place is released; one that was made counts all day, once.
func sandboxesPerDay(t *testing.T, l pair) {
	q := usage.Quota{PerDay: usage.Budget{Sandboxes: 2}}
	made := usage.Amounts{Sandboxes: 1}
	same(t, "what a sandbox's place holds", reserve(t, l.one, sandbox("a", q)).Held, usage.Budget{Sandboxes: 1})
	reserve(t, l.one, sandbox("failed", q))
	if e := refused(t, l.other, sandbox("b", q), usage.LimitSandboxesPerDay); e.Held != 2 || e.Used != 0 || e.RetryAfter != 0 {
		t.Errorf("while two are being made: %+v", e)
	}
	release(t, l.one, usage.KindSandbox, "failed")
	add(t, l.other, entry("a", usage.KindSandbox, made))
	reserve(t, l.one, sandbox("b", q))
	add(t, l.one, entry("b", usage.KindSandbox, made), entry("b", usage.KindSandbox, made))
	release(t, l.other, usage.KindSandbox, "a", "b")
	e := refused(t, l.one, sandbox("c", q), usage.LimitSandboxesPerDay)
	same(t, "the error", e, usage.ExceededError{
		Account: acme, Limit: usage.LimitSandboxesPerDay, Max: 2, Used: 2, Need: 1, RetryAfter: tomorrow,
	})
	wantUsed(t, l.one, usage.Amounts{Sandboxes: 2})
	next := sandbox("c", q)
	next.Time = start.Add(tomorrow)
	reserve(t, l.one, next)
}
