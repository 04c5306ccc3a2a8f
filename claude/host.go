package claude

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strconv"
	"time"
)

// maxCallbacks is how many callbacks may be under way at once. The CLI asks as
// many questions at once as Claude uses tools.
const maxCallbacks = 256

// errWithdrawn is the cause of a callback's context when the CLI has withdrawn
// its question.
var errWithdrawn = fmt.Errorf("claude: the CLI has withdrawn the question: %w", context.Canceled)

// PanicError is a panic in a callback of Options. The run was killed for it.
type PanicError struct {
	Callback string // such as "CanUseTool"
	Value    any    // what was panicked with
	Stack    []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("claude: %s panicked: %v", e.Callback, e.Value)
}

// Unwrap gives Value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// host answers what the CLI asks.
type host struct {
	hooks map[string]hookOf   // by the id that initialize gave them
	mcp   map[string]*mcpHost // by server

	// The rest is guarded by process.mu.
	asked   map[string]context.CancelCauseFunc // callbacks under way, by request
	running int                                // functions of spawn
	idle    chan struct{}                      // closed when none is running and none begins
	ending  bool
}

type hookOf struct {
	event HookEvent
	hook  *Hook
}

func newHost(p *process) *host {
	h := &host{hooks: map[string]hookOf{}, mcp: map[string]*mcpHost{}, asked: map[string]context.CancelCauseFunc{}, idle: make(chan struct{})}
	for event, hooks := range p.opts.Hooks {
		for i := range hooks {
			h.hooks[hookID(event, i)] = hookOf{event, &hooks[i]}
		}
	}
	for name, server := range p.opts.MCPServers {
		h.addMCP(p, name, server)
	}
	return h
}

func hookID(event HookEvent, i int) string { return string(event) + "-" + strconv.Itoa(i) }

func (h *host) addMCP(p *process, name string, server MCPServer) {
	if server.InProcess != nil {
		h.mcp[name] = &mcpHost{name: name, handler: server.InProcess, p: p}
	}
}

// spawn runs fn in a goroutine that the end of the run waits for. After
// that end it does nothing.
func (p *process) spawn(fn func(ctx context.Context)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.host.ending {
		return
	}
	p.host.running++
	go func() {
		fn(p.ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.host.running--; p.host.running == 0 && p.host.ending {
			close(p.host.idle)
		}
	}()
}

// endCallbacks ends the callbacks that are under way, and waits for them for a
// while: one that does not heed its context cannot be ended.
func (p *process) endCallbacks() {
	p.mu.Lock()
	p.host.ending = true
	if p.host.running == 0 {
		close(p.host.idle)
	}
	for _, cancel := range p.host.asked {
		cancel(ErrClosed)
	}
	servers := slices.Collect(maps.Values(p.host.mcp))
	p.mu.Unlock()
	for _, server := range servers {
		server.end()
	}
	timer := time.NewTimer(cleanupTimeout)
	defer timer.Stop()
	select {
	case <-p.host.idle:
	case <-timer.C:
	}
}

// guard calls fn. A panic in it ends the run, and is fn's error.
func (p *process) guard(callback string, fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			panicked := &PanicError{Callback: callback, Value: v, Stack: debug.Stack()}
			p.cancel(panicked)
			err = panicked
		}
	}()
	return fn()
}

// asks handles a request of the CLI's. With an error the run cannot go on.
func (p *process) asks(line *envelope) error {
	var question struct {
		RequestID string          `json:"request_id"`
		Request   json.RawMessage `json:"request"`
	}
	lenient(line.raw, &question)
	var head struct {
		Subtype    string          `json:"subtype"`
		CallbackID string          `json:"callback_id"`
		Server     string          `json:"server_name"`
		Message    json.RawMessage `json:"message"`
	}
	if question.Request != nil {
		lenient(question.Request, &head)
	}
	if p.settled[question.RequestID] && !reopens(head.Subtype, head.Message) {
		return nil
	}
	if head.Subtype == "mcp_message" {
		p.mu.Lock()
		server := p.host.mcp[head.Server]
		p.mu.Unlock()
		if server != nil && head.Message != nil {
			server.deliver(question.RequestID, head.Message)
			return nil
		}
	}
	name, callback := p.callback(head.Subtype, head.CallbackID)
	if callback == nil {
		return p.refuse(question.RequestID, head.Subtype)
	}
	return p.call(question.RequestID, name, func(ctx context.Context) (any, error) { return callback(ctx, question.Request) })
}

// reopens reports whether a request that was answered has to be seen again by a process
// that takes the run over: it opens the connection to a server of the process.
func reopens(subtype string, message json.RawMessage) bool {
	if subtype != "mcp_message" || message == nil {
		return false
	}
	var head struct {
		Method string `json:"method"`
	}
	lenient(message, &head)
	return head.Method == "initialize" || head.Method == "notifications/initialized"
}

