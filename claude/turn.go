package claude

import (
	"errors"
	"slices"
)

// originTask is Result.Origin of a turn that finished work in the background
// brought about.
const originTask = "task-notification"

// turn is a prompt on its way to its result.
type turn struct {
	id    string // the prompt's
	queue *queue
	// promptless: it goes on with a use that was put off.
	promptless bool
	over       chan struct{} // closed when no more lines come

	// The rest is guarded by process.mu until over is closed.
	result  *ResultMessage
	cause   error // the context's error, when its end stopped the turn
	dropped bool  // it was taken back
}

// endedBy reports whether a result is the prompt's. Results of work in the
// background, and of other prompts, are not. Results name their prompts; where
// one does not, as when a conversation to resume is not there, it is that of the
// first.
func (t *turn) endedBy(r *ResultMessage, first bool) bool {
	if t.promptless {
		return r.Origin != originTask
	}
	if len(r.PromptIDs) > 0 {
		return slices.Contains(r.PromptIDs, t.id)
	}
	return first && r.Origin != originTask
}

// err is how the turn ended: nil, *ResultError or *EndError. over must be closed.
func (t *turn) err(p *process) error {
	if p.job != nil && t.result != nil {
		<-p.done // a run is over when its CLI is
		if errors.Is(p.end, ErrDetached) {
			return p.end
		}
	}
	if t.result != nil {
		return t.result.failure(t.cause, p.opts)
	}
	if t.dropped {
		return &EndError{Err: errors.Join(ErrTakenBack, t.cause)}
	}
	<-p.done // only the CLI's end ends a turn without a result
	return p.end
}

// begin puts a turn behind those that go on. The caller holds mu.
func (p *process) begin(t *turn) {
	t.queue = p.queue // what came since the turn before
	if len(p.turns) > 0 {
		t.queue = newQueue(false)
	}
	p.turns = append(p.turns, t)
}

// endTurns ends the turns that ended says. What comes next goes to the first
// that is left, or waits for one. The caller holds mu.
func (p *process) endTurns(ended func(t *turn, first bool) bool) {
	var left []*turn
	for i, t := range p.turns {
		if !ended(t, i == 0) {
			left = append(left, t)
			continue
		}
		t.queue.end()
		close(t.over)
	}
	wasFirst := len(p.turns) > 0 && (len(left) == 0 || left[0] != p.turns[0])
	p.turns = left
	switch {
	case wasFirst && len(left) > 0:
		p.queue = left[0].queue
		p.queue.setFree(p.holds > 0)
	case wasFirst:
		p.queue = newQueue(p.holds > 0)
	}
	p.wake()
}

// waits reports whether other turns are before this one.
func (p *process) waits(t *turn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Index(p.turns, t) > 0
}

// drop ends a turn whose prompt was taken back.
func (p *process) drop(t *turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.dropped = true
	p.endTurns(func(other *turn, _ bool) bool { return other == t })
}
