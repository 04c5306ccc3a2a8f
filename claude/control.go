package claude

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Types of the lines in which the CLI and this package talk about the
// conversation. They are no part of a stream.
const (
	typeControlRequest  = "control_request"
	typeControlResponse = "control_response"
	typeControlCancel   = "control_cancel_request"
	typeKeepAlive       = "keep_alive"
)

func isControl(messageType string) bool {
	switch messageType {
	case typeControlRequest, typeControlResponse, typeControlCancel, typeKeepAlive:
		return true
	}
	return false
}

// reply is the CLI's answer to a control request.
type reply struct {
	response json.RawMessage
	err      string
}

// request sends a control request and waits for the answer, decoded into
// response if that is not nil. body is a struct with the request's fields.
func (p *process) request(ctx context.Context, subtype string, body, response any) error {
	fields, err := withSubtype(subtype, body)
	if err != nil {
		return err
	}
	p.hold()
	defer p.unhold()
	id, answered := p.expect()
	defer p.forget(id)
	err = p.send(map[string]any{"type": typeControlRequest, "request_id": id, "request": fields})
	if err != nil {
		return err
	}
	select {
	case r := <-answered:
		if r.err != "" {
			return &ControlError{Request: subtype, Message: r.err}
		}
		if response == nil {
			return nil
		}
		return json.Unmarshal(r.response, response)
	case <-p.done:
		return p.end
	case <-ctx.Done():
	}
	select {
	case <-p.done: // which ends the run's context too
		return p.end
	default:
		return context.Cause(ctx)
	}
}

func withSubtype(subtype string, body any) (map[string]any, error) {
	fields := map[string]any{}
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &fields); err != nil {
			return nil, err
		}
	}
	fields["subtype"] = subtype
	return fields, nil
}

func (p *process) expect() (id string, answered <-chan reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastReq++
	id = "vivarium-" + strconv.Itoa(p.lastReq)
	c := make(chan reply, 1)
	p.replies[id] = c
	return id, c
}

func (p *process) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.replies, id)
}

// send writes one line to the CLI. It does not block.
func (p *process) send(line any) error {
	data, err := json.Marshal(line)
	if err != nil {
		return err
	}
	p.in.write(append(data, '\n'))
	return nil
}

// control handles a line that is not part of the stream. With an error the run
// cannot go on.
func (p *process) control(m *envelope) error {
	switch m.typ {
	case typeControlResponse:
		p.answered(m)
	case typeControlRequest:
		return p.refuse(m)
	}
	return nil
}

func (p *process) answered(m *envelope) {
	var line struct {
		Response struct {
			Subtype   string          `json:"subtype"`
			RequestID string          `json:"request_id"`
			Response  json.RawMessage `json:"response"`
			Error     string          `json:"error"`
		} `json:"response"`
	}
	lenient(m.raw, &line) // what cannot be decoded answers no request
	r := reply{response: line.Response.Response, err: line.Response.Error}
	if line.Response.Subtype == "error" && r.err == "" {
		r.err = "refused without a reason"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.replies[line.Response.RequestID]; ok {
		delete(p.replies, line.Response.RequestID)
		c <- r // has room for it
	}
}

// refuse answers a request of the CLI that nothing here can serve: unanswered,
// the CLI would wait for ever. The error matches ErrNotReading.
func (p *process) refuse(m *envelope) error {
	var line struct {
		RequestID string `json:"request_id"`
		Request   struct {
			Subtype string `json:"subtype"`
		} `json:"request"`
	}
	lenient(m.raw, &line)
	data, err := json.Marshal(map[string]any{"type": typeControlResponse, "response": map[string]any{
		"subtype": "error", "request_id": line.RequestID,
		"error": fmt.Sprintf("the host does not answer %q", line.Request.Subtype),
	}})
	if err != nil {
		return err
	}
	return p.in.reply(append(data, '\n'))
}

// errSlowStart tells Options.StartTimeout from a deadline of the caller's.
var errSlowStart = errors.New("no answer")

// initialize is the first request: it sets up the conversation, and its answer
// says that the CLI works.
func (p *process) initialize(ctx context.Context) error {
	limit := p.opts.StartTimeout
	if limit == 0 {
		limit = DefaultStartTimeout
	}
	if limit > 0 {
		late := fmt.Errorf("%w within %v: %w", errSlowStart, limit, context.DeadlineExceeded)
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, limit, late)
		defer stop()
	}
	return p.request(ctx, "initialize", struct {
		SystemPrompt       string `json:"systemPrompt,omitempty"`
		AppendSystemPrompt string `json:"appendSystemPrompt,omitempty"`
	}{p.opts.SystemPrompt, p.opts.AppendSystemPrompt}, nil)
}

// prompt begins a turn.
func (p *process) prompt(text string) (*turn, error) {
	if text == "" {
		return nil, fmt.Errorf("claude: %w: the prompt is empty", sandbox.ErrInvalid)
	}
	t := &turn{id: newUUID(), over: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.end != nil:
		return nil, p.end
	case p.turn != nil:
		return nil, ErrBusy
	case p.in.isClosed():
		return nil, ErrClosed
	}
	t.queue = p.queue
	p.turn = t
	return t, p.send(map[string]any{
		"type": typeUser, "uuid": t.id, "session_id": "", "parent_tool_use_id": nil,
		"message": map[string]any{"role": "user", "content": text},
	})
}

// requeued is how long a prompt that the CLI has not begun with is left to it
// before it is interrupted again.
const requeued = 20 * time.Millisecond

// interrupt stops a turn and returns when the CLI has said that it will. An
// interrupt that comes before the CLI has begun with the prompt passes over it:
// the CLI says so, and is asked again.
func (p *process) interrupt(ctx context.Context, t *turn) error {
	for {
		select {
		case <-t.over:
			return nil
		default:
		}
		if p.in.isClosed() {
			return p.signalInterrupt()
		}
		var answer struct {
			StillQueued []string `json:"still_queued"`
		}
		if err := p.request(ctx, "interrupt", nil, &answer); err != nil {
			return p.unlessOver(t, err)
		}
		if !slices.Contains(answer.StillQueued, t.id) {
			return nil
		}
		select {
		case <-time.After(requeued):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// signalInterrupt stops a CLI that takes no more input: one that has given the
// prompt's result and waits for work in the background.
func (p *process) signalInterrupt() error {
	err := p.cmd.Signal(sandbox.SIGINT)
	select {
	case <-p.done:
		return nil
	default:
		return err
	}
}

// unlessOver is err, but nil when there is nothing left to interrupt.
func (p *process) unlessOver(t *turn, err error) error {
	select {
	case <-t.over:
		var refused *ControlError
		if errors.As(err, &refused) || errors.Is(err, ErrNoResult) {
			return nil
		}
	default:
	}
	return err
}

// stop interrupts a turn and waits until it is over; a CLI that does not do it
// in time is killed.
func (p *process) stop(t *turn) {
	ctx, cancel := context.WithTimeout(context.Background(), interruptTimeout)
	defer cancel()
	_ = p.interrupt(ctx, t) // what matters is whether the turn ends
	p.hold()
	defer p.unhold()
	select {
	case <-t.over:
	case <-ctx.Done():
		p.kill(fmt.Errorf("the turn did not stop within %v", interruptTimeout))
	}
}