// callback is the one that answers a question; nil for none.
func (p *process) callback(subtype, id string) (name string, fn func(ctx context.Context, request json.RawMessage) (any, error)) {
	switch {
	case subtype == "can_use_tool" && (p.opts.CanUseTool != nil || p.opts.putsOff()):
		return "CanUseTool", p.opts.askPermission
	case subtype == "elicitation" && p.opts.OnElicitation != nil:
		return "OnElicitation", p.opts.elicit
	case subtype == "request_user_dialog" && p.opts.OnUserDialog != nil:
		return "OnUserDialog", p.opts.showDialog
	case subtype == "hook_callback" && id == deferHook && p.opts.putsOff():
		return "Defer", p.putOff
	case subtype == "hook_callback":
		if of, ok := p.host.hooks[id]; ok {
			return "hook " + string(of.event), of.call
		}
	}
	return "", nil
}

// call answers a hook_callback request.
func (of hookOf) call(ctx context.Context, request json.RawMessage) (any, error) {
	var asked struct {
		Input     json.RawMessage `json:"input"`
		ToolUseID string          `json:"tool_use_id"`
	}
	lenient(request, &asked)
	in := &HookInput{Event: of.event, Raw: asked.Input, ToolUseID: asked.ToolUseID}
	if asked.Input != nil {
		lenient(asked.Input, in)
	}
	out, err := of.hook.Func(ctx, in)
	if err != nil {
		return nil, err
	}
	return out.answer(of.event), nil
}

// call runs a callback and answers the CLI with what it gives.
func (p *process) call(requestID, name string, fn func(ctx context.Context) (any, error)) error {
	ctx, cancel := context.WithCancelCause(p.ctx)
	p.mu.Lock()
	_, twice := p.host.asked[requestID]
	full := len(p.host.asked) >= maxCallbacks
	if !twice && !full {
		p.host.asked[requestID] = cancel
	}
	p.mu.Unlock()
	switch {
	case twice: // it is being answered
		cancel(nil)
		return nil
	case full:
		cancel(nil)
		return p.refuse(requestID, name)
	}
	p.spawn(func(context.Context) {
		var answer any
		err := p.guard(name, func() (err error) { answer, err = fn(ctx); return err })
		withdrawn := errors.Is(context.Cause(ctx), errWithdrawn)
		cancel(nil)
		p.mu.Lock()
		delete(p.host.asked, requestID)
		p.mu.Unlock()
		switch {
		case withdrawn: // nobody waits for the answer
		case err != nil:
			p.answerError(requestID, err.Error())
		default:
			p.settle(requestID, answer)
		}
	})
	return nil
}

// settle is answer, or says why there is none.
func (p *process) settle(requestID string, answer any) {
	if err := p.answer(requestID, answer); err != nil {
		p.answerError(requestID, err.Error())
	}
}

// withdrawn ends the callback for a question that the CLI has withdrawn.
func (p *process) withdrawn(line *envelope) {
	var l struct {
		RequestID string `json:"request_id"`
	}
	lenient(line.raw, &l)
	p.mu.Lock()
	cancel := p.host.asked[l.RequestID]
	p.mu.Unlock()
	if cancel != nil {
		cancel(errWithdrawn)
	}
}

// answer answers a request of the CLI.
func (p *process) answer(requestID string, answer any) error {
	return p.reply(map[string]any{"subtype": "success", "request_id": requestID, "response": answer}, answerLimit)
}

func (p *process) answerError(requestID, text string) {
	err := p.reply(map[string]any{"subtype": "error", "request_id": requestID, "error": text}, answerLimit)
	if err != nil {
		p.cancel(err)
	}
}

// refuse answers a request of the CLI that nothing here can serve: unanswered,
// the CLI would wait for ever. The error matches ErrNotReading.
func (p *process) refuse(requestID, what string) error {
	return p.reply(map[string]any{
		"subtype": "error", "request_id": requestID, "error": fmt.Sprintf("the host does not answer %q", what),
	}, replyLimit)
}

func (p *process) reply(response map[string]any, limit int) error {
	if id, _ := response["request_id"].(string); p.settled[id] {
		return nil // by an earlier process
	}
	data, err := json.Marshal(map[string]any{"type": typeControlResponse, "response": response})
	if err != nil {
		return fmt.Errorf("the host's answer cannot be encoded: %w", err)
	}
	return p.in.reply(append(data, '\n'), limit)
}

// inProcess are the names of the servers of this process.
func (h *host) inProcess() []string {
	var names []string
	for name := range h.mcp {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
