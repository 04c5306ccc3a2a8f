package usagetest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// fill gives every number of a struct another value.
func fill[T any](from int64) T {
	var v T
	value := reflect.ValueOf(&v).Elem()
	for i := range value.NumField() {
		value.Field(i).SetInt(from + int64(i))
	}
	return v
}

// fields: everything comes back as it was given, and is added up field by field.
func fields(t *testing.T, l pair) {
	const large = 1<<53 - 100
	e := usage.Entry{
		Account: acme, ID: "entry", Time: start, Kind: usage.KindSave, Place: "place", SandboxID: "sb", RunID: "run",
		Amounts: fill[usage.Amounts](large),
	}
	elsewhere := e
	elsewhere.ID, elsewhere.Amounts = "other", fill[usage.Amounts](1)
	elsewhere.Time = start.Add(time.Hour).In(time.FixedZone("", 14*3600)) // another day there
	add(t, l.one, e, elsewhere)
	elsewhere.Time = elsewhere.Time.UTC()
	list, err := l.other.Entries(t.Context(), usage.Query{Account: acme})
	is(t, "Entries", err, nil)
	same(t, "Entries", list, []usage.Entry{e, elsewhere})
	wantUsed(t, l.other, e.Amounts.Add(elsewhere.Amounts))

	ask := run("run", usage.Quota{}, fill[usage.Budget](large))
	ask.Time = ask.Time.In(time.FixedZone("", -5*3600))
	want := usage.Place{Account: acme, Kind: usage.KindRun, ID: "run", SandboxID: "sb", Time: start, Held: ask.Hold}
	got := reserve(t, l.one, ask)
	places := wantPlaces(t, l.other, acme, "run run")
	same(t, "Reserve", got, want)
	same(t, "Places", places, []usage.Place{want})
	days, err := l.one.Days(t.Context(), usage.Query{Account: acme})
	is(t, "Days", err, nil)
	for _, when := range []time.Time{list[0].Time, list[1].Time, got.Time, places[0].Time, days[0].Date} {
		if when.Location() != time.UTC {
			t.Errorf("%v is not in UTC", when)
		}
	}
}

// addOnce: what is told twice was used once: by the run's server, say, and by the one
// that took the run over. What was told first stays.
func addOnce(t *testing.T, l pair) {
	e := entry("run", usage.KindRun, usage.Amounts{Runs: 1, Cost: usage.Dollar})
	add(t, l.one, e)
	add(t, l.other, e)
	later := e
	later.Time, later.Amounts, later.RunID = start.AddDate(0, 0, 1), cost(5), "another"
	add(t, l.other, later)
	stranger := e
	stranger.Account = "globex"
	add(t, l.one, stranger, stranger)
	list, err := l.one.Entries(t.Context(), usage.Query{AllAccounts: true})
	is(t, "Entries", err, nil)
	e.Place, stranger.Place = "run", "run"
	same(t, "Entries", list, []usage.Entry{e, stranger})
	days, err := l.other.Days(t.Context(), usage.Query{AllAccounts: true})
	is(t, "Days", err, nil)
	same(t, "Days", days, []usage.Day{
		{Date: usage.DayOf(start), Account: acme, Amounts: e.Amounts}, {Date: usage.DayOf(start), Account: "globex", Amounts: e.Amounts},
	})
}

// dayOfTime: days begin and end at midnight in UTC, and what is late is added to the
// day that it says.
func dayOfTime(t *testing.T, l pair) {
	midnight := usage.DayOf(start)
	for i, when := range []time.Time{midnight.Add(-1000), midnight, midnight.Add(24*time.Hour - 1000), midnight.Add(24 * time.Hour), midnight.Add(-1000)} {
		e := entry(fmt.Sprint("e", i), usage.KindRun, cost(1))
		e.Time = when
		add(t, l.one, e)
	}
	days, err := l.other.Days(t.Context(), usage.Query{Account: acme})
	is(t, "Days", err, nil)
	same(t, "Days", days, []usage.Day{
		{Date: midnight.AddDate(0, 0, -1), Account: acme, Amounts: cost(2)},
		{Date: midnight, Account: acme, Amounts: cost(2)},
		{Date: midnight.AddDate(0, 0, 1), Account: acme, Amounts: cost(1)},
	})
}

// now: what says no time is of now.
func now(t *testing.T, l pair) {
	before := time.Now().Add(-time.Millisecond)
	p := reserve(t, l.one, usage.Reservation{Account: acme, Kind: usage.KindRun, ID: "run"})
	add(t, l.one, usage.Entry{Account: acme, Kind: usage.KindRun, ID: "run"})
	list, err := l.other.Entries(t.Context(), usage.Query{Account: acme, From: before})
	is(t, "Entries", err, nil)
	if after := time.Now(); len(list) != 1 || list[0].Time.After(after) || p.Time.Before(before) || p.Time.After(after) {
		t.Errorf("entries %v and place %v are not of %v to %v", list, p, before, after)
	}
}

