package sandboxhttp

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/internal/eventlog"
	"github.com/vivarium-go/vivarium/storage"
)

// task is work that no connection owns, for as many as want to know how it goes.
type task struct {
	claim     *claim
	requestID string
	last      lastEvents
	log       *eventlog.Log // its progress, and then how it went
	done      chan struct{}

	// Set before done is closed.
	answer *answer
	err    error
}

// lastEvents are the names of the event that a task's log ends with.
type lastEvents struct{ result, problem string }

// progressBytes is how much of a task's progress is kept for who reads it late.
const progressBytes = 256 << 10

func newTask(r *http.Request, last lastEvents, claim *claim) *task {
	return &task{
		claim: claim, requestID: requestID(r.Context()), last: last,
		log: eventlog.NewPlain(progressBytes), done: make(chan struct{}),
	}
}

// pastTask stands for one that was answered before, under the same key.
func (h *Handler) pastTask(r *http.Request, last lastEvents, prior *answer) *task {
	t := newTask(r, last, nil)
	if prior.problem == nil {
		h.settleTask(t, prior, nil)
		return t
	}
	again := *prior.problem
	again.RequestID = "" // this request has its own
	h.settleTask(t, nil, &again)
	return t
}

// answerTask waits for a task to end, telling how it goes if the client wants
// events.
func (h *Handler) answerTask(w http.ResponseWriter, r *http.Request, t *task) error {
	if wantsEvents(r) {
		return h.stream(w, r, t.log, 0)
	}
	select {
	case <-t.done:
	case <-r.Context().Done():
		return nil // nobody is there to be answered
	}
	if t.err != nil {
		return t.err
	}
	if t.answer.location != "" {
		w.Header().Set("Location", t.answer.location)
	}
	h.writeJSON(w, t.answer.status, t.answer.body)
	return nil
}

func wantsEvents(r *http.Request) bool {
	return strings.Contains(strings.ToLower(strings.Join(r.Header.Values("Accept"), ",")), "text/event-stream")
}

// settleTask tells everybody how it went. An error gives the key back, unless it
// says that something was made.
func (h *Handler) settleTask(t *task, given *answer, err error) {
	if err == nil {
		t.answer = given
		t.claim.settle(given)
		t.log.End(t.last.result, given.body)
		close(t.done)
		return
	}
	ctx := context.WithValue(context.Background(), requestIDKey{}, t.requestID)
	reported := h.report(ctx, err)
	if reported.Version != nil {
		given = &answer{problem: reported}
	} else {
		given = nil
	}
	t.err = reported
	t.claim.settle(given)
	t.log.End(t.last.problem, trimLine(reported.encode()))
	close(t.done)
}

func trimLine(data []byte) []byte { return data[:len(data)-1] }

// progressEvery is how often clients hear of progress within a phase.
const progressEvery = 250 * time.Millisecond

// progress is a storage.Progress as clients read it.
type progress struct {
	Stage      string        `json:"stage"`
	Phase      storage.Phase `json:"phase"`
	Files      int64         `json:"files"`
	TotalFiles int64         `json:"total_files"`
	Bytes      int64         `json:"bytes"`
	TotalBytes int64         `json:"total_bytes"`
}

// tell gives a storage.Options.Progress that puts what it hears into the log.
func (t *task) tell(stage string) func(storage.Progress) {
	var told progress
	var at time.Time
	return func(p storage.Progress) {
		now := progress{stage, p.Phase, p.Files, p.TotalFiles, p.Bytes, p.TotalBytes}
		whole := now.Files == now.TotalFiles && now.Bytes == now.TotalBytes
		if now == told || now.Phase == told.Phase && !whole && time.Since(at) < progressEvery {
			return
		}
		told, at = now, time.Now()
		t.log.Append("progress", mustJSON(now))
	}
}
