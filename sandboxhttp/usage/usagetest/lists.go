package usagetest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

type positioned interface{ Position() usage.Position }

// paged reads a list to its end, and gives the times, accounts, kinds and ids.
func paged[T positioned](t *testing.T, list func(context.Context, usage.Query) ([]T, error), q usage.Query) []string {
	t.Helper()
	var got []string
	for {
		items, err := list(t.Context(), q)
		is(t, fmt.Sprintf("the list of %+v", q), err, nil)
		if q.Limit > 0 && len(items) > q.Limit || len(got) > 1000 {
			t.Fatalf("%d where %d are the limit, after %d", len(items), q.Limit, len(got))
		}
		for _, item := range items {
			p := item.Position()
			got = append(got, fmt.Sprintf("%s %s %s %s", p.Time.Sub(usage.DayOf(start)), p.Account, p.Kind, p.ID))
			q.After = p
		}
		if q.Limit == 0 || len(items) == 0 {
			return got
		}
	}
}

func wantPages[T positioned](t *testing.T, list func(context.Context, usage.Query) ([]T, error), q usage.Query, want ...string) {
	t.Helper()
	for size := 0; size <= len(want)+1; size++ {
		q.Limit = size
		if got := paged(t, list, q); !slices.Equal(got, want) {
			t.Errorf("%+v in pages of %d:\n%q, want\n%q", q, size, got, want)
		}
	}
}

// record takes a place and adds an entry so many hours after the beginning of start's day.
func record(t *testing.T, l usage.Ledger, hours int, account string, kind usage.Kind, id string) {
	t.Helper()
	when := usage.DayOf(start).Add(time.Duration(hours) * time.Hour)
	reserve(t, l, usage.Reservation{Account: account, Kind: kind, ID: id, Time: when})
	add(t, l, usage.Entry{Account: account, Kind: kind, ID: id, Time: when, Amounts: usage.Amounts{Runs: 1}})
}

// order: by time whatever the order of adding, and among equal times byte by byte.
func order(t *testing.T, l pair) {
	record(t, l.one, 30, "b", "run", "x")
	record(t, l.one, 1, "a", "run", "b")
	record(t, l.other, 1, "a", "run", "B")
	record(t, l.one, 1, "é", "run", "x")
	record(t, l.one, 1, "B", "run", "x")
	record(t, l.other, 0, "z", "run", "z")
	record(t, l.one, 1, "a", "Sandbox", "z")
	record(t, l.one, 25, "z", "run", "later")
	all := usage.Query{AllAccounts: true}
	wantPages(t, l.one.Places, all, "0s z run z", "1h0m0s B run x", "1h0m0s a Sandbox z", "1h0m0s a run B", "1h0m0s a run b",
		"1h0m0s é run x", "25h0m0s z run later", "30h0m0s b run x")
	wantPages(t, l.other.Entries, all, "0s z  z", "1h0m0s B  x", "1h0m0s a  B", "1h0m0s a  b", "1h0m0s a  z",
		"1h0m0s é  x", "25h0m0s z  later", "30h0m0s b  x")
	wantPages(t, l.one.Days, all, "0s B  ", "0s a  ", "0s z  ", "0s é  ", "24h0m0s b  ", "24h0m0s z  ")
}

