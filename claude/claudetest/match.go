package claudetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Match says whether a request is of some kind. It is a function, so that a test
// can write its own beside those here.
type Match func(r *Request) bool

// SystemHas matches requests whose system prompt contains the text.
func SystemHas(text string) Match {
	return func(r *Request) bool { return strings.Contains(r.System, text) }
}

// PromptHas matches requests whose last prompt contains the text; see [Request.Prompt].
func PromptHas(text string) Match {
	return func(r *Request) bool { return strings.Contains(r.Prompt(), text) }
}

// Asks matches requests for a model, by the beginning of its name.
func Asks(model string) Match {
	return func(r *Request) bool { return strings.HasPrefix(r.Model, model) }
}

// Offers matches requests that let the model use the tool.
func Offers(tool string) Match {
	return func(r *Request) bool { return slices.Contains(r.Tools, tool) }
}

// Of matches requests of the kinds.
func Of(kinds ...Kind) Match {
	return func(r *Request) bool { return slices.Contains(kinds, r.Kind) }
}

// ResultOf matches requests whose newest call of a tool since the last prompt is
// one of this tool with a result that contains the text. Text "" matches any.
func ResultOf(tool, text string) Match {
	return func(r *Request) bool {
		calls := r.Calls()
		if len(calls) == 0 {
			return false
		}
		last := calls[len(calls)-1]
		return last.Tool == tool && last.Done && strings.Contains(last.Result, text)
	}
}

// All matches what all of them match.
func All(matches ...Match) Match {
	return func(r *Request) bool {
		return !slices.ContainsFunc(matches, func(m Match) bool { return !m(r) })
	}
}

// Not matches what m does not match.
func Not(m Match) Match { return func(r *Request) bool { return !m(r) } }

// Case is a script for the requests that match. A nil Match matches all.
type Case struct {
	Match  Match
	Script Script
}

// When answers each request with the first case that matches it. One that none
// matches fails with an error that says so, with the status of [Sequence].
func When(cases ...Case) Script {
	return func(w *Reply, r *Request) {
		for _, c := range cases {
			if c.Match == nil || c.Match(r) {
				c.Script(w, r)
				return
			}
		}
		w.Error(http.StatusTeapot, "api_error", fmt.Sprintf("claudetest: no case for request %d, whose prompt is %.100q", r.N, r.Prompt()))
	}
}

// Call is a call of a tool in a conversation, and what came of it. It has no
// hidden parts, so that reflect.DeepEqual and go-cmp can compare it.
type Call struct {
	Tool  string
	Input map[string]any // as encoding/json decodes it
	// Done says that there is a result. Result is its text, and IsError that it tells
	// of a failure.
	Done    bool
	Result  string
	IsError bool
}

// Calls returns the calls of tools since the last prompt, in their order.
func (r *Request) Calls() []Call {
	from, _ := r.lastPrompt()
	var calls []Call
	index := map[string]int{}
	for _, m := range r.Messages[from+1:] {
		for _, b := range m.Content {
			switch b.Type {
			case "tool_use":
				index[b.ID] = len(calls)
				calls = append(calls, Call{Tool: b.Name, Input: object(b.Input)})
			case "tool_result":
				if i, ok := index[b.ToolUseID]; ok {
					calls[i].Done, calls[i].Result, calls[i].IsError = true, b.Result, b.IsError
				}
			}
		}
	}
	return calls
}

func object(data json.RawMessage) map[string]any {
	var o map[string]any
	_ = json.Unmarshal(data, &o) // what is no object stays nil
	return o
}

// Entry is a part of a conversation. It has no hidden parts, so that
// reflect.DeepEqual and go-cmp can compare it.
type Entry struct {
	Role string // user or assistant
	Type string // text, thinking, tool_use, tool_result, …
	// Text is what was said or thought, and for a tool's result its text.
	Text    string
	Tool    string         // the name of a tool that is called, or whose result it is
	Input   map[string]any // of a call
	IsError bool           // of a result
}

// Conversation returns what the user and the model said so far, without what the
// CLI puts around it, and without ids, which differ from run to run.
func (r *Request) Conversation() []Entry {
	var entries []Entry
	names := map[string]string{}
	for _, m := range r.Messages {
		if m.Role != "user" && m.Role != "assistant" {
			continue
		}
		for _, b := range m.Content {
			e := Entry{Role: m.Role, Type: b.Type, Text: b.Text, IsError: b.IsError}
			switch {
			case b.Type == "tool_use":
				names[b.ID] = b.Name
				e.Tool, e.Input = b.Name, object(b.Input)
			case b.Type == "tool_result":
				e.Tool, e.Text = names[b.ToolUseID], b.Result
			case b.Type == "text" && m.Role == "user":
				if e.Text = userText(b); e.Text == "" {
					continue
				}
			}
			entries = append(entries, e)
		}
	}
	return entries
}

// Find returns the requests that match, oldest first.
func (h *Handler) Find(m Match) []*Request {
	return slices.DeleteFunc(h.Requests(), func(r *Request) bool { return !m(r) })
}

// Wait returns a channel that is closed once a request that matches has arrived,
// now or later. One that has been forgotten ([Options.Keep]) has not arrived.
func (h *Handler) Wait(m Match) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	arrived := make(chan struct{})
	if slices.ContainsFunc(h.requests, m) {
		close(arrived)
		return arrived
	}
	h.waits = append(h.waits, wait{m, arrived})
	return arrived
}

// wait is somebody who waits for a request.
type wait struct {
	match   Match
	arrived chan struct{}
}

// tell tells those who wait for the request. The lock is held.
func (h *Handler) tell(r *Request) {
	h.waits = slices.DeleteFunc(h.waits, func(w wait) bool {
		if !w.match(r) {
			return false
		}
		close(w.arrived)
		return true
	})
}
