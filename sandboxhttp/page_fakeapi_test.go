package sandboxhttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeAPI speaks docs/http.md from memory, and does what the test says when the test says it.
type fakeAPI struct {
	t       *testing.T
	mux     *http.ServeMux
	started chan *fakeRun // every run that a prompt began

	mu       sync.Mutex
	token    string // asked for when not empty
	boxes    []*fakeBox
	creation chan string      // frames of the next creation, until it is closed; nil: at once
	problems map[string][]any // by route: answered once each, first to last
	created  []map[string]any
	deleted  []string
	keys     map[string]*fakeRun
	work     chan string // frames of the next save or restore, until it is closed; nil: at once
	saved    []map[string]any
	restored []string
	held     chan chan struct{} // of each GET /sandbox/{id}: waits until what it sends is closed; nil: at once
}

type fakeBox struct {
	fields   map[string]any
	runs     []*fakeRun
	versions []map[string]any // newest first
}

func newFakeAPI(t *testing.T) *fakeAPI {
	f := &fakeAPI{t: t, mux: http.NewServeMux(), started: make(chan *fakeRun, 16), problems: map[string][]any{}, keys: map[string]*fakeRun{}}
	for route, h := range map[string]http.HandlerFunc{
		"GET /sandbox": f.list, "POST /sandbox": f.create, "GET /sandbox/{id}": f.get, "DELETE /sandbox/{id}": f.remove,
		"POST /sandbox/{id}/claude": f.claude, "GET /sandbox/{id}/runs": f.runs, "GET /sandbox/{id}/runs/{run}/events": f.events,
		"GET /sandbox/{id}/runs/{run}": f.getRun, "POST /sandbox/{id}/runs/{run}/answer": f.answer,
		"POST /sandbox/{id}/runs/{run}/interrupt": f.interrupt,
		"GET /sandbox/{id}/versions":              f.versions, "POST /sandbox/{id}/sync": f.sync, "POST /sandbox/{id}/restore": f.restore,
	} {
		f.mux.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) {
			if !f.refused(w, r, route) {
				h(w, r)
			}
		})
	}
	return f
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.mux.ServeHTTP(w, r) }

// refuse makes the next request to a route fail. A nil problem breaks the connection.
func (f *fakeAPI) refuse(route string, problem map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems[route] = append(f.problems[route], problem)
}

// accept takes back what refuse said of a route.
func (f *fakeAPI) accept(route string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.problems, route)
}

func (f *fakeAPI) refused(w http.ResponseWriter, r *http.Request, route string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.token != "" && r.Header.Get("Authorization") != "Bearer "+f.token {
		writeProblem(w, map[string]any{"status": 401, "code": "unauthenticated", "title": "Unauthorized"})
		return true
	}
	list := f.problems[route]
	if len(list) == 0 {
		return false
	}
	f.problems[route] = list[1:]
	if p := list[0].(map[string]any); p != nil {
		writeProblem(w, p)
		return true
	}
	panic(http.ErrAbortHandler)
}

func writeProblem(w http.ResponseWriter, p map[string]any) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p["status"].(int))
	json.NewEncoder(w).Encode(p)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// add puts a running sandbox into the account.
func (f *fakeAPI) add(id string, fields map[string]any) *fakeBox {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.addLocked(id, fields)
}

func (f *fakeAPI) addLocked(id string, fields map[string]any) *fakeBox {
	box := &fakeBox{fields: map[string]any{
		"id": id, "name": id, "state": "running", "isolated": true, "created_at": time.Now().Add(-time.Minute),
		"expires_at": time.Now().Add(time.Hour),
	}}
	for k, v := range fields {
		box.fields[k] = v
	}
	f.boxes = slices.Insert(f.boxes, 0, box)
	return box
}

func (f *fakeAPI) box(r *http.Request) *fakeBox {
	for _, b := range f.boxes {
		if b.fields["id"] == r.PathValue("id") {
			return b
		}
	}
	return nil
}

func (f *fakeAPI) list(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := []any{}
	for _, b := range f.boxes {
		all = append(all, b.fields)
	}
	writeJSON(w, map[string]any{"sandboxes": all})
}

