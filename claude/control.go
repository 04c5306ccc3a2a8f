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

func (r reply) decode(subtype string, response any) error {
	if r.err != "" {
		return &ControlError{Request: subtype, Message: r.err}
	}
	if response == nil || r.response == nil {
		return nil
	}
	if err := json.Unmarshal(r.response, response); err != nil {
		return &ProtocolError{Line: r.response, Err: fmt.Errorf("the answer to %s: %w", subtype, err)}
	}
	return nil
}

// request sends a control request and waits for the answer, decoded into
// response if that is not nil. body is a struct with the request's fields, or
// nil. When ctx ends first the request is withdrawn.
func (p *process) request(ctx context.Context, subtype string, body, response any) error {
	fields, err := withSubtype(subtype, body)
	if err != nil {
		return err
	}
	id, answered := p.expect()
	if err := p.sendRequest(id, fields); err != nil {
		p.forget(id)
		return err
	}
	return p.await(ctx, subtype, id, answered, response)
}

// await is request for one that was sent.
func (p *process) await(ctx context.Context, subtype, id string, answered <-chan reply, response any) error {
	defer p.forget(id)
	p.hold()
	defer p.unhold()
	select {
	case r := <-answered:
		return r.decode(subtype, response)
	case <-p.done:
	case <-ctx.Done():
	}
	select {
	case r := <-answered: // both at once: it was first
		return r.decode(subtype, response)
	default:
	}
	select {
	case <-p.done: // which ends the run's context too
		return p.end
	default:
		_ = p.send(map[string]any{"type": typeControlCancel, "request_id": id}) // it may be answered all the same
		return context.Cause(ctx)
	}
}

func (p *process) sendRequest(id string, fields map[string]any) error {
	return p.send(map[string]any{"type": typeControlRequest, "request_id": id, "request": fields})
}

func withSubtype(subtype string, body any) (map[string]any, error) {
	var members map[string]json.RawMessage // which keeps numbers as they are
	if body != nil {
		data, err := json.Marshal(body)
		if err == nil {
			err = json.Unmarshal(data, &members)
		}
		if err != nil {
			return nil, fmt.Errorf("claude: %w: the request %s: %w", sandbox.ErrInvalid, subtype, err)
		}
	}
	fields := make(map[string]any, len(members)+1)
	for key, value := range members {
		fields[key] = value
	}
	fields["subtype"] = subtype
	return fields, nil
}

// requestPrefix begins the ids of our requests, which end in their numbers.
const requestPrefix = "vivarium-"

func (p *process) expect() (id string, answered <-chan reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastReq++
	id = requestPrefix + strconv.Itoa(p.lastReq)
	return id, p.expectAs(id)
}

// expectAs is expect for a request that has an id. The caller holds mu.
func (p *process) expectAs(id string) <-chan reply {
	c := make(chan reply, 1)
	p.replies[id] = c
	return c
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
func (p *process) control(line *envelope) error {
	switch line.typ {
	case typeControlResponse:
		p.replied(line)
	case typeControlRequest:
		return p.asks(line)
	case typeControlCancel:
		p.withdrawn(line)
	}
	return nil
}

func (p *process) replied(m *envelope) {
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
	if !p.greeted { // it has not got a prompt yet
		p.greeted, p.goesOn = true, p.state == "running"
	}
	if c, ok := p.replies[line.Response.RequestID]; ok {
		delete(p.replies, line.Response.RequestID)
		c <- r // has room for it
	}
}

// prompt begins a turn, or puts it behind those that go on.
func (p *process) prompt(text string, more []ContentBlock) (*turn, error) {
	id := newUUID()
	line, err := p.opts.promptLine(id, text, more)
	if err != nil {
		return nil, err
	}
	return p.ask(id, line)
}

// promptLine is a prompt as the CLI takes it.
func (o *Options) promptLine(id, text string, more []ContentBlock) ([]byte, error) {
	if text == "" && len(more) == 0 {
		return nil, fmt.Errorf("claude: %w: the prompt is empty", sandbox.ErrInvalid)
	}
	line := map[string]any{
		"type": typeUser, "uuid": id, "session_id": "", "parent_tool_use_id": nil,
		"message": map[string]any{"role": "user", "content": promptContent(text, more)},
	}
	if o.VerbatimPrompts {
		line["client_composed"] = true
	}
	data, err := json.Marshal(line)
	if err != nil {
		return nil, fmt.Errorf("claude: %w: the prompt: %w", sandbox.ErrInvalid, err)
	}
	return append(data, '\n'), nil
}

// ask is prompt for a line. One that is nil was sent before.
func (p *process) ask(id string, line []byte) (*turn, error) {
	t := &turn{id: id, over: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.end != nil:
		return nil, p.end
	case p.in.isClosed():
		return nil, ErrClosed
	}
	p.begin(t)
	if line != nil {
		p.in.write(line)
	}
	return t, nil
}

func promptContent(text string, more []ContentBlock) any {
	if len(more) == 0 {
		return text
	}
	var content Content
	if text != "" {
		content = Content{Text(text)}
	}
	return append(content, more...)
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
		if p.waits(t) && p.takeBack(ctx, t) {
			return nil
		}
		if p.waits(t) {
			// It is being begun with, or becomes part of the turn that goes on.
			if err := p.pause(ctx, t); err != nil {
				return err
			}
			continue
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
		if err := p.pause(ctx, t); err != nil {
			return err
		}
	}
}

// pause waits a little for a turn to begin.
func (p *process) pause(ctx context.Context, t *turn) error {
	timer := time.NewTimer(requeued)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// signalInterrupt stops a CLI that takes no more input: one that has given the
// prompt's result and waits for work in the background.
func (p *process) signalInterrupt() error {
	err := p.cli.signal(sandbox.SIGINT)
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

// takeBack takes a prompt back that the CLI has not begun with, and reports
// whether it has.
func (p *process) takeBack(ctx context.Context, t *turn) bool {
	var answer struct {
		Cancelled bool `json:"cancelled"`
	}
	err := p.request(ctx, "cancel_async_message", struct {
		ID string `json:"message_uuid"`
	}{t.id}, &answer)
	if err == nil && answer.Cancelled {
		p.drop(t)
		return true
	}
	return false
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
