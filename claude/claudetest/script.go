package claudetest

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Script answers one request: it looks at r and writes the reply to w. It may
// block, for which r.Context() says when nobody waits any more. A handler calls
// it for several requests at once, so a script that keeps state guards it.
// A script that writes nothing sends an empty message.
type Script func(w *Reply, r *Request)

// Text says the given words, each argument as a delta of its own.
func Text(deltas ...string) Script {
	return func(w *Reply, _ *Request) {
		for _, d := range deltas {
			w.Text(d)
		}
	}
}

// Thinking thinks the given words, each argument as a delta of its own.
func Thinking(deltas ...string) Script {
	return func(w *Reply, _ *Request) {
		for _, d := range deltas {
			w.Thinking(d)
		}
	}
}

// Tool makes the CLI run one of its tools: Bash, Write, Edit, Read, … The input
// is anything that marshals to the JSON object which the tool expects. Its
// result arrives with the next request. A script that always calls a tool never
// ends the turn: put it into a [Sequence].
func Tool(name string, input any) Script {
	return func(w *Reply, _ *Request) { w.Tool(name, input) }
}

// Structured gives the answer that the CLI's --json-schema asks for: it calls the
// CLI's StructuredOutput tool, which ends the turn where the answer fits the schema.
func Structured(answer any) Script { return Tool("StructuredOutput", answer) }

// ServerTool says that the API itself ran one of its tools; see [Reply.ServerTool].
func ServerTool(name string, input, content any) Script {
	return func(w *Reply, _ *Request) { w.ServerTool(name, input, content) }
}

// Page is what a search of the web has found.
type Page struct{ Title, URL string }

// WebSearch says that the API searched the web, and what it found.
func WebSearch(query string, found ...Page) Script {
	results := []map[string]any{}
	for _, p := range found {
		results = append(results, map[string]any{
			"type": "web_search_result", "title": p.Title, "url": p.URL, "encrypted_content": "scripted", "page_age": nil,
		})
	}
	return ServerTool("web_search", map[string]string{"query": query}, results)
}

// Header sets a header of the HTTP answer. Put it first in a [Join]: it counts
// until the first content is written.
func Header(name, value string) Script {
	return func(w *Reply, _ *Request) { w.Header().Set(name, value) }
}

// Join writes the parts into one reply, in order. Neighbouring texts become
// deltas of one content block.
func Join(parts ...Script) Script {
	return func(w *Reply, r *Request) {
		for _, part := range parts {
			part(w, r)
		}
	}
}

// Sequence answers the first request with the first script, the second with the
// second, and so on; a request after the last one fails with an error that says
// so: 418, the one that the CLI neither retries nor puts into other words. It
// counts requests of all sessions together; see [PerSession]. A request that the
// CLI repeats after an error counts again.
func Sequence(scripts ...Script) Script {
	var mu sync.Mutex
	var n int
	return func(w *Reply, r *Request) {
		mu.Lock()
		i := n
		n++
		mu.Unlock()
		if i >= len(scripts) {
			w.Error(http.StatusTeapot, "api_error",
				fmt.Sprintf("claudetest: the script has %d replies and this is request %d", len(scripts), i+1))
			return
		}
		scripts[i](w, r)
	}
}

// PerSession makes a script for every session of the CLI, when its first
// request arrives, so that sessions that run side by side do not share a
// [Sequence]. The scripts live as long as the returned one.
func PerSession(newScript func() Script) Script {
	var mu sync.Mutex
	scripts := map[string]Script{}
	return func(w *Reply, r *Request) {
		mu.Lock()
		script, ok := scripts[r.SessionID()]
		if !ok {
			script = newScript()
			scripts[r.SessionID()] = script
		}
		mu.Unlock()
		script(w, r)
	}
}

// PerAgent makes a script for every subagent, when its first request arrives, so
// that each has a [Sequence] of its own; it is given that request, whose Prompt is
// the agent's task. It is for [Options.Subagent].
func PerAgent(newScript func(first *Request) Script) Script {
	var mu sync.Mutex
	scripts := map[string]Script{}
	return func(w *Reply, r *Request) {
		key := r.SessionID() + "/" + r.AgentID()
		mu.Lock()
		script, ok := scripts[key]
		if !ok {
			script = newScript(r)
			scripts[key] = script
		}
		mu.Unlock()
		script(w, r)
	}
}

