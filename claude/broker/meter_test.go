package broker_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/claude/broker"
)

// events are what a broker tells its observer.
type events struct {
	mu  sync.Mutex
	all []broker.Event
}

func (e *events) add(event broker.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

// one is the only event there is; it waits until the request's handler is done.
func (e *events) one(t *testing.T) broker.Event {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.all) != 1 {
		t.Fatalf("%d events, want one: %+v", len(e.all), e.all)
	}
	return e.all[0]
}

// send writes one event of a stream and flushes it.
func send(w http.ResponseWriter, name, data string) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	_, _ = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, data)
	_ = http.NewResponseController(w).Flush()
}

const (
	startEvent = `{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-4-5-20251101","content":[],` +
		`"usage":{"input_tokens":100,"cache_creation_input_tokens":3000,"cache_read_input_tokens":50000,"cache_creation":{"ephemeral_5m_input_tokens":1000,"ephemeral_1h_input_tokens":2000},"output_tokens":1}}}`
	deltaEvent = `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello"}}`
	endEvent   = `{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":400,"server_tool_use":{"web_search_requests":3}}}`
	stopEvent  = `{"type":"message_stop"}`
)

// opusUsage is what these events say, by the price of Opus 4.5.
var opusUsage = broker.Usage{
	Requests: 1, Input: 100, Output: 400, CacheWrite5m: 1000, CacheWrite1h: 2000, CacheRead: 50000, WebSearches: 3,
	Cost: broker.Dollars(100*5e-6 + 400*25e-6 + 1000*6.25e-6 + 2000*10e-6 + 50000*0.5e-6 + 3*0.01),
}

func opusStream(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Request-Id", "req_9")
	send(w, "message_start", startEvent)
	send(w, "content_block_delta", deltaEvent)
	send(w, "message_delta", endEvent)
	send(w, "message_stop", stopEvent)
}

const opusRequest = `{"model":"claude-opus-4-5","max_tokens":1000,"stream":true,"messages":[{"role":"user","content":"hi"}]}`

func TestCountsStreamsAndWholeAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		upstream http.HandlerFunc
		stream   bool
	}{
		"stream": {opusStream, true},
		"whole": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Request-Id", "req_9")
			_, _ = io.WriteString(w, `{"usage": {"input_tokens":100,"cache_creation_input_tokens":3000,"cache_read_input_tokens":50000,
				"cache_creation":{"ephemeral_5m_input_tokens":1000,"ephemeral_1h_input_tokens":2000},"output_tokens":400,"server_tool_use":{"web_search_requests":3}},
				"content":[{"type":"text","text":"\"usage\":{\"output_tokens\":1}"}], "model":"claude-opus-4-5-20251101"}`)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var told events
			w := newWorld(t, test.upstream, broker.Options{Observe: told.add})
			account := broker.NewAccount("acme", &broker.AccountOptions{Used: broker.Usage{Requests: 5, Cost: broker.Dollar}})
			w.token = w.NewToken(&broker.TokenOptions{Account: account, Run: "run-1"})
			resp, body := w.do(t, http.MethodPost, "/v1/messages", strings.Replace(opusRequest, "true", strconv.FormatBool(test.stream), 1))
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("got %d %s", resp.StatusCode, body)
			}
			if got := w.token.Usage(); got != opusUsage {
				t.Errorf("the token used\n%+v, want\n%+v", got, opusUsage)
			}
			if got := w.Usage(); got != opusUsage {
				t.Errorf("the broker counts %+v", got)
			}
			if got, want := account.Usage(), opusUsage.Add(broker.Usage{Requests: 5, Cost: broker.Dollar}); got != want {
				t.Errorf("the account used %+v, want %+v", got, want)
			}
			got := told.one(t)
			if got.Usage != opusUsage || got.Outcome != broker.OutcomeCompleted || got.Status != 200 || got.Model != "claude-opus-4-5-20251101" ||
				got.Run != "run-1" || got.Account != "acme" || got.Token != w.token.ID() || got.RequestID != "req_9" || got.Stream != test.stream || got.ID == "" {
				t.Errorf("told %+v", got)
			}
			if before := account.Reset(broker.Usage{}); before.Requests != 6 || account.Usage() != (broker.Usage{}) {
				t.Errorf("before the reset %+v, after it %+v", before, account.Usage())
			}
		})
	}
}