var odd = []string{
	"\x00", "a\x00b", "line\r\nline\u2028line", "'; DROP TABLE usage; --", `"\"\\u0000\\`, "%s ? $1 :name @p",
	"\ufeff\ufffd\U0010FFFF", "e\u0301 \u00e9", "\x01\x1f\x7f", "=1+1", "   ", "null", "\xff\xfe", "ACME", "acme ", strings.Repeat("x", 4<<10),
}

// oddTexts: accounts come from whoever logs people in. They and ids are told apart byte
// by byte, and come back as they were.
func oddTexts(t *testing.T, l pair) {
	for _, text := range odd {
		r := usage.Reservation{Account: text, Kind: usage.Kind(text), ID: text, SandboxID: text, Time: start, Hold: dollars(3)}
		e := usage.Entry{Account: text, Kind: usage.Kind(text), ID: text, Place: text, SandboxID: text, RunID: text, Time: start, Amounts: cost(1)}
		reserve(t, l.one, r)
		add(t, l.one, e, e)
		q := usage.Query{Account: text}
		places, err := l.other.Places(t.Context(), q)
		is(t, "Places", err, nil)
		want := usage.Place{Account: text, Kind: r.Kind, ID: text, SandboxID: text, Time: start, Held: dollars(2)}
		same(t, "Places", places, []usage.Place{want})
		entries, err := l.other.Entries(t.Context(), q)
		is(t, "Entries", err, nil)
		same(t, "Entries", entries, []usage.Entry{e})
		is(t, "Release", l.one.Release(t.Context(), text, r.Kind, text), nil)
	}
	days, err := l.one.Days(t.Context(), usage.Query{AllAccounts: true})
	is(t, "Days", err, nil)
	var got []string
	for _, d := range days {
		got = append(got, d.Account)
	}
	same(t, "the accounts", got, slices.Sorted(slices.Values(odd)))
	wantPlaces(t, l.one, acme)
}

// invalid: what cannot be kept is refused, and changes nothing.
func invalid(t *testing.T, l pair) {
	good := entry("e", usage.KindRun, cost(1))
	for what, spoil := range map[string]func(*usage.Entry){
		"no account": func(e *usage.Entry) { e.Account = "" }, "no id": func(e *usage.Entry) { e.ID = "" }, "no kind": func(e *usage.Entry) { e.Kind = "" },
		"a negative amount": func(e *usage.Entry) { e.Amounts.BytesOut = -1 }, "too large an amount": func(e *usage.Entry) { e.Amounts.InputTokens = 1<<53 + 1 },
		"1969": func(e *usage.Entry) { e.Time = time.Unix(-1, 0) }, "3000": func(e *usage.Entry) { e.Time = start.AddDate(974, 0, 0) },
	} {
		e := good
		spoil(&e)
		is(t, "Add with "+what, l.one.Add(t.Context(), e), usage.ErrInvalid)
		r := usage.Reservation{Account: e.Account, Kind: e.Kind, ID: e.ID, Time: e.Time, Hold: usage.Budget{
			Cost: e.Amounts.Cost, Tokens: e.Amounts.InputTokens, BytesOut: e.Amounts.BytesOut,
		}}
		_, err := l.one.Reserve(t.Context(), r)
		is(t, "Reserve with "+what, err, usage.ErrInvalid)
	}
	wantPlaces(t, l.other, acme)
	list, err := l.other.Entries(t.Context(), usage.Query{AllAccounts: true})
	is(t, "Entries", err, nil)
	same(t, "Entries", len(list), 0)
}

// endedContexts: no method works on for somebody who is gone, or forgets to say why.
func endedContexts(t *testing.T, l pair) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	late, stop := context.WithDeadline(t.Context(), start.AddDate(-10, 0, 0))
	defer stop()
	for name, call := range calls(acme) {
		is(t, name, call(ctx, l.one), context.Canceled)
		is(t, name, call(late, l.one), context.DeadlineExceeded)
	}
	wantPlaces(t, l.other, acme)
	for _, name := range []string{"Reserve", "Add"} {
		is(t, name, calls(acme)[name](t.Context(), l.one), nil)
	}
	for name, call := range calls(acme) {
		is(t, name, call(ctx, l.one), context.Canceled)
	}
	wantPlaces(t, l.other, acme, "run id")
	wantUsed(t, l.one, usage.Amounts{})
}