// errTypes are the types of the API's errors by their status.
var errTypes = map[int]string{
	400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
	413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 504: "timeout_error", 529: "overloaded_error",
}

// Status fails with a status from 400 to 599 and the error that the API gives
// with it, api_error where it gives none.
func Status(status int) Script {
	errType, ok := errTypes[status]
	if !ok {
		errType = "api_error"
	}
	return Error(status, errType, "scripted: "+errType)
}

// Error fails: as an HTTP error with the given status where nothing was
// written before, else as an error event in the stream. The types that the API
// uses are listed at https://docs.anthropic.com/en/api/errors. Without any
// retries the CLI still repeats a request that failed with 400 or 422, five
// times, each time with fewer beta features, and one that failed with 404 once.
func Error(status int, errType, message string) Script {
	return func(w *Reply, _ *Request) { w.Error(status, errType, message) }
}

// Overloaded fails the way the API does when it is busy: 529 overloaded_error.
func Overloaded() Script { return Error(529, "overloaded_error", "Overloaded") }

// RateLimited fails with 429 rate_limit_error, says in Retry-After when to come
// back (in whole seconds, rounded up) and carries the API's rate limit headers.
func RateLimited(retryAfter time.Duration) Script {
	return func(w *Reply, _ *Request) {
		h := w.Header()
		h.Set("Retry-After", strconv.FormatInt(int64((retryAfter+time.Second-1)/time.Second), 10))
		h.Set("Anthropic-Ratelimit-Requests-Limit", "50")
		h.Set("Anthropic-Ratelimit-Requests-Remaining", "0")
		h.Set("Anthropic-Ratelimit-Tokens-Limit", "40000")
		h.Set("Anthropic-Ratelimit-Tokens-Remaining", "0")
		w.Error(http.StatusTooManyRequests, "rate_limit_error", "This request would exceed the rate limit.")
	}
}

// Disconnect cuts the connection, without an answer where nothing was written
// before, else in the middle of the stream.
func Disconnect() Script {
	return func(w *Reply, _ *Request) { w.Disconnect() }
}

// Cut cuts the connection in the middle of an event or, where the client wants no
// stream, in the middle of the answer.
func Cut() Script {
	return func(w *Reply, _ *Request) { w.Cut() }
}

// Tokens sets the usage that the reply reports. Put it first in a [Join]: the
// start of a stream already carries the input's side of it.
func Tokens(u Usage) Script {
	return func(w *Reply, _ *Request) { w.Usage(u) }
}

// Stop sets the reason for which the model stopped: max_tokens, refusal, …
func Stop(reason string) Script {
	return func(w *Reply, _ *Request) { w.StopReason(reason) }
}

// Gate holds replies back until a test opens it. Its Wait method is a [Script]:
//
//	var gate claudetest.Gate
//	script := claudetest.Join(claudetest.Text("one"), gate.Wait, claudetest.Text(" two"))
//
// The zero value is a closed gate. It is safe for concurrent use.
type Gate struct {
	mu            sync.Mutex
	reached, open chan struct{}
	wasReached    bool
	wasOpened     bool
}

func (g *Gate) init() {
	if g.open == nil {
		g.reached, g.open = make(chan struct{}), make(chan struct{})
	}
}

// Wait blocks until the gate is open or the client is gone. What the reply
// said before has been sent by then.
func (g *Gate) Wait(_ *Reply, r *Request) {
	g.mu.Lock()
	g.init()
	if !g.wasReached {
		g.wasReached = true
		close(g.reached)
	}
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
	case <-r.Context().Done():
	}
}

// Reached is closed once a reply has come to the gate.
func (g *Gate) Reached() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.init()
	return g.reached
}

// Open lets all replies pass, now and later. Opening it again does nothing.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.init()
	if !g.wasOpened {
		g.wasOpened = true
		close(g.open)
	}
}