func (f *fakeAPI) get(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	held := f.held
	f.mu.Unlock()
	if held != nil && !hold(r.Context(), held) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.box(r)
	if b == nil {
		writeProblem(w, map[string]any{"status": 404, "code": "not_found", "title": "Not Found"})
		return
	}
	writeJSON(w, b.fields)
}

// hold tells that a request has come, and waits until it may be answered. It reports
// false where nobody waits for that any more.
func hold(ctx context.Context, held chan<- chan struct{}) bool {
	release := make(chan struct{})
	select {
	case held <- release:
	case <-ctx.Done():
		return false
	}
	select {
	case <-release:
		return true
	case <-ctx.Done():
		return false
	}
}

func (f *fakeAPI) create(w http.ResponseWriter, r *http.Request) {
	var config map[string]any
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &config); err != nil {
		f.t.Errorf("POST /sandbox: %v", err)
	}
	f.mu.Lock()
	f.created = append(f.created, config)
	frames := f.creation
	f.mu.Unlock()
	stream(w)
	for frames != nil {
		select {
		case frame, more := <-frames:
			if !more {
				frames = nil
			}
			io.WriteString(w, frame)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fields := map[string]any{"name": config["name"], "volume_name": config["volume_name"]}
	b := f.addLocked(fmt.Sprintf("made-%d", len(f.created)), fields)
	made, _ := json.Marshal(b.fields)
	fmt.Fprintf(w, "event: sandbox\ndata: %s\n\ndata: [DONE]\n\n", made)
}

func (f *fakeAPI) remove(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.box(r)
	f.deleted = append(f.deleted, r.URL.RequestURI())
	b.fields["state"], b.fields["end"], b.fields["ended_at"] = "ended", "cancelled", time.Now()
	writeJSON(w, map[string]any{"id": b.fields["id"], "version": map[string]any{"id": "v1"}})
}

func stream(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
}

func (f *fakeAPI) claude(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		f.t.Errorf("POST claude: %v", err)
	}
	key := r.Header.Get("Idempotency-Key")
	f.mu.Lock()
	run := f.keys[key]
	if run == nil {
		box := f.box(r)
		run = box.addRun(body["prompt"].(string))
		run.body = body
		f.keys[key] = run
		f.started <- run
	}
	f.mu.Unlock()
	w.Header().Set("Vivarium-Run", run.id)
	run.serve(w, r, 0)
}

func (f *fakeAPI) runs(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := []any{}
	for _, run := range f.box(r).runs {
		all = append(all, run.record())
	}
	writeJSON(w, map[string]any{"runs": all})
}

func (f *fakeAPI) getRun(w http.ResponseWriter, r *http.Request) { writeJSON(w, f.run(r).record()) }

func (f *fakeAPI) run(r *http.Request) *fakeRun {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, run := range f.box(r).runs {
		if run.id == r.PathValue("run") {
			return run
		}
	}
	f.t.Errorf("%s: no such run", r.URL)
	panic(http.ErrAbortHandler)
}

func (f *fakeAPI) events(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.Atoi(r.URL.Query().Get("after"))
	if err != nil {
		f.t.Errorf("%s: %v", r.URL, err)
	}
	run := f.run(r)
	run.mu.Lock()
	run.asked = append(run.asked, after)
	run.mu.Unlock()
	run.serve(w, r, after)
}

func (f *fakeAPI) answer(w http.ResponseWriter, r *http.Request) {
	run := f.run(r)
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		f.t.Errorf("POST answer: %v", err)
	}
	id, _ := body["question"].(string)
	run.mu.Lock()
	defer run.mu.Unlock()
	if settled, ok := run.questions.settle(id); !ok {
		status, code := 404, "not_found"
		if settled {
			status, code = 409, "answered"
		}
		writeProblem(w, map[string]any{"status": status, "code": code, "title": http.StatusText(status)})
		return
	}
	run.answers = append(run.answers, body)
	w.WriteHeader(http.StatusNoContent)
}

