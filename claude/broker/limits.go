package broker

import (
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"
)

// Limits bound what is used with a [Token] or by an [Account]. A zero field is no
// limit, but for InFlight of a token.
//
// Budgets hold for requests at a time as well as one after the other. Before its
// prompt is complete at the API, a request must find room for what it will cost: an
// estimate of the prompt, a token for every four bytes at the price of writing them
// to the cache, and for an answer that is not streamed all of its max_tokens. A
// request that finds too little room because others are under way is told to come
// back in a second (429); one that is alone goes through as long as anything is
// left. A streamed answer is counted event by event and ended at the one that
// passes a budget. So what is used can be above a budget by one prompt and one
// unstreamed answer, however many requests there are at a time, and beyond that by
// what the estimates are wrong: images and thinking that is not shown.
type Limits struct {
	// Cost is the budget in money, and Tokens in tokens of all kinds, cached ones
	// included. What is beyond is refused with 402 billing_error, and in the middle
	// of a stream an error event of that type ends it. The CLI does not retry it.
	Cost   USD
	Tokens int64
	// RequestsPerSecond and Burst, how many may come at once (zero: as many as come in
	// a second, but at least one), bound the rate of all requests. What is
	// beyond is refused with 429 rate_limit_error and Retry-After in seconds.
	RequestsPerSecond float64
	Burst             int
	// InFlight is how many requests may be under way at a time; more are refused
	// as above. Zero: for a token 64.
	InFlight int
}

// hold is room in budgets that a request has taken.
type hold struct {
	cost   USD
	tokens int64
}

// meter counts for a token, an account or the broker.
type meter struct {
	whose string // in the words of a message

	mu       sync.Mutex
	limits   Limits
	used     Usage
	held     hold
	holds    int // by how many requests
	inFlight int
	credit   float64 // requests that may come now
	credited time.Time
}

// enter begins a request, or refuses it. One that costs is also refused where
// nothing is left.
func (m *meter) enter(now time.Time, costs bool) *refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	if costs {
		if bad := m.spent(); bad != nil {
			return bad
		}
	}
	if m.limits.InFlight > 0 && m.inFlight >= m.limits.InFlight {
		return tooMany("too many requests of "+m.whose+" at a time", time.Second)
	}
	if rate := m.limits.RequestsPerSecond; rate > 0 {
		burst := float64(m.limits.Burst)
		if burst <= 0 {
			burst = max(1, math.Ceil(rate))
		}
		if m.credited.IsZero() {
			m.credit = burst
		}
		m.credit = min(burst, m.credit+now.Sub(m.credited).Seconds()*rate)
		m.credited = now
		if m.credit < 1 {
			return tooMany("too many requests of "+m.whose, time.Duration((1-m.credit)/rate*float64(time.Second)))
		}
		m.credit--
	}
	m.inFlight++
	return nil
}

func (m *meter) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inFlight--
}

// spent refuses where a budget is used up.
func (m *meter) spent() *refusal {
	switch {
	case m.limits.Cost > 0 && m.used.Cost >= m.limits.Cost:
		return spent(fmt.Sprintf("the budget of %s of %s is used up", m.limits.Cost, m.whose))
	case m.limits.Tokens > 0 && m.used.Tokens() >= m.limits.Tokens:
		return spent(fmt.Sprintf("the budget of %d tokens of %s is used up", m.limits.Tokens, m.whose))
	}
	return nil
}

// take takes room, or refuses it.
func (m *meter) take(h hold) *refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	if bad := m.spent(); bad != nil {
		return bad
	}
	overCost := m.limits.Cost > 0 && m.used.Cost+m.held.cost+h.cost > m.limits.Cost
	overTokens := m.limits.Tokens > 0 && m.used.Tokens()+m.held.tokens+h.tokens > m.limits.Tokens
	if m.holds > 0 && (overCost || overTokens) {
		return tooMany("what is left of the budget of "+m.whose+" is taken by requests under way", time.Second)
	}
	m.held.cost += h.cost
	m.held.tokens += h.tokens
	m.holds++
	return nil
}

func (m *meter) giveBack(h hold) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held.cost -= h.cost
	m.held.tokens -= h.tokens
	m.holds--
}

// book counts, and refuses more where a budget is passed by now.
func (m *meter) book(u Usage) *refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used = m.used.Add(u)
	if m.limits.Cost > 0 && m.used.Cost > m.limits.Cost || m.limits.Tokens > 0 && m.used.Tokens() > m.limits.Tokens {
		return m.spent()
	}
	return nil
}

func (m *meter) usage() Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

func (m *meter) setLimits(l Limits) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limits = l
}

// refusal is a request that does not go on, in the words of the answer.
type refusal struct {
	status           int
	errType, problem string
	after            time.Duration // to come back; zero: nothing is said
	never            bool          // come back
}

func (e *refusal) Error() string { return e.problem }

func spent(problem string) *refusal {
	return &refusal{status: http.StatusPaymentRequired, errType: "billing_error", problem: problem, never: true}
}

func tooMany(problem string, after time.Duration) *refusal {
	return &refusal{status: http.StatusTooManyRequests, errType: "rate_limit_error", problem: problem, after: after}
}
