package usage_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// allowed sends requests until one is refused, and gives how many were not and how long
// to wait.
func allowed(t *testing.T, r *usage.Rate, account string, q usage.Quota) (int, time.Duration) {
	t.Helper()
	for n := 0; ; n++ {
		err := r.Allow(account, q)
		if err == nil && n < 1_000_000 {
			continue
		}
		var exceeded *usage.ExceededError
		if !errors.As(err, &exceeded) || exceeded.Limit != usage.LimitRequestsPerSecond || exceeded.Account != account {
			t.Fatalf("after %d: %v", n, err)
		}
		return n, exceeded.RetryAfter
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r usage.Rate
		q := usage.Quota{RequestsPerSecond: 4, Burst: 10}
		n, wait := allowed(t, &r, "acme", q)
		if n != 10 || wait != 250*time.Millisecond {
			t.Errorf("%d at once, then %v", n, wait)
		}
		if n, _ := allowed(t, &r, "globex", q); n != 10 {
			t.Errorf("%d of another account", n)
		}
		time.Sleep(wait - time.Millisecond)
		if n, wait := allowed(t, &r, "acme", q); n != 0 || wait.Round(time.Microsecond) != time.Millisecond {
			t.Errorf("too early: %d, then %v", n, wait)
		}
		time.Sleep(time.Millisecond) // who waits as long as was said gets through
		if n, _ := allowed(t, &r, "acme", q); n != 1 {
			t.Errorf("after waiting: %d", n)
		}
		time.Sleep(2 * time.Second)
		if n, _ := allowed(t, &r, "acme", q); n != 8 {
			t.Errorf("after two seconds: %d", n)
		}
	})
}

func TestRateOfQuotas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for want, q := range map[int]usage.Quota{
			0: {RequestsPerSecond: -1}, 1: {RequestsPerSecond: 0.1}, 3: {RequestsPerSecond: 2.5}, 7: {RequestsPerSecond: 100, Burst: 7},
		} {
			if n, _ := allowed(t, new(usage.Rate), "acme", q); n != want {
				t.Errorf("%+v: %d at once, want %d", q, n, want)
			}
		}
		var r usage.Rate
		if _, wait := allowed(t, &r, "acme", usage.Quota{RequestsPerSecond: 1e-9}); wait != 24*time.Hour {
			t.Errorf("one in thirty years: %v", wait)
		}
		// A quota that changes holds at once.
		if n, wait := allowed(t, &r, "acme", usage.Quota{RequestsPerSecond: 10, Burst: 5}); n != 0 || wait > 100*time.Millisecond {
			t.Errorf("after a change: %d, then %v", n, wait)
		}
		for range 10_000 {
			if err := errors.Join(r.Allow("acme", usage.Quota{}), r.Allow("globex", usage.Quota{RequestsPerSecond: 1e300, Burst: 1})); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What is remembered has a bound: idle accounts go first, and no account that asks is
// forgotten for others that do as long as there is room.
func TestRateForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := usage.Rate{Accounts: 100}
		q := usage.Quota{RequestsPerSecond: 1, Burst: 2}
		for i := range 99 {
			allowed(t, &r, fmt.Sprint("account-", i), q)
		}
		allowed(t, &r, "acme", q)
		if n, _ := allowed(t, &r, "account-0", q); n != 0 {
			t.Errorf("one of a hundred was forgotten: %d", n)
		}
		allowed(t, &r, "one more", q)
		if n, _ := allowed(t, &r, "account-0", q); n != 0 {
			t.Errorf("one that just asked was forgotten: %d", n)
		}
		if n := r.Remembered(); n != 100 {
			t.Errorf("%d are remembered", n)
		}
		if n, _ := allowed(t, &r, "account-1", q); n != 2 { // who asked least recently
			t.Errorf("none was forgotten: %d", n)
		}
		time.Sleep(time.Minute)
		for range 60 {
			if err := r.Allow("acme", q); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		if n := r.Remembered(); n > 1 {
			t.Errorf("%d are remembered although one asks", n)
		}
	})
}

func TestRateAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := usage.Rate{Accounts: 3}
		var passed atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 100 {
					if r.Allow("acme", usage.Quota{RequestsPerSecond: 1, Burst: 50}) == nil {
						passed.Add(1)
					}
					_ = r.Allow("globex", usage.Quota{RequestsPerSecond: 1000})
				}
			})
		}
		wg.Wait()
		if n := passed.Load(); n != 50 {
			t.Errorf("%d got through, want 50", n)
		}
	})
}