// fakeQuestions are those of a run, as GET …/runs/{run} gives the open ones.
type fakeQuestions struct {
	open    []map[string]any
	settled map[string]bool
}

// settle closes the one of an id. Else it says whether that was closed before.
func (q *fakeQuestions) settle(id string) (before, ok bool) {
	i := slices.IndexFunc(q.open, func(one map[string]any) bool { return one["id"] == id })
	if i < 0 {
		return q.settled[id], false
	}
	q.open = slices.Delete(q.open, i, i+1)
	if q.settled == nil {
		q.settled = map[string]bool{}
	}
	q.settled[id] = true
	return false, true
}

func (f *fakeAPI) interrupt(w http.ResponseWriter, r *http.Request) {
	run := f.run(r)
	w.WriteHeader(http.StatusAccepted)
	run.push(`{"type":"user","message":{"role":"user","content":[{"type":"text","text":"[Request interrupted by user]"}]}}`)
	run.end("cancelled", "")
}

// fakeRun is a run whose events the test writes.
type fakeRun struct {
	id, prompt string
	body       map[string]any

	mu        sync.Mutex
	frames    []string
	ended     string
	asked     []int // the ids after which events were asked for
	wake      chan struct{}
	cut       chan struct{}
	half      string // written before the connection is cut
	clean     bool   // it ends as a stream should
	questions fakeQuestions
	answers   []map[string]any // that were taken
}

func (b *fakeBox) addRun(prompt string) *fakeRun {
	run := &fakeRun{id: fmt.Sprintf("run-%d", len(b.runs)+1), prompt: prompt, wake: make(chan struct{}), cut: make(chan struct{})}
	b.runs = append(b.runs, run)
	return run
}

func (run *fakeRun) record() map[string]any {
	run.mu.Lock()
	defer run.mu.Unlock()
	rec := map[string]any{"id": run.id, "prompt": run.prompt, "state": "running", "session_id": "session-1", "started_at": time.Now(), "events": len(run.frames)}
	if len(run.questions.open) > 0 {
		rec["questions"] = slices.Clone(run.questions.open)
	}
	if run.ended != "" {
		rec["state"], rec["end"] = "ended", run.ended
	}
	return rec
}

func (run *fakeRun) frame(format string, args ...any) {
	run.frames = append(run.frames, fmt.Sprintf("id: %d\n", len(run.frames)+1)+fmt.Sprintf(format, args...)+"\n\n")
	close(run.wake)
	run.wake = make(chan struct{})
}

// push writes lines of the CLI.
func (run *fakeRun) push(lines ...string) {
	run.mu.Lock()
	defer run.mu.Unlock()
	for _, line := range lines {
		run.frame("data: %s", line)
	}
}

// end writes the last event.
func (run *fakeRun) end(end, message string) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.ended, run.questions.open = end, nil
	data, _ := json.Marshal(map[string]any{"end": end, "error": message, "session_id": "session-1", "cost_usd": 0.0231, "num_turns": 2})
	run.frame("event: end\ndata: %s", data)
}

// ask writes a question of Claude's about a tool use, which waits from then on.
func (run *fakeRun) ask(id, tool string, input any, more map[string]any) {
	request := map[string]any{"subtype": "can_use_tool", "tool_name": tool, "input": input, "tool_use_id": id}
	maps.Copy(request, more)
	run.mu.Lock()
	defer run.mu.Unlock()
	run.questions.open = append(run.questions.open, map[string]any{
		"id": id, "tool": tool, "input": input, "title": request["title"], "description": request["description"], "reason": request["decision_reason"],
		"asked_at": time.Now(),
	})
	run.frame("event: control\ndata: %s", quote(map[string]any{"type": "control_request", "request_id": "ask-" + id, "request": request}))
}

// takeBack is Claude's word that a question needs no answer any more.
func (run *fakeRun) takeBack(id string) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.questions.settle(id)
	run.frame("event: control\ndata: %s", quote(map[string]any{"type": "control_cancel_request", "request_id": "ask-" + id}))
}

// answerElsewhere settles a question as another client does.
func (run *fakeRun) answerElsewhere(id string) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.questions.settle(id)
}

