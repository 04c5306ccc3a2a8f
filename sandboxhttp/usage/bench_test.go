package usage_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// BenchmarkReserve takes places for accounts that have limits and ten places each, beside
// the least that a store in memory does: to lock, and to put a value in a map.
func BenchmarkReserve(b *testing.B) {
	var l usage.Memory
	ask := reservations(b, &l, 100)
	var mu sync.Mutex
	floor := map[string]usage.Reservation{}
	var times figure.Pair
	for b.Loop() {
		times.Measure(func() {
			for _, r := range ask {
				if _, err := l.Reserve(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		}, func() {
			for _, r := range ask {
				mu.Lock()
				floor[r.Account] = r
				mu.Unlock()
			}
		})
		for _, r := range ask {
			if err := l.Release(b.Context(), r.Account, r.Kind, r.ID); err != nil {
				b.Fatal(err)
			}
		}
		clear(floor)
	}
	ours, peer := figure.Quantile(times.Ours, 0.5), figure.Quantile(times.Peer, 0.5)
	figure.Line(os.Stdout, "reserve_memory_p50", float64(ours.Nanoseconds())/float64(len(ask)), "ns", float64(ours)/float64(peer), "mutex-and-map")
}

// reservations takes ten places for each account, and gives what asks for another.
func reservations(b *testing.B, l usage.Ledger, accounts int) []usage.Reservation {
	q := usage.Quota{SandboxesAtOnce: 1 << 40, PerDay: usage.Budget{Sandboxes: 1 << 40, Cost: 1 << 40}}
	ask := make([]usage.Reservation, accounts)
	for i := range ask {
		ask[i] = usage.Reservation{Account: fmt.Sprint("account-", i), Kind: usage.KindSandbox, Quota: q}
		for n := range 10 {
			ask[i].ID = fmt.Sprint("sb-", n)
			if _, err := l.Reserve(b.Context(), ask[i]); err != nil {
				b.Fatal(err)
			}
		}
		ask[i].ID = "sb-new"
	}
	return ask
}

// BenchmarkRate asks for 1,000 accounts in turn, beside a lock and a look into a map.
func BenchmarkRate(b *testing.B) {
	const accounts = 1000
	var r usage.Rate
	q := usage.Quota{RequestsPerSecond: 1e6, Burst: 1 << 30}
	var mu sync.Mutex
	names, floor, n := make([]string, accounts), map[string]int{}, 0
	for i := range names {
		names[i] = fmt.Sprint("account-", i)
		floor[names[i]] = i
	}
	var times figure.Pair
	for b.Loop() {
		times.Measure(func() {
			for _, name := range names {
				if err := r.Allow(name, q); err != nil {
					b.Fatal(err)
				}
			}
		}, func() {
			for _, name := range names {
				mu.Lock()
				n += floor[name]
				mu.Unlock()
			}
		})
	}
	ours, peer := figure.Quantile(times.Ours, 0.5), figure.Quantile(times.Peer, 0.5)
	figure.Line(os.Stdout, "rate_allow_p50", float64(ours.Nanoseconds())/accounts, "ns", float64(ours)/float64(peer), "mutex-and-map")
}