func TestOnlyMessagesCost(t *testing.T) {
	var told events
	w := newWorld(t, ok, broker.Options{Observe: told.add})
	w.token = w.NewToken(&broker.TokenOptions{Limits: broker.Limits{Tokens: 1}})
	for range 3 {
		w.do(t, http.MethodPost, "/v1/messages/count_tokens", opusRequest)
		w.do(t, http.MethodGet, "/v1/models", "")
	}
	if got := w.token.Usage(); got != (broker.Usage{}) || len(told.all) != 0 {
		t.Errorf("used %+v, told %+v", got, told.all)
	}
}

// Every way for a request to end is told of once, with what it cost.
func TestEndings(t *testing.T) {
	cutEstimate := func(t *testing.T, u broker.Usage) {
		if u.Estimated != 1 || u.CacheRead != 50000 || u.Output == 0 || u.Cost == 0 {
			t.Errorf("used %+v, want the prompt as stated and an estimate of the answer", u)
		}
	}
	free := func(t *testing.T, u broker.Usage) {
		if u.Cost != 0 || u.Tokens() != 0 {
			t.Errorf("used %+v, want nothing", u)
		}
	}

	for name, test := range map[string]struct {
		upstream http.HandlerFunc
		body     string
		cut      bool // by the client
		revoke   bool
		status   int
		outcome  broker.Outcome
		check    func(*testing.T, broker.Usage)
	}{
		"overloaded": {upstream: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(529); _, _ = io.WriteString(w, "{}") },
			status: 529, outcome: broker.OutcomeFailed, check: free},
		"no answer": {upstream: func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
			status: 502, outcome: broker.OutcomeFailed, check: free},
		"refused":  {upstream: ok, body: `{"mcp_servers":[]}`, status: 403, outcome: broker.OutcomeRefused, check: free},
		"not JSON": {upstream: ok, body: `{`, status: 400, outcome: broker.OutcomeRefused, check: free},
		"ends early": {upstream: func(w http.ResponseWriter, r *http.Request) {
			send(w, "message_start", startEvent)
			send(w, "content_block_delta", deltaEvent)
		}, status: 200, outcome: broker.OutcomeFailed, check: cutEstimate},
		"error in the stream": {upstream: func(w http.ResponseWriter, r *http.Request) {
			send(w, "message_start", startEvent)
			send(w, "content_block_delta", deltaEvent)
			send(w, "error", `{"type":"error","error":{"type":"overloaded_error","message":"x"}}`)
		}, status: 200, outcome: broker.OutcomeFailed, check: cutEstimate},
		"cut": {upstream: func(w http.ResponseWriter, r *http.Request) {
			send(w, "message_start", startEvent)
			send(w, "content_block_delta", deltaEvent)
			panic(http.ErrAbortHandler)
		}, status: 200, outcome: broker.OutcomeFailed, check: cutEstimate},
		"the client leaves": {upstream: func(w http.ResponseWriter, r *http.Request) {
			send(w, "message_start", startEvent)
			send(w, "content_block_delta", deltaEvent)
			<-r.Context().Done()
		}, cut: true, status: 200, outcome: broker.OutcomeCancelled, check: cutEstimate},
		"revoked": {upstream: func(w http.ResponseWriter, r *http.Request) {
			send(w, "message_start", startEvent)
			send(w, "content_block_delta", deltaEvent)
			<-r.Context().Done()
		}, revoke: true, status: 200, outcome: broker.OutcomeRevoked, check: cutEstimate},
		"says nothing of usage": {upstream: ok, status: 200, outcome: broker.OutcomeCompleted, check: func(t *testing.T, u broker.Usage) {
			if u.Estimated != 1 || u.Input == 0 || u.Cost == 0 {
				t.Errorf("used %+v, want an estimate", u)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			told := make(chan broker.Event, 8)
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					panic(http.ErrAbortHandler)
				}
				test.upstream(rw, r)
			}, broker.Options{Observe: func(e broker.Event) { told <- e }})
			if test.body == "" {
				test.body = opusRequest
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			resp, err := http.DefaultClient.Do(w.request(t, ctx, http.MethodPost, "/v1/messages", strings.NewReader(test.body)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			if test.cut || test.revoke {
				readUntil(t, resp.Body, "hello")
			}
			if test.cut {
				cancel()
			}
			if test.revoke {
				w.token.Revoke()
			}
			_, _ = io.Copy(io.Discard, resp.Body) // it may well be cut
			got := <-told
			if got.Outcome != test.outcome || got.Status != test.status {
				t.Errorf("told %s with status %d, want %s with %d", got.Outcome, got.Status, test.outcome, test.status)
			}
			test.check(t, got.Usage)
			if w.token.Usage() != got.Usage {
				t.Errorf("the token used %+v, the event says %+v", w.token.Usage(), got.Usage)
			}
			select {
			case again := <-told:
				t.Errorf("told again: %+v", again)
			default:
			}
		})
	}
}