// queries combines accounts and times.
func queries(t *testing.T, l pair) {
	day := usage.DayOf(start)
	for hours := 0; hours < 96; hours += 12 {
		for _, account := range []string{acme, "globex"} {
			record(t, l.one, hours, account, usage.KindRun, fmt.Sprint("run-", hours))
		}
	}
	own := usage.Query{Account: acme}
	wantPages(t, l.other.Days, own, "0s acme  ", "24h0m0s acme  ", "48h0m0s acme  ", "72h0m0s acme  ")
	own.From, own.To = day.Add(24*time.Hour), day.Add(72*time.Hour)
	wantPages(t, l.other.Days, own, "24h0m0s acme  ", "48h0m0s acme  ")
	wantPages(t, l.other.Entries, own, "24h0m0s acme  run-24", "36h0m0s acme  run-36", "48h0m0s acme  run-48", "60h0m0s acme  run-60")
	wantPages(t, l.other.Places, own, "24h0m0s acme run run-24", "36h0m0s acme run run-36", "48h0m0s acme run run-48", "60h0m0s acme run run-60")
	own.From, own.To = day.Add(24*time.Hour+1), day.Add(48*time.Hour+1)
	wantPages(t, l.one.Days, own, "48h0m0s acme  ") // the day that begins within
	wantPages(t, l.one.Entries, own, "36h0m0s acme  run-36", "48h0m0s acme  run-48")
	wantPages(t, l.one.Entries, usage.Query{AllAccounts: true, To: day.Add(12 * time.Hour)}, "0s acme  run-0", "0s globex  run-0")
	wantPages(t, l.one.Days, usage.Query{AllAccounts: true, From: day.Add(72 * time.Hour)}, "72h0m0s acme  ", "72h0m0s globex  ")
	wantPages(t, l.one.Entries, usage.Query{Account: acme, From: day.Add(time.Hour), To: day.Add(time.Hour)})
	// A position is one whether there is something or not.
	wantPages(t, l.one.Entries, usage.Query{
		Account: "globex", From: day.Add(72 * time.Hour), After: usage.Position{Time: day.Add(73 * time.Hour), Account: "x", ID: "y"},
	}, "84h0m0s globex  run-84")
	wantPages(t, l.one.Entries, usage.Query{
		Account: acme, From: day.Add(72 * time.Hour), After: usage.Position{Time: day.Add(time.Hour), Account: "x", ID: "y"},
	}, "72h0m0s acme  run-72", "84h0m0s acme  run-84")
	for _, wide := range []usage.Query{{}, {Account: "nobody"}, {Account: acme, To: time.Unix(0, 0)}, {Account: acme, From: time.Unix(1<<40, 0)}} {
		wantPages(t, l.one.Places, wide)
		wantPages(t, l.one.Days, wide)
		wantPages(t, l.one.Entries, wide)
	}
	forever := usage.Query{Account: acme, From: time.Unix(-1<<40, 0), To: time.Unix(1<<40, 0)}
	wantPages(t, l.one.Days, forever, "0s acme  ", "24h0m0s acme  ", "48h0m0s acme  ", "72h0m0s acme  ")
}

// growingPages: whoever pages through a ledger while it grows sees everything that was
// there, once and in order.
func growingPages(t *testing.T, l pair) {
	var want []string
	for i := range 20 {
		id := fmt.Sprintf("run-%02d", i)
		record(t, l.one, i, acme, usage.KindRun, id)
		want = append(want, id)
	}
	q, got := usage.Query{Account: acme, Limit: 3}, []string{}
	for page := 0; ; page++ {
		list, err := l.other.Entries(t.Context(), q)
		is(t, "Entries", err, nil)
		if len(list) == 0 || page > 100 {
			break
		}
		for _, e := range list {
			if len(e.ID) == len("run-00") {
				got = append(got, e.ID)
			}
		}
		q.After = list[len(list)-1].Position()
		if page < 10 {
			record(t, l.one, 0, acme, usage.KindRun, fmt.Sprint("before-", page))
			record(t, l.one, 100+page, acme, usage.KindRun, fmt.Sprint("behind-", page))
		}
	}
	same(t, "what was seen", got, want)
}

// accounts: the same ids in two accounts are two things each.
func accounts(t *testing.T, l pair) {
	for i, account := range []string{acme, "globex", "acme\x00"} {
		record(t, l.one, i, account, usage.KindRun, "run")
	}
	is(t, "Release", l.one.Release(t.Context(), "globex", usage.KindRun, "run"), nil)
	wantPages(t, l.other.Places, usage.Query{AllAccounts: true}, "0s acme run run", "2h0m0s acme\x00 run run")
	wantPages(t, l.other.Places, usage.Query{Account: acme}, "0s acme run run")
	wantPages(t, l.other.Entries, usage.Query{Account: acme}, "0s acme  run")
	wantPages(t, l.other.Days, usage.Query{Account: "globex"}, "0s globex  ")
}
