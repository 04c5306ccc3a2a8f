package claude

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// deferHook is the id of the hook that is Options.Defer and Options.Answers.
const deferHook = "Defer"

const (
	// deferTime is how long the CLI waits for Options.Defer. It goes on without a hook
	// that takes longer, and has no word for one that may take for ever.
	deferTime = 7 * 24 * time.Hour
	// takeUpTime is how long a CLI that has answered may take to go on with a use that
	// was put off. It says so before it answers, as a rule.
	takeUpTime = 3 * time.Second
)

// putsOff reports whether there is a deferHook.
func (o *Options) putsOff() bool { return o.Defer != nil || len(o.Answers) > 0 }

// isAnswer reports whether a prompt is none, but the wish to go on with Answers.
func (o *Options) isAnswer(prompt string, more []ContentBlock) bool {
	return prompt == "" && len(more) == 0 && len(o.Answers) > 0
}

// putOff answers the deferHook.
func (p *process) putOff(ctx context.Context, request json.RawMessage) (any, error) {
	return hookOf{HookPreToolUse, &Hook{Func: p.mayPutOff}}.call(ctx, request)
}

func (p *process) mayPutOff(ctx context.Context, in *HookInput) (*HookOutput, error) {
	if answer := p.opts.Answers[in.ToolUseID]; answer != nil {
		return answer.ofHook(), nil
	}
	if in.AgentID != "" { // its subagent would end as if it had nothing more to say
		return nil, nil
	}
	later, err := p.asksLater(ctx, in)
	switch {
	case err != nil:
		return Deny("the host could not decide: " + err.Error()).ofHook(), nil
	case !later:
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.putOffUse != "" && p.putOffUse != in.ToolUseID {
		// The CLI would end the turn with one of the two, and forget the other.
		return Deny("Not decided: another use of a tool beside this one waits for an answer. Ask for it again after that.").ofHook(), nil
	}
	p.putOffUse = in.ToolUseID
	return &HookOutput{Permission: "defer"}, nil
}

// asksLater reports whether a use is put off. One that was before, and that Answers do
// not know, is not left to the rules: they may allow it.
func (p *process) asksLater(ctx context.Context, in *HookInput) (bool, error) {
	if p.opts.Defer != nil {
		return p.opts.Defer(ctx, &ToolRequest{Tool: in.Tool, Input: in.ToolInput, ToolUseID: in.ToolUseID, Raw: in.Raw})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.begunTurn, nil
}

// ofHook is a Permission as a PreToolUse hook gives it.
func (p *Permission) ofHook() *HookOutput {
	if p.Allowed {
		return &HookOutput{Permission: "allow", UpdatedInput: p.Input}
	}
	out := &HookOutput{Permission: "deny", PermissionReason: p.Message}
	if out.PermissionReason == "" {
		out.PermissionReason = notAllowed
	}
	return out
}

// goOn is the turn of a process that is given no prompt. It is begun before the CLI
// runs, which begins by itself.
func (p *process) goOn(id string) (*turn, error) {
	t, err := p.ask(id, nil)
	if err == nil {
		t.promptless = true
	}
	return t, err
}

// takenUp is the stream of goOn's turn, once the CLI has gone on with it. One that has
// nothing to go on with would wait for a prompt.
func (p *process) takenUp(t *turn) (*Stream, error) {
	late := time.NewTimer(takeUpTime)
	defer late.Stop()
	for {
		p.mu.Lock()
		begun, changed := p.state != "", p.changed
		p.mu.Unlock()
		if begun {
			return newStream(p, t), nil
		}
		select {
		case <-changed:
		case <-t.over:
			return newStream(p, t), nil
		case <-late.C:
			p.kill(ErrClosed)
			return nil, fmt.Errorf("%w: %s", ErrNotDeferred, p.sessionID())
		}
	}
}