func readUntil(t *testing.T, r io.Reader, text string) {
	t.Helper()
	for s := bufio.NewScanner(r); s.Scan(); {
		if strings.Contains(s.Text(), text) {
			return
		}
	}
	t.Fatalf("the stream ended before %q", text)
}

// A request that is gone before its answer begins may have cost its prompt.
func TestGoneBeforeTheAnswer(t *testing.T) {
	told := make(chan broker.Event, 1)
	arrived := make(chan struct{})
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	}, broker.Options{Observe: func(e broker.Event) { told <- e }})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if resp, err := http.DefaultClient.Do(w.request(t, ctx, http.MethodPost, "/v1/messages", strings.NewReader(opusRequest))); err == nil {
		_ = resp.Body.Close()
		t.Error("it was answered")
	}
	if got := <-told; got.Outcome != broker.OutcomeCancelled || got.Usage.Input < int64(len(opusRequest)/4) || got.Usage.Estimated != 1 {
		t.Errorf("told %+v", got)
	}
}

func TestABudgetThatIsUsedUp(t *testing.T) {
	for name, test := range map[string]struct {
		run, account broker.Limits
		says         string
	}{
		"money of the run":      {run: broker.Limits{Cost: opusUsage.Cost}, says: "the budget of $0.09175 of this run is used up"},
		"tokens of the run":     {run: broker.Limits{Tokens: opusUsage.Tokens()}, says: "the budget of 53500 tokens of this run is used up"},
		"money of the account":  {account: broker.Limits{Cost: opusUsage.Cost}, says: "the budget of $0.09175 of the account is used up"},
		"tokens of the account": {account: broker.Limits{Tokens: 1000}, says: "the budget of 1000 tokens of the account is used up"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, opusStream, broker.Options{})
			account := broker.NewAccount("acme", &broker.AccountOptions{Limits: test.account})
			w.token = w.NewToken(&broker.TokenOptions{Account: account, Limits: test.run})
			w.do(t, http.MethodPost, "/v1/messages", opusRequest)
			resp, body := w.do(t, http.MethodPost, "/v1/messages", opusRequest)
			wantError(t, resp, body, 402, "billing_error")
			if !strings.Contains(body, test.says) || resp.Header.Get("X-Should-Retry") != "false" {
				t.Errorf("got %s with X-Should-Retry %q, want %q and false", body, resp.Header.Get("X-Should-Retry"), test.says)
			}
			if n := len(w.reached()); n != 1 {
				t.Errorf("%d requests reached the upstream", n)
			}
			w.token.SetLimits(broker.Limits{})
			account.SetLimits(broker.Limits{})
			if resp, body := w.do(t, http.MethodPost, "/v1/messages", opusRequest); resp.StatusCode != http.StatusOK {
				t.Errorf("with more budget: %d %s", resp.StatusCode, body)
			}
		})
	}
}

