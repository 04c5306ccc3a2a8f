package broker

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Outcome says how a request ended.
type Outcome string

// The outcomes.
const (
	OutcomeCompleted Outcome = "completed" // it was answered in full
	OutcomeFailed    Outcome = "failed"    // the model's API answered with an error, or not in full
	OutcomeRefused   Outcome = "refused"   // it was refused here: by a limit, or for what it asks
	OutcomeBudget    Outcome = "budget"    // its answer was ended as it passed a budget
	OutcomeCancelled Outcome = "cancelled" // the client went away
	OutcomeRevoked   Outcome = "revoked"   // its token was revoked, or its account's
)

// Event tells of one request for a message that came with a valid token.
type Event struct {
	// ID is unique, so that a ledger can take an event twice and count it once.
	ID string `json:"id"`
	// Token is the token's ID, Run and Account what the token was made with.
	Token   string `json:"token"`
	Run     string `json:"run,omitempty"`
	Account string `json:"account,omitempty"`
	// Model is the model that answered, else the one that was asked for, as far as known.
	Model string `json:"model,omitempty"`
	// RequestID is the model's API's own name for the request, or "".
	RequestID string `json:"request_id,omitempty"`
	// Stream says that the answer came as a stream.
	Stream bool `json:"stream"`
	// Began is when the request came, and Took how long it took, to its last byte.
	Began time.Time     `json:"began"`
	Took  time.Duration `json:"took_ns"`
	// Status is the HTTP status of the answer, 0 where there was none.
	Status  int     `json:"status"`
	Outcome Outcome `json:"outcome"`
	// Usage is what the request used. The events of a token add up to the token's
	// [Token.Usage].
	Usage Usage `json:"usage"`
}

// asked is what is known of a request once its body was seen whole.
type asked struct {
	model     string
	maxTokens int64
	stream    bool
	tokens    int64 // of the prompt, an estimate
}

// exchange is one request on its way through. Its methods are safe for concurrent
// use: the request's body is read by the transport's goroutine.
type exchange struct {
	broker  *Broker
	token   *Token
	meters  meters // that count it: those that limit it, and the broker's
	path    string // of the upstream, below its base
	key     Key
	refused atomic.Pointer[refusal] // by the guard

	mu     sync.Mutex
	event  Event // of which Usage is what is booked
	costs  bool  // it is for a message
	asked  asked
	whole  bool // its body went to the upstream to the last byte
	held   hold
	holds  []*meter // where it is held
	price  Price
	known  bool // the price is of the model
	rates  rates
	stated bool // the usage is all that the answer states
	done   bool
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange) // always there: ServeHTTP puts it
	return x
}

func (b *Broker) newExchange(t *Token, r *http.Request) *exchange {
	x := &exchange{broker: b, token: t, meters: append(t.meters(), &b.total), costs: r.Method == http.MethodPost && r.URL.Path == "/v1/messages"}
	x.event = Event{
		ID: t.ID() + "-" + strconv.FormatInt(t.requests.Add(1), 10), Token: t.ID(), Run: t.run, Began: time.Now(),
	}
	if t.account != nil {
		x.event.Account = t.account.name
	}
	return x
}

// enter passes the limits that hold before anything of the body is read.
func (x *exchange) enter() (leave func(), bad *refusal) {
	meters := x.token.meters()
	for i, m := range meters {
		if bad := m.enter(time.Now(), x.costs); bad != nil {
			meters[:i].leave()
			return nil, bad
		}
	}
	return meters.leave, nil
}

// admit is called with the request's body complete, and before its last byte
// goes on.
func (x *exchange) admit(a asked) *refusal {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.done:
		return errGone
	case x.whole || !x.costs:
		return nil
	}
	x.asked = a
	x.setModel(a.model)
	prompt := Usage{CacheWrite5m: a.tokens}
	if !a.stream {
		prompt.Output = a.maxTokens
	}
	x.held = hold{x.price.cost(prompt, rates{}), prompt.Tokens()}
	for _, m := range x.token.meters() {
		if bad := m.take(x.held); bad != nil {
			x.giveBack()
			return bad
		}
		x.holds = append(x.holds, m)
	}
	x.whole = true
	return nil
}

var errGone = &refusal{status: http.StatusServiceUnavailable, errType: "api_error", problem: "the request is over"}

func (x *exchange) giveBack() {
	for _, m := range x.holds {
		m.giveBack(x.held)
	}
	x.holds = nil
}

func (x *exchange) setModel(model string) {
	if model == "" {
		return
	}
	x.event.Model = model
	x.price, x.known = x.broker.prices.of(model)
}

// answered is called with the header of the upstream's answer.
func (x *exchange) answered(resp *http.Response, stream bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.event.Status, x.event.RequestID, x.event.Stream = resp.StatusCode, resp.Header.Get("Request-Id"), stream
}

// book counts what the request has used so far, in place of what was booked
// before, and refuses more where that passes a budget.
func (x *exchange) book(s statement) *refusal {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done {
		return nil
	}
	if s.model != "" && s.model != x.event.Model {
		x.setModel(s.model)
	}
	x.stated, x.rates = s.final, s.rates
	if s.usage.Prompt() > 0 {
		x.giveBack() // what it was for is counted now
	}
	return x.set(s.usage)
}

func (x *exchange) set(u Usage) (bad *refusal) {
	u.Requests = 1
	if !x.known && u.Tokens() > 0 {
		u.Assumed = 1
	}
	u.Cost = x.price.cost(u, x.rates)
	more := u.Sub(x.event.Usage)
	x.event.Usage = u
	for _, m := range x.meters {
		if over := m.book(more); over != nil && bad == nil {
			bad = over
		}
	}
	return bad
}

// finish settles the request, once: whatever comes later changes nothing.
func (x *exchange) finish(outcome Outcome) {
	x.mu.Lock()
	if x.done {
		x.mu.Unlock()
		return
	}
	x.done = true
	if x.whole {
		u := x.event.Usage
		begun := x.event.Status == http.StatusOK
		gone := outcome == OutcomeCancelled || outcome == OutcomeRevoked // before the answer, perhaps
		if !x.stated && (begun || gone) {
			if u.Prompt() == 0 {
				u.Input = x.asked.tokens
			}
			u.Estimated = 1
		}
		_ = x.set(u) // there is nothing left to refuse
	}
	x.giveBack()
	x.event.Outcome, x.event.Took = outcome, time.Since(x.event.Began)
	event, tell := x.event, x.costs && x.broker.observe != nil
	x.mu.Unlock()
	if tell {
		x.broker.observe(event)
	}
}

// refuse notes that it was refused here.
func (x *exchange) refuse(status int) {
	x.mu.Lock()
	x.event.Status = status
	x.mu.Unlock()
	x.finish(OutcomeRefused)
}

// fail notes that the upstream gave no usable answer.
func (x *exchange) fail(status int) {
	x.mu.Lock()
	x.event.Status = status
	x.mu.Unlock()
	x.finish(OutcomeFailed)
}

// end finishes a request that nothing else has finished.
func (x *exchange) end(ctx context.Context) {
	x.mu.Lock()
	status := x.event.Status
	x.mu.Unlock()
	switch {
	case x.token.cut():
		x.finish(OutcomeRevoked)
	case ctx.Err() != nil:
		x.finish(OutcomeCancelled)
	case !x.costs && status != 0 && status < 400:
		x.finish(OutcomeCompleted)
	default:
		x.finish(OutcomeFailed)
	}
}
