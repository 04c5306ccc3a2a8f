// Package usagetest checks that a [usage.Ledger] keeps its promises.
package usagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// Exercise runs every test against a ledger. open gives an empty one as two servers have
// it, which may be the same value where only one process can; it closes them itself, with
// t.Cleanup.
func Exercise(t *testing.T, open func(t *testing.T) (one, other usage.Ledger)) {
	tests := map[string]func(*testing.T, pair){
		"SamePlace": samePlace, "AtOnce": atOnce, "ReleaseOnce": releaseOnce, "PlacesOfKinds": placesOfKinds,
		"SandboxesPerDay": sandboxesPerDay, "HoldsCount": holdsCount, "HoldsShrink": holdsShrink, "HoldsAreTakenFrom": holdsAreTakenFrom,
		"NothingLeft": nothingLeft, "Least": least, "EveryLimit": everyLimit, "NothingAllowed": nothingAllowed, "NoLimits": noLimits,
		"Fields": fields, "AddOnce": addOnce, "DayOfTime": dayOfTime, "Now": now,
		"Order": order, "Queries": queries, "PagesOfAGrowingLedger": growingPages,
		"Accounts": accounts, "OddTexts": oddTexts, "Invalid": invalid, "EndedContexts": endedContexts,
		"LastPlace": lastPlace, "BudgetAtOnce": budgetAtOnce, "AddAtOnce": addAtOnce,
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			one, other := open(t)
			tests[name](t, pair{one, other})
		})
	}
}

// pair is a ledger as two servers have it. What the first does, the other must see.
type pair struct{ one, other usage.Ledger }

// start is a time with all the digits that a ledger must keep.
var start = time.Date(2026, 3, 4, 5, 6, 7, 123456000, time.UTC)

// tomorrow is how long it takes from start to the next day of UTC.
var tomorrow = time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC).Sub(start)

const acme = "acme"

func sandbox(id string, q usage.Quota) usage.Reservation {
	return usage.Reservation{Account: acme, Kind: usage.KindSandbox, ID: id, Time: start, Quota: q}
}

func run(id string, q usage.Quota, hold usage.Budget) usage.Reservation {
	return usage.Reservation{Account: acme, Kind: usage.KindRun, ID: id, SandboxID: "sb", Time: start, Quota: q, Hold: hold}
}

func entry(id string, kind usage.Kind, used usage.Amounts) usage.Entry {
	return usage.Entry{Account: acme, ID: id, Kind: kind, Time: start, Amounts: used}
}

func reserve(t *testing.T, l usage.Ledger, r usage.Reservation) usage.Place {
	t.Helper()
	p, err := l.Reserve(t.Context(), r)
	if err != nil {
		t.Fatalf("Reserve(%s %s %q): %v", r.Account, r.Kind, r.ID, err)
	}
	return p
}

// refused wants no place because of a limit.
func refused(t *testing.T, l usage.Ledger, r usage.Reservation, want usage.Limit) usage.ExceededError {
	t.Helper()
	_, err := l.Reserve(t.Context(), r)
	var exceeded *usage.ExceededError
	if !errors.As(err, &exceeded) || exceeded.Limit != want || exceeded.Account != r.Account {
		t.Fatalf("Reserve(%s %s %q): error %v, want %s to be exceeded", r.Account, r.Kind, r.ID, err, want)
	}
	return *exceeded
}

func release(t *testing.T, l usage.Ledger, kind usage.Kind, ids ...string) {
	t.Helper()
	for _, id := range ids {
		is(t, fmt.Sprintf("Release(%s %q)", kind, id), l.Release(t.Context(), acme, kind, id), nil)
	}
}

func add(t *testing.T, l usage.Ledger, entries ...usage.Entry) {
	t.Helper()
	for _, e := range entries {
		is(t, fmt.Sprintf("Add(%s %q)", e.Account, e.ID), l.Add(t.Context(), e), nil)
	}
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: error %v, want %v", what, err, want)
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}

// wantPlaces wants an account's places to be these, by kind and id.
func wantPlaces(t *testing.T, l usage.Ledger, account string, want ...string) []usage.Place {
	t.Helper()
	list, err := l.Places(t.Context(), usage.Query{Account: account})
	is(t, "Places", err, nil)
	var got []string
	for _, p := range list {
		got = append(got, fmt.Sprint(p.Kind, " ", p.ID))
	}
	if !slices.Equal(got, want) {
		t.Errorf("places %q, want %q", got, want)
	}
	return list
}

// wantUsed wants what acme used on the day of start.
func wantUsed(t *testing.T, l usage.Ledger, want usage.Amounts) {
	t.Helper()
	list, err := l.Days(t.Context(), usage.Query{Account: acme, From: usage.DayOf(start), To: start})
	is(t, "Days", err, nil)
	same(t, "Days", list, []usage.Day{{Date: usage.DayOf(start), Account: acme, Amounts: want}})
}

// calls are all methods, about the records "id" of an account.
func calls(account string) map[string]func(context.Context, usage.Ledger) error {
	q := usage.Query{Account: account}
	return map[string]func(context.Context, usage.Ledger) error{
		"Reserve": func(ctx context.Context, l usage.Ledger) error {
			_, err := l.Reserve(ctx, usage.Reservation{Account: account, Kind: usage.KindRun, ID: "id", Time: start})
			return err
		},
		"Release": func(ctx context.Context, l usage.Ledger) error {
			return l.Release(ctx, account, usage.KindRun, "id")
		},
		"Places": func(ctx context.Context, l usage.Ledger) error {
			_, err := l.Places(ctx, q)
			return err
		},
		"Add": func(ctx context.Context, l usage.Ledger) error {
			return l.Add(ctx, usage.Entry{Account: account, Kind: usage.KindRun, ID: "id", Time: start})
		},
		"Days": func(ctx context.Context, l usage.Ledger) error {
			_, err := l.Days(ctx, q)
			return err
		},
		"Entries": func(ctx context.Context, l usage.Ledger) error {
			_, err := l.Entries(ctx, q)
			return err
		},
	}
}
