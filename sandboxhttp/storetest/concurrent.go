package storetest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// concurrent has many save, list and delete at once. Run it under the race detector.
func concurrent(t *testing.T, s sandboxhttp.Store) {
	const writers, rounds = 8, 10
	var writing, reading sync.WaitGroup
	done := make(chan struct{})
	for i := range writers {
		account := []string{"acme", "globex"}[i%2]
		writing.Go(func() { writeOften(t, s, account, fmt.Sprint("sb-", i), rounds) })
	}
	for _, account := range []string{"acme", "globex"} {
		reading.Go(func() { readOften(t, s, account, done) })
	}
	writing.Wait()
	close(done)
	reading.Wait()
	for _, account := range []string{"acme", "globex"} {
		list, err := s.Sandboxes(t.Context(), account, sandboxhttp.Query{})
		if err != nil || len(list) != writers/2 {
			t.Fatalf("%d sandboxes, %v; want %d", len(list), err, writers/2)
		}
		for _, rec := range list {
			if rec.Head != fmt.Sprint(rounds-1) {
				t.Errorf("%s is as it was in round %s, not the last one", rec.ID, rec.Head)
			}
			wantRuns(t, s, account, rec.ID, "run-8", "run-9")
		}
	}
}

// writeOften saves what nobody else does, and reads it at once.
func writeOften(t *testing.T, s sandboxhttp.Store, account, id string, rounds int) {
	ctx := t.Context()
	for round := range rounds {
		rec, r := box(account, id, 0), run(account, id, fmt.Sprint("run-", round), round)
		rec.Head = fmt.Sprint(round)
		err := errors.Join(s.SaveSandbox(ctx, rec), s.SaveRun(ctx, r), s.DeleteRun(ctx, account, id, fmt.Sprint("run-", round-2)))
		if err != nil {
			t.Error(err)
			return
		}
		got, err := s.Sandbox(ctx, account, id)
		if err != nil || got.Head != rec.Head {
			t.Errorf("after a save: %+v, %v; want Head %s", got, err, rec.Head)
			return
		}
	}
}

// readOften wants every list to be in order and of one account.
func readOften(t *testing.T, s sandboxhttp.Store, account string, done <-chan struct{}) {
	for {
		list, err := s.Sandboxes(t.Context(), account, sandboxhttp.Query{State: sandboxhttp.StateRunning})
		if err != nil {
			t.Error(err)
			return
		}
		if got := ids(list); !slices.IsSortedFunc(got, func(a, b string) int { return cmp.Compare(b, a) }) {
			t.Errorf("out of order: %v", got)
			return
		}
		for _, rec := range list {
			if rec.Account != account {
				t.Errorf("a record of %s in the list of %s", rec.Account, account)
				return
			}
			if _, err := s.Runs(t.Context(), account, rec.ID); err != nil {
				t.Error(err)
				return
			}
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// saveAgainstDelete saves runs of a sandbox while it is deleted: each is saved before
// and goes with it, or is refused. None is left over.
func saveAgainstDelete(t *testing.T, s sandboxhttp.Store) {
	ctx := t.Context()
	for round := range 10 {
		save(t, s, box("acme", "sb", 0))
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				err := s.SaveRun(ctx, run("acme", "sb", fmt.Sprintf("run-%d-%d", round, i), 0))
				if err != nil && !errors.Is(err, sandboxhttp.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if err := s.DeleteSandbox(ctx, "acme", "sb"); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		_, err := s.Runs(ctx, "acme", "sb")
		is(t, "Runs", err, sandboxhttp.ErrNotFound)
		save(t, s, box("acme", "sb", 0))
		wantRuns(t, s, "acme", "sb")
		is(t, "DeleteSandbox", s.DeleteSandbox(ctx, "acme", "sb"), nil)
	}
}
