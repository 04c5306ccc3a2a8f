package claude

import (
	"slices"
)

// originTask is Result.Origin of a turn that finished work in the background
// brought about.
const originTask = "task-notification"

// turn is a prompt on its way to its result.
type turn struct {
	id    string // the prompt's
	queue *queue
	over  chan struct{} // closed when no more lines come

	// The rest is guarded by process.mu until over is closed.
	result *ResultMessage
	cause  error // the context's error, when its end stopped the turn
}

// endedBy reports whether a result is the prompt's. Results of work in the
// background, and of prompts before, are not. Results name their prompts; where
// one does not, as when a conversation to resume is not there, it is taken.
func (t *turn) endedBy(r *ResultMessage) bool {
	if len(r.PromptIDs) > 0 {
		return slices.Contains(r.PromptIDs, t.id)
	}
	return r.Origin != originTask
}

// err is how the turn ended: nil, *ResultError or *EndError. over must be closed.
func (t *turn) err(p *process) error {
	if t.result != nil {
		return t.result.failure(t.cause)
	}
	<-p.done // only the CLI's end ends a turn without a result
	return p.end
}