func (run *fakeRun) answered() []map[string]any {
	run.mu.Lock()
	defer run.mu.Unlock()
	return slices.Clone(run.answers)
}

// sever cuts every connection that reads the run, after writing half to it.
func (run *fakeRun) sever(half string) { run.interruptStreams(half, false) }

// reconnect ends every stream of the run as a server does that ends.
func (run *fakeRun) reconnect() { run.interruptStreams("event: reconnect\ndata: {}\n\n", true) }

func (run *fakeRun) interruptStreams(last string, clean bool) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.half, run.clean = last, clean
	close(run.cut)
	run.cut = make(chan struct{})
}

func (run *fakeRun) serve(w http.ResponseWriter, r *http.Request, after int) {
	run.mu.Lock()
	if run.ended != "" && after >= len(run.frames) {
		run.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
		return
	}
	cut := run.cut
	run.mu.Unlock()
	stream(w)
	for {
		run.mu.Lock()
		frames, ended, wake := strings.Join(run.frames[after:], ""), run.ended != "", run.wake
		after = len(run.frames)
		run.mu.Unlock()
		io.WriteString(w, frames)
		if ended {
			io.WriteString(w, "data: [DONE]\n\n")
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-wake:
		case <-cut:
			run.mu.Lock()
			defer run.mu.Unlock()
			io.WriteString(w, run.half)
			w.(http.Flusher).Flush()
			if run.clean {
				return
			}
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
			return
		}
	}
}

func (run *fakeRun) askedAfter() []int {
	run.mu.Lock()
	defer run.mu.Unlock()
	return slices.Clone(run.asked)
}

// next waits for the run that the page's next message begins.
func (f *fakeAPI) next() *fakeRun {
	f.t.Helper()
	select {
	case run := <-f.started:
		return run
	case <-time.After(patience):
		f.t.Fatal("no run was begun")
		return nil
	}
}

func quote(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// The CLI's lines, as it writes them with --include-partial-messages.

func lineInit() string {
	return `{"type":"system","subtype":"init","session_id":"session-1","model":"claude-opus-5-5","tools":["Bash"]}`
}

func lineStart(id string) string {
	return `{"type":"stream_event","parent_tool_use_id":null,"event":{"type":"message_start","message":{"id":` + quote(id) + `,"role":"assistant","content":[]}}}`
}

func lineBlock(index int, kind string) string {
	return fmt.Sprintf(`{"type":"stream_event","parent_tool_use_id":null,"event":{"type":"content_block_start","index":%d,"content_block":{"type":%q}}}`, index, kind)
}

func lineDelta(index int, text string) string {
	return fmt.Sprintf(`{"type":"stream_event","parent_tool_use_id":null,"event":{"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":%s}}}`, index, quote(text))
}

func lineThink(index int, text string) string {
	return fmt.Sprintf(`{"type":"stream_event","parent_tool_use_id":null,"event":{"type":"content_block_delta","index":%d,"delta":{"type":"thinking_delta","thinking":%s}}}`, index, quote(text))
}

func lineText(id, text string) string {
	return `{"message":{"id":` + quote(id) + `,"content":[{"type":"text","text":` + quote(text) + `}]},"type":"assistant","session_id":"session-1"}`
}

func lineThought(id, text string, ms int) string {
	return fmt.Sprintf(`{"message":{"id":%q,"content":[{"type":"thinking","thinking":%s}]},"type":"assistant","thinking_duration_ms":%d}`, id, quote(text), ms)
}

func lineTool(id, tool, name string, input any) string {
	return `{"message":{"id":` + quote(id) + `,"content":[{"type":"tool_use","id":` + quote(tool) + `,"name":` + quote(name) + `,"input":` + quote(input) + `}]},"type":"assistant"}`
}

func lineToolResult(tool, content string, failed bool) string {
	return fmt.Sprintf(`{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":%q,"content":%s,"is_error":%t}]}}`, tool, quote(content), failed)
}

func lineDone() string {
	return `{"duration_ms":4200,"num_turns":2,"type":"result","subtype":"success","is_error":false,"total_cost_usd":0.0231}`
}