// A stream that passes its budget ends with an error event of the API's own form,
// after a whole event.
func TestAStreamThatPassesItsBudget(t *testing.T) {
	var told events
	gone := make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		defer close(gone)
		send(rw, "message_start", startEvent)
		for r.Context().Err() == nil {
			send(rw, "content_block_delta", strings.Replace(deltaEvent, "hello", strings.Repeat("hello ", 100), 1))
		}
	}, broker.Options{Observe: told.add})
	w.token = w.NewToken(&broker.TokenOptions{Limits: broker.Limits{Cost: opusUsage.Cost}})
	_, body := w.do(t, http.MethodPost, "/v1/messages", opusRequest)
	<-gone
	events := strings.Split(strings.TrimSuffix(body, "\n\n"), "\n\n")
	last := events[len(events)-1]
	if want := `event: error` + "\n" + `data: {"error":{"message":"broker: the budget of $0.09175 of this run is used up","type":"billing_error"},"type":"error"}`; last != want {
		t.Errorf("the last event is %q, want %q", last, want)
	}
	if !strings.HasSuffix(events[len(events)-2], `"}}`) {
		t.Errorf("the event before is not whole: %q", events[len(events)-2])
	}
	got := told.one(t)
	over := got.Usage.Cost - opusUsage.Cost
	if got.Outcome != broker.OutcomeBudget || got.Usage.Estimated != 1 || over <= 0 || over > broker.Dollars(0.005) {
		t.Errorf("told %+v, %s over the budget", got, over)
	}
}

// Many requests at a time find room for one after the other only.
func TestParallelRequestsShareABudget(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan struct{}, 100)
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		arrived <- struct{}{}
		<-release
		_, _ = io.WriteString(rw, `{"model":"claude-opus-4-5","usage":{"input_tokens":20,"output_tokens":1000}}`)
	}, broker.Options{})
	// Each may write 1000 tokens at $25 a million; there is room for three.
	w.token = w.NewToken(&broker.TokenOptions{Limits: broker.Limits{Cost: broker.Dollars(0.080)}})
	body := strings.Replace(opusRequest, "true", "false", 1)
	var wg sync.WaitGroup
	statuses := make(chan int, 20)
	for range 20 {
		wg.Go(func() {
			resp, err := http.DefaultClient.Do(w.request(t, t.Context(), http.MethodPost, "/v1/messages", strings.NewReader(body)))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "1" {
				t.Errorf("Retry-After: %q", resp.Header.Get("Retry-After"))
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Error(err)
			}
			statuses <- resp.StatusCode
		})
	}
	for range 17 {
		if status := <-statuses; status != http.StatusTooManyRequests {
			t.Errorf("status %d, want 429", status)
		}
	}
	close(release)
	wg.Wait()
	for range 3 {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("status %d, want 200", status)
		}
	}
	if got := w.token.Usage(); got.Requests != 3 || got.Cost > broker.Dollars(0.080) {
		t.Errorf("used %+v", got)
	}
	if resp, body := w.do(t, http.MethodPost, "/v1/messages", body); resp.StatusCode != http.StatusOK {
		t.Errorf("alone, with something left: %d %s", resp.StatusCode, body)
	}
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := broker.New(&broker.Options{Key: broker.APIKey(theKey), Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		account := broker.NewAccount("acme", &broker.AccountOptions{Limits: broker.Limits{RequestsPerSecond: 0.25, Burst: 2}})
		tokens := []*broker.Token{b.NewToken(&broker.TokenOptions{Account: account}), b.NewToken(&broker.TokenOptions{Account: account})}
		try := func(token *broker.Token) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodGet, "/v1/models", nil)
			r.Header.Set("X-Api-Key", token.Value())
			w := httptest.NewRecorder()
			b.ServeHTTP(w, r)
			return w
		}
		for i, step := range []struct {
			wait   time.Duration
			status int
			retry  string
		}{{0, 200, ""}, {0, 200, ""}, {0, 429, "4"}, {time.Second, 429, "3"}, {3 * time.Second, 200, ""}, {time.Hour, 200, ""}, {0, 200, ""}, {0, 429, "4"}} {
			<-time.After(step.wait)
			got := try(tokens[i%2])
			if got.Code != step.status || got.Header().Get("Retry-After") != step.retry {
				t.Errorf("step %d: %d, Retry-After %q, want %d, %q", i, got.Code, got.Header().Get("Retry-After"), step.status, step.retry)
			}
		}
	})
}

