// Package storetest checks that a [sandboxhttp.Store] keeps its promises.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// Exercise runs every test against a store. open gives an empty one, which it closes
// itself, with t.Cleanup.
func Exercise(t *testing.T, open func(t *testing.T) sandboxhttp.Store) {
	tests := map[string]func(*testing.T, sandboxhttp.Store){
		"SandboxFields": sandboxFields, "RunFields": runFields, "Maps": nilAndEmptyMaps,
		"Replace": replace, "Accounts": accounts, "Absent": absent, "OwnRecords": ownRecords,
		"NewestFirst": newestFirst, "RunsOldestFirst": runsOldestFirst, "RunningRuns": runningRuns, "Queries": queries, "PagesOfAChangingList": changingPages,
		"Cascade": cascade, "OddTexts": oddTexts, "OddIDs": oddIDs, "LongTexts": longTexts,
		"EndedContexts": endedContexts, "Concurrent": concurrent, "SaveAgainstDelete": saveAgainstDelete,
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) { tests[name](t, open(t)) })
	}
}

// start is a time with all the digits that a store must keep.
var start = time.Date(2026, 3, 4, 5, 6, 7, 123456000, time.UTC)

func box(account, id string, second int) *sandboxhttp.Sandbox {
	return &sandboxhttp.Sandbox{
		Account: account, ID: id, State: sandboxhttp.StateRunning, Tags: map[string]string{},
		CreatedAt: start.Add(time.Duration(second) * time.Second),
	}
}

func run(account, sandbox, id string, second int) *sandboxhttp.Run {
	return &sandboxhttp.Run{
		Account: account, SandboxID: sandbox, ID: id, State: sandboxhttp.StateRunning,
		StartedAt: start.Add(time.Duration(second) * time.Second),
	}
}

func save(t *testing.T, s sandboxhttp.Store, list ...*sandboxhttp.Sandbox) {
	t.Helper()
	for _, rec := range list {
		if err := s.SaveSandbox(t.Context(), rec); err != nil {
			t.Fatalf("SaveSandbox(%s, %q): %v", rec.Account, rec.ID, err)
		}
	}
}

func saveRuns(t *testing.T, s sandboxhttp.Store, list ...*sandboxhttp.Run) {
	t.Helper()
	for _, rec := range list {
		if err := s.SaveRun(t.Context(), rec); err != nil {
			t.Fatalf("SaveRun(%s, %q, %q): %v", rec.Account, rec.SandboxID, rec.ID, err)
		}
	}
}

// wantSandbox reads a record, which must be want.
func wantSandbox(t *testing.T, s sandboxhttp.Store, want *sandboxhttp.Sandbox) {
	t.Helper()
	got, err := s.Sandbox(t.Context(), want.Account, want.ID)
	if err != nil {
		t.Fatalf("Sandbox(%s, %q): %v", want.Account, want.ID, err)
	}
	same(t, fmt.Sprintf("Sandbox(%s, %q)", want.Account, want.ID), got, want)
}

func wantRun(t *testing.T, s sandboxhttp.Store, want *sandboxhttp.Run) {
	t.Helper()
	got, err := s.Run(t.Context(), want.Account, want.SandboxID, want.ID)
	if err != nil {
		t.Fatalf("Run(%s, %q, %q): %v", want.Account, want.SandboxID, want.ID, err)
	}
	same(t, fmt.Sprintf("Run(%s, %q, %q)", want.Account, want.SandboxID, want.ID), got, want)
}

// same compares records: times by the moment that they are, which must be in UTC.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs from what was saved (-saved +read):\n%s", what, clip(diff))
	}
	if where := notUTC(got); where != "" {
		t.Errorf("%s: %s is not in UTC", what, where)
	}
}

func clip(text string) string {
	const most = 4 << 10
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// wantIDs lists sandboxes, which must be these in this order, and returns them.
func wantIDs(t *testing.T, s sandboxhttp.Store, account string, q sandboxhttp.Query, want ...string) []*sandboxhttp.Sandbox {
	t.Helper()
	list, err := s.Sandboxes(t.Context(), account, q)
	if err != nil {
		t.Fatalf("Sandboxes(%s, %+v): %v", account, q, err)
	}
	if got := ids(list); !slices.Equal(got, want) {
		t.Errorf("Sandboxes(%s, %+v): %s, want %s", account, q, strings.Join(got, " "), strings.Join(want, " "))
	}
	return list
}

func ids(list []*sandboxhttp.Sandbox) []string {
	var ids []string
	for _, rec := range list {
		ids = append(ids, rec.ID)
	}
	return ids
}

func wantRuns(t *testing.T, s sandboxhttp.Store, account, sandbox string, want ...string) {
	t.Helper()
	list, err := s.Runs(t.Context(), account, sandbox)
	if err != nil {
		t.Fatalf("Runs(%s, %q): %v", account, sandbox, err)
	}
	var got []string
	for _, rec := range list {
		got = append(got, rec.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("Runs(%s, %q): %s, want %s", account, sandbox, strings.Join(got, " "), strings.Join(want, " "))
	}
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// calls are all methods, about the records "sb" and "run" of an account.
func calls(account string) map[string]func(context.Context, sandboxhttp.Store) error {
	return map[string]func(context.Context, sandboxhttp.Store) error{
		"SaveSandbox": func(ctx context.Context, s sandboxhttp.Store) error { return s.SaveSandbox(ctx, box(account, "sb", 0)) },
		"Sandbox": func(ctx context.Context, s sandboxhttp.Store) error {
			_, err := s.Sandbox(ctx, account, "sb")
			return err
		},
		"Sandboxes": func(ctx context.Context, s sandboxhttp.Store) error {
			_, err := s.Sandboxes(ctx, account, sandboxhttp.Query{})
			return err
		},
		"DeleteSandbox": func(ctx context.Context, s sandboxhttp.Store) error { return s.DeleteSandbox(ctx, account, "sb") },
		"SaveRun": func(ctx context.Context, s sandboxhttp.Store) error {
			return s.SaveRun(ctx, run(account, "sb", "run", 0))
		},
		"Run": func(ctx context.Context, s sandboxhttp.Store) error {
			_, err := s.Run(ctx, account, "sb", "run")
			return err
		},
		"Runs": func(ctx context.Context, s sandboxhttp.Store) error {
			_, err := s.Runs(ctx, account, "sb")
			return err
		},
		"DeleteRun": func(ctx context.Context, s sandboxhttp.Store) error { return s.DeleteRun(ctx, account, "sb", "run") },
		"RunningRuns": func(ctx context.Context, s sandboxhttp.Store) error {
			_, err := s.RunningRuns(ctx)
			return err
		},
	}
}
