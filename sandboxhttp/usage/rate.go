package usage

import (
	"container/list"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate limits requests per second of accounts, in the memory of one server: several
// servers together let as many times more through. The zero value is ready for use. It is
// safe for concurrent use, and has nothing to close.
type Rate struct {
	// Accounts is how many are remembered at most; zero is 10,000. Those that have
	// asked for nothing long enough that it makes no difference are forgotten anyway.
	// Beyond that the one that has not asked for the longest time is forgotten, and may
	// send its burst again. It is set before the first use.
	Accounts int

	mu       sync.Mutex
	byName   map[string]*list.Element
	accounts list.List // of *limited; those that asked last are in front
}

type limited struct {
	account string
	limiter *rate.Limiter
}

// Allow counts a request of an account, or refuses it with an [*ExceededError] that says
// how long to wait. One that is refused does not count. A quota that differs from that of
// the request before holds from now on.
func (r *Rate) Allow(account string, q Quota) error {
	now, perSecond := time.Now(), q.RequestsPerSecond
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetIdle(now)
	if perSecond == 0 || math.IsNaN(perSecond) || math.IsInf(perSecond, 1) {
		return nil
	}
	exceeded := &ExceededError{Account: account, Limit: LimitRequestsPerSecond, Max: int64(min(max(perSecond, 0), most))}
	if perSecond < 0 {
		return exceeded
	}
	limiter := r.limiter(account, now, rate.Limit(perSecond), q.burst())
	if limiter.AllowN(now, 1) {
		return nil
	}
	wait := (1 - limiter.TokensAt(now)) / perSecond * float64(time.Second)
	exceeded.RetryAfter = time.Duration(math.Ceil(min(wait, float64(24*time.Hour))))
	return exceeded
}

func (q *Quota) burst() int {
	if q.Burst > 0 {
		return q.Burst
	}
	return int(min(max(1, math.Ceil(q.RequestsPerSecond)), math.MaxInt32))
}

// limiter gives an account's, with the limit of now, and makes it. The caller holds mu.
func (r *Rate) limiter(account string, now time.Time, perSecond rate.Limit, burst int) *rate.Limiter {
	if have := r.byName[account]; have != nil {
		r.accounts.MoveToFront(have)
		limiter := have.Value.(*limited).limiter
		if limiter.Limit() != perSecond {
			limiter.SetLimitAt(now, perSecond)
		}
		if limiter.Burst() != burst {
			limiter.SetBurstAt(now, burst)
		}
		return limiter
	}
	most := r.Accounts
	if most <= 0 {
		most = 10_000
	}
	for r.accounts.Len() >= most {
		r.forget(r.accounts.Back())
	}
	if r.byName == nil {
		r.byName = map[string]*list.Element{}
	}
	limiter := rate.NewLimiter(perSecond, burst)
	r.byName[account] = r.accounts.PushFront(&limited{account, limiter})
	return limiter
}

// forgetIdle forgets accounts that may send as much as new ones, two at a time: more than
// one call makes, so that none stays for good. The caller holds mu.
func (r *Rate) forgetIdle(now time.Time) {
	for range 2 {
		last := r.accounts.Back()
		if last == nil {
			return
		}
		limiter := last.Value.(*limited).limiter
		if limiter.TokensAt(now) < float64(limiter.Burst()) {
			return
		}
		r.forget(last)
	}
}

func (r *Rate) forget(e *list.Element) {
	delete(r.byName, e.Value.(*limited).account)
	r.accounts.Remove(e)
}