func TestRevokeAnAccount(t *testing.T) {
	gone := make(chan struct{}, 2)
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		send(rw, "message_start", startEvent)
		<-r.Context().Done()
		gone <- struct{}{}
	}, broker.Options{})
	account := broker.NewAccount("acme", nil)
	var bodies []io.ReadCloser
	for range 2 {
		w.token = w.NewToken(&broker.TokenOptions{Account: account})
		resp, err := http.DefaultClient.Do(w.request(t, t.Context(), http.MethodPost, "/v1/messages", strings.NewReader(opusRequest)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		bodies = append(bodies, resp.Body)
	}
	account.Revoke()
	for _, body := range bodies {
		if _, err := io.ReadAll(body); err == nil {
			t.Error("the stream ended as if it were whole")
		}
	}
	<-gone
	<-gone
	resp, body := w.do(t, http.MethodGet, "/v1/models", "")
	wantError(t, resp, body, 401, "authentication_error")
	later := w.NewToken(&broker.TokenOptions{Account: account})
	if resp, body := w.do(t, http.MethodGet, "/nowhere", "", "X-Api-Key", later.Value()); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a later token: %d %s", resp.StatusCode, body)
	}
}

func TestIssuer(t *testing.T) {
	told := make(chan broker.Event, 1)
	w := newWorld(t, opusStream, broker.Options{Observe: func(e broker.Event) { told <- e }})
	account := broker.NewAccount("acme", nil)
	issuer := w.With(broker.TokenOptions{Account: account, Run: "r"})
	value, revoke, err := issuer.IssueToken()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/v1/messages", strings.NewReader(opusRequest))
	r.Header.Set("X-Api-Key", value)
	issuer.ServeHTTP(httptest.NewRecorder(), r)
	if got := <-told; got.Account != "acme" || got.Run != "r" || account.Usage() != opusUsage {
		t.Errorf("told %+v", got)
	}
	revoke()
	again := httptest.NewRecorder()
	issuer.ServeHTTP(again, r)
	if again.Code != http.StatusUnauthorized {
		t.Errorf("after it was revoked: %d", again.Code)
	}
}

// Mounted below a path of somebody's server, as a sandbox elsewhere needs it.
func TestMountedBelowAPath(t *testing.T) {
	w := newWorld(t, opusStream, broker.Options{})
	mux := http.NewServeMux()
	mux.Handle("/model/", http.StripPrefix("/model", w.Broker))
	front := httptest.NewServer(mux)
	defer front.Close()
	defer front.Client().CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+"/model/v1/messages?beta=true", strings.NewReader(opusRequest))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.token.Value())
	resp, err := front.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), "message_stop") {
		t.Errorf("got %s, %v", body, err)
	}
	if w.token.Usage() != opusUsage {
		t.Errorf("used %+v", w.token.Usage())
	}
}

func TestLogsHoldNoSecrets(t *testing.T) {
	w := newWorld(t, ok, broker.Options{})
	w.do(t, http.MethodGet, "/v1/"+theKey+"/"+w.token.Value(), "")
	if !strings.Contains(w.log.String(), "[redacted]") { // newWorld looks for the secrets
		t.Errorf("the log says %s", w.log)
	}
}
