package usagetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// races is how often the last place is raced for.
const races = 1000

// lastPlace: two servers want an account's last place at the same moment, and one gets
// it, every time.
func lastPlace(t *testing.T, l pair) {
	var won [2]int
	for round := range races {
		winner := race(t, l, fmt.Sprintf("account-%03d", round))
		if winner < 0 {
			t.Fatalf("in race %d", round)
		}
		won[winner]++
	}
	places, err := l.other.Places(t.Context(), usage.Query{AllAccounts: true})
	is(t, "Places", err, nil)
	same(t, "how many places there are", len(places), races)
	t.Logf("won: %v", won)
}

// race gives which of the two got the only place of an account; -1 if not one did.
func race(t *testing.T, l pair, account string) int {
	var wg sync.WaitGroup
	var errs [2]error
	begin := make(chan struct{})
	for i, ledger := range []usage.Ledger{l.one, l.other} {
		r := sandbox(fmt.Sprint("racer-", i), usage.Quota{SandboxesAtOnce: 1})
		r.Account = account
		wg.Go(func() {
			<-begin
			_, errs[i] = ledger.Reserve(t.Context(), r)
		})
	}
	close(begin)
	wg.Wait()
	winner := 0
	if errs[0] != nil {
		winner = 1
	}
	var exceeded *usage.ExceededError
	if errs[winner] != nil || !errors.As(errs[1-winner], &exceeded) {
		t.Errorf("%v and %v; want one place and one refusal", errs[0], errs[1])
		return -1
	}
	return winner
}

// budgetAtOnce: however many runs begin and end at a time, those that keep to what they
// hold never use more than the day has, and use all of it.
func budgetAtOnce(t *testing.T, l pair) {
	const workers, budget, hold = 8, 100, 7
	q := usage.Quota{PerDay: usage.Budget{Tokens: budget}}
	var used atomic.Int64
	var wg sync.WaitGroup
	for i := range workers {
		ledger := []usage.Ledger{l.one, l.other}[i%2]
		wg.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("run-%d-%d", i, n)
				p, err := ledger.Reserve(t.Context(), run(id, q, usage.Budget{Tokens: hold}))
				var exceeded *usage.ExceededError
				if errors.As(err, &exceeded) && exceeded.Used < budget {
					continue // the others hold what is left
				}
				if err != nil {
					if exceeded == nil {
						t.Error(err)
					}
					return
				}
				took := min(p.Held.Tokens, 4)
				used.Add(took)
				err = errors.Join(ledger.Add(t.Context(), entry(id, usage.KindRun, usage.Amounts{OutputTokens: took})),
					ledger.Release(t.Context(), acme, usage.KindRun, id))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := used.Load(); n != budget {
		t.Errorf("%d tokens were used of a budget of %d", n, budget)
	}
	wantUsed(t, l.one, usage.Amounts{OutputTokens: budget})
	wantPlaces(t, l.other, acme)
}

// addAtOnce: the same entries from everybody at once are added once each.
func addAtOnce(t *testing.T, l pair) {
	const workers, entries = 6, 20
	var wg sync.WaitGroup
	for i := range workers {
		ledger := []usage.Ledger{l.one, l.other}[i%2]
		wg.Go(func() {
			for n := range entries {
				e := entry(fmt.Sprint("run-", n), usage.KindRun, usage.Amounts{Runs: 1, Cost: usage.MicroUSD(n)})
				e.Place = "run"
				if err := ledger.Add(t.Context(), e); err != nil {
					t.Error(err)
				}
				if _, err := ledger.Reserve(t.Context(), run(fmt.Sprint("beside-", n), usage.Quota{}, usage.Budget{Tokens: 1})); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantUsed(t, l.one, usage.Amounts{Runs: entries, Cost: entries * (entries - 1) / 2})
	list, err := l.other.Places(t.Context(), usage.Query{Account: acme})
	is(t, "Places", err, nil)
	same(t, "how many places", len(list), entries)
}
