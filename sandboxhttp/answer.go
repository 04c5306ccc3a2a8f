package sandboxhttp

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/claude"
)

// Question is one of Claude that waits for an answer: whether a tool may be used.
type Question struct {
	ID          string          `json:"id"` // the tool use's; what an answer names
	Tool        string          `json:"tool"`
	Input       json.RawMessage `json:"input,omitempty"`
	Title       string          `json:"title,omitempty"`
	Description string          `json:"description,omitempty"`
	Reason      string          `json:"reason,omitempty"`
	AskedAt     time.Time       `json:"asked_at"` // by this server
}

// questions are those of a run. The zero value has none.
type questions struct {
	mu      sync.Mutex
	open    map[string]*question // by id
	settled map[string]bool      // those that were answered
}

type question struct {
	Question
	suggestions []claude.PermissionUpdate
	answer      chan *claude.Permission // has room for one
}

// asks makes the run ask clients, unless the server answers by itself or nobody is to be
// asked.
func (r *run) asks(o *claude.Options) {
	switch o.PermissionMode {
	case claude.PermissionBypass, claude.PermissionDontAsk:
		return
	}
	if o.CanUseTool == nil && o.PermissionTool == "" && !o.NoPrompts {
		o.CanUseTool = r.asked.ask
	}
}

// ask waits for a client's answer. A question that was taken back, or is to be asked by
// another server, is forgotten.
func (q *questions) ask(ctx context.Context, use *claude.ToolRequest) (*claude.Permission, error) {
	asked := &question{
		Question: Question{
			ID: use.ToolUseID, Tool: use.Tool, Input: use.Input, Title: use.Title, Description: use.Description,
			Reason: use.Reason, AskedAt: time.Now().UTC(),
		},
		suggestions: use.Suggestions, answer: make(chan *claude.Permission, 1),
	}
	q.mu.Lock()
	if q.open == nil {
		q.open, q.settled = map[string]*question{}, map[string]bool{}
	}
	q.open[asked.ID] = asked
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.open[asked.ID] == asked {
			delete(q.open, asked.ID)
		}
	}()
	select {
	case permission := <-asked.answer:
		return permission, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// list gives those that are open, the oldest first.
func (q *questions) list() []Question {
	q.mu.Lock()
	defer q.mu.Unlock()
	var list []Question
	for _, asked := range q.open {
		list = append(list, asked.Question)
	}
	slices.SortFunc(list, func(a, b Question) int {
		return cmp.Or(a.AskedAt.Compare(b.AskedAt), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// settle answers a question, once.
func (q *questions) settle(a *answerRequest) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	asked := q.open[a.id]
	switch {
	case q.settled[a.id]:
		return newProblem(http.StatusConflict, codeAnswered, "the question was answered before")
	case asked == nil:
		return newProblem(http.StatusNotFound, codeNotFound, "the run has no such question that waits; see its questions")
	}
	delete(q.open, a.id)
	q.settled[a.id] = true
	asked.answer <- a.permission(asked.suggestions)
	return nil
}

// answerRequest is the body of POST /sandbox/{id}/runs/{run}/answer.
type answerRequest struct {
	id        string
	allow     *bool
	remember  bool
	interrupt bool
	message   string
	input     json.RawMessage
}

func parseAnswer(body []byte) (*answerRequest, error) {
	a := &answerRequest{}
	err := decodeBody(body, map[string]any{
		"question": &a.id, "allow": &a.allow, "remember": &a.remember, "interrupt": &a.interrupt,
		"message": &a.message, "input": &a.input,
	})
	if err != nil {
		return nil, err
	}
	var bad fieldErrors
	bad.when(a.id == "", "question", "use the id of one of the run's questions")
	bad.when(a.allow == nil, "allow", "say true or false")
	allowed := a.allow != nil && *a.allow
	bad.when(!allowed && (a.remember || a.input != nil), "allow", "remember and input go with true only")
	bad.when(allowed && (a.message != "" || a.interrupt), "allow", "message and interrupt go with false only")
	bad.when(a.input != nil && a.input[0] != '{', "input", "use an object")
	return a, bad.problem(http.StatusUnprocessableEntity, codeValidationFailed, "some fields cannot be taken as they are")
}

func (a *answerRequest) permission(suggestions []claude.PermissionUpdate) *claude.Permission {
	p := &claude.Permission{Allowed: *a.allow, Message: a.message, Interrupt: a.interrupt}
	if a.input != nil {
		p.Input = a.input
	}
	if a.remember {
		p.Remember = suggestions
	}
	return p
}

func (h *Handler) answerRun(w http.ResponseWriter, r *http.Request, p *Principal) error {
	body, err := h.readBody(w, r)
	if err != nil {
		return err
	}
	a, err := parseAnswer(body)
	if err != nil {
		return err
	}
	rec, live, err := h.findRun(r, p)
	if err != nil {
		return err
	}
	claim, prior, err := h.keys.claim(r, p.Account, body)
	if err != nil {
		return err
	}
	var given *answer
	defer func() { claim.settle(given) }()
	switch {
	case prior != nil:
	case live != nil && !live.hasEnded():
		err = live.asked.settle(a)
	case live == nil && rec.State == StateRunning:
		err = lookedAfterElsewhere()
	default:
		err = newProblem(http.StatusConflict, codeRunEnded, "the run has ended")
	}
	if err != nil {
		return err
	}
	given = &answer{status: http.StatusNoContent}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// lookedAfterElsewhere is what a client is told that reached a server which cannot ask
// the run: behind a balancer the next try may reach the one that can.
func lookedAfterElsewhere() error {
	return newProblem(http.StatusServiceUnavailable, codeElsewhere, "another server looks after this run; ask again")
}
