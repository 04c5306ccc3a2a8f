package sandboxhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// put writes a file into the workspace of a sandbox.
func put(t *testing.T, p *place, path, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dirOf(p, path), name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// have reads a file of a workspace; "" is that there is none.
func have(t *testing.T, p *place, path, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dirOf(p, path), name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

func dirOf(p *place, path string) string {
	return boxOf(p, map[string]any{"id": strings.TrimPrefix(path, "/sandbox/")}).info.Dir
}

func idOf(v any) string { return v.(map[string]any)["id"].(string) }

// versions gives the ids of a volume's versions, newest first, over all pages.
func (s *server) versions(path, query string) (ids []string) {
	s.t.Helper()
	for cursor := ""; ; {
		page := s.ask(200, "GET", path+"/versions"+query+cursor, "")
		for _, v := range page["versions"].([]any) {
			ids = append(ids, idOf(v))
		}
		next, more := page["next_cursor"].(string)
		if !more {
			return ids
		}
		cursor = "&cursor=" + next
	}
}

func TestVersionsAreSavedListedAndRestored(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, volumesIn(new(storagetest.Memory)))
	box := s.create(`{"volume_name":"w"}`)
	if page := s.ask(200, "GET", box+"/versions", ""); len(page["versions"].([]any)) != 0 {
		t.Errorf("a new volume has %v", page)
	}
	put(t, p, box, "a.txt", "first")
	first := s.ask(201, "POST", box+"/sync", `{"note":"the first one"}`)
	if first["files"] != 1.0 || first["size"] != 5.0 || first["author"] != "acme" || first["note"] != "the first one" || first["conflict"] != false {
		t.Errorf("saved %v", first)
	}
	if got := s.ask(200, "GET", box, "")["version"]; idOf(got) != first["id"] {
		t.Errorf("the sandbox is at %v", got)
	}
	put(t, p, box, "a.txt", "second")
	put(t, p, box, "b.txt", "more")
	second := s.ask(201, "POST", box+"/sync", "")
	if second["parent"] != first["id"] || second["files"] != 2.0 {
		t.Errorf("saved %v after %v", second, first)
	}
	if got := s.versions(box, "?limit=1"); !slices.Equal(got, []string{idOf(second), idOf(first)}) {
		t.Errorf("listed %q", got)
	}
	restored := s.ask(200, "POST", box+"/restore", `{"version":"`+idOf(first)+`"}`)
	if restored["id"] != first["id"] || have(t, p, box, "a.txt") != "first" || have(t, p, box, "b.txt") != "" {
		t.Errorf("restored %v: a.txt %q, b.txt %q", restored, have(t, p, box, "a.txt"), have(t, p, box, "b.txt"))
	}
	// Going back is no conflict: what is saved now is the newest.
	third := s.ask(201, "POST", box+"/sync", `{"note":null}`)
	if third["parent"] != second["id"] {
		t.Errorf("saved %v on top of %v", third, second)
	}
	deleted := s.ask(200, "DELETE", box, "")["version"]
	if got := s.versions(box, "?"); len(got) != 4 || got[0] != idOf(deleted) { // of a sandbox that has ended, too
		t.Errorf("listed %q", got)
	}
}

func TestProgressOfSavesAndRestores(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, volumesIn(new(storagetest.Memory)))
	box := s.create(`{"volume_name":"w"}`)
	for i := range 30 {
		put(t, p, box, fmt.Sprintf("%d.txt", i), fmt.Sprintf("file %d", i))
	}
	events := s.follow("POST", box+"/sync", `{"note":"n"}`, "Accept", "text/event-stream").all()
	id := checkWork(t, events, "saving", "read")
	put(t, p, box, "0.txt", "changed")
	if got := checkWork(t, s.follow("POST", box+"/restore", `{"version":"`+id+`"}`, "Accept", "text/event-stream").all(), "restoring", "write"); got != id {
		t.Errorf("restored %s, want %s", got, id)
	}
	events = s.follow("POST", box+"/restore", `{"version":"20060102-150405.000000000-1-aaaaaaaa"}`, "Accept", "text/event-stream").all()
	if last := events[len(events)-1]; last.name != "problem" || !strings.Contains(last.data, `"not_found"`) || strings.Contains(last.data, `"request_id":""`) {
		t.Errorf("an unknown version: %+v", events)
	}
	events = s.follow("POST", "/sandbox", `{"volume_name":"w"}`, "Accept", "text/event-stream").all()
	if last := events[len(events)-1]; last.name != "sandbox" || !strings.Contains(last.data, id) {
		t.Errorf("made %+v", last)
	}
	var whole bool
	for _, e := range events[1 : len(events)-1] {
		whole = whole || strings.Contains(e.data, `"stage":"restoring","phase":"write","files":30,"total_files":30`)
	}
	if !whole {
		t.Errorf("a creation does not tell of its 30 files: %+v", events)
	}
}

// checkWork checks the events of a save or a restore and gives the version's id.
func checkWork(t *testing.T, events []event, stage, phase string) string {
	t.Helper()
	var result struct{ ID string }
	last := events[len(events)-1]
	if err := json.Unmarshal([]byte(last.data), &result); err != nil || last.name != "result" {
		t.Fatalf("%v: %+v", err, events)
	}
	seen := false
	for _, e := range events[:len(events)-1] {
		var p struct {
			Stage, Phase string
			Files        int64
			Total        int64 `json:"total_files"`
		}
		if err := json.Unmarshal([]byte(e.data), &p); err != nil || e.name != "progress" || e.id != 0 || p.Stage != stage || p.Files > p.Total {
			t.Errorf("%v: %+v", err, e)
		}
		seen = seen || p.Phase == phase && p.Files > 0 && p.Files == p.Total
	}
	if !seen {
		t.Errorf("no event of %s and %s tells of all files: %+v", stage, phase, events)
	}
	return result.ID
}

func TestVersionRequestsThatAreRefused(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, volumesIn(new(storagetest.Memory)))
	box, bare := s.create(`{"volume_name":"w"}`), s.create("")
	id := idOf(s.ask(201, "POST", box+"/sync", ""))
	for _, other := range []*server{s.as("other"), s.as("other viewer")} {
		other.refused(404, "not_found", "GET", box+"/versions", "")
	}
	s.as("other").refused(404, "not_found", "POST", box+"/sync", "")
	s.as("other").refused(404, "not_found", "POST", box+"/restore", `{"version":"`+id+`"}`)
	s.as("acme viewer").refused(403, "forbidden", "POST", box+"/sync", "")
	s.as("acme viewer").refused(403, "forbidden", "POST", box+"/restore", `{"version":"`+id+`"}`)
	if got := s.as("acme viewer").versions(box, "?"); !slices.Equal(got, []string{id}) {
		t.Errorf("a viewer sees %q", got)
	}
	s.refused(409, "no_volume", "GET", bare+"/versions", "")
	s.refused(409, "no_volume", "POST", bare+"/sync", "")
	s.refused(409, "no_volume", "POST", bare+"/restore", `{"version":"`+id+`"}`)
	s.refused(404, "not_found", "POST", box+"/restore", `{"version":"20060102-150405.000000000-1-aaaaaaaa"}`)
	s.refused(404, "not_found", "POST", box+"/restore", `{"version":"../x"}`)
	s.refused(405, "method_not_allowed", "GET", box+"/sync", "")
	for body, want := range map[string]string{
		`{"note":"` + strings.Repeat("x", 4097) + `"}`: "note",
		`{"parent":"../x"}`:                            "parent",
	} {
		if got := s.refused(422, "validation_failed", "POST", box+"/sync", body); !slices.Equal(got, []string{want}) {
			t.Errorf("%.40s: fields %q", body, got)
		}
	}
	if got := s.refused(422, "validation_failed", "POST", box+"/restore", ""); !slices.Equal(got, []string{"version"}) {
		t.Errorf("fields %q", got)
	}
	s.refused(400, "invalid_request", "POST", box+"/sync", `{"nonsense":1}`)
	s.refused(422, "validation_failed", "GET", box+"/versions?cursor=nonsense", "")
	s.refused(422, "validation_failed", "GET", box+"/versions?limit=0", "")
	s.ask(200, "DELETE", box, "")
	s.refused(409, "sandbox_ended", "POST", box+"/sync", "")
	s.refused(409, "sandbox_ended", "POST", box+"/restore", `{"version":"`+id+`"}`)
}

func TestTwoSandboxesThatSaveLoseNothing(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, volumesIn(new(storagetest.Memory)))
	start := s.create(`{"volume_name":"w"}`)
	put(t, p, start, "a.txt", "base")
	base := idOf(s.ask(200, "DELETE", start, "")["version"])
	one, two, three := s.create(`{"volume_name":"w"}`), s.create(`{"volume_name":"w"}`), s.create(`{"volume_name":"w"}`)
	put(t, p, one, "a.txt", "one")
	head := idOf(s.ask(201, "POST", one+"/sync", ""))

	put(t, p, two, "a.txt", "two")
	first := s.ask(409, "POST", two+"/sync", `{"note":"mine"}`, "Idempotency-Key", "k")
	kept := first["version"].(map[string]any)
	if first["code"] != "version_conflict" || first["head"] != head || kept["conflict"] != true || kept["parent"] != base || kept["note"] != "mine" {
		t.Errorf("%v", first)
	}
	again := s.ask(409, "POST", two+"/sync", `{"note":"mine"}`, "Idempotency-Key", "k")
	if idOf(again["version"]) != idOf(kept) {
		t.Errorf("the same request again made %v after %v", again["version"], kept)
	}
	events := s.follow("POST", two+"/sync", `{"note":"mine"}`, "Idempotency-Key", "k", "Accept", "text/event-stream").all()
	if len(events) != 1 || events[0].name != "problem" || !strings.Contains(events[0].data, idOf(kept)) {
		t.Errorf("and as events %+v", events)
	}
	if got := s.ask(200, "GET", two, "")["version"].(map[string]any); got["id"] != kept["id"] || got["conflict"] != true {
		t.Errorf("the sandbox is at %v", got)
	}
	if got := s.versions(two, "?"); !slices.Equal(got, []string{idOf(kept), head, base}) {
		t.Errorf("listed %q", got)
	}
	// A new sandbox gets the newest, and what was kept can be had.
	fresh := s.create(`{"volume_name":"w"}`)
	if got := have(t, p, fresh, "a.txt"); got != "one" {
		t.Errorf("a new sandbox has %q", got)
	}
	s.ask(200, "POST", fresh+"/restore", `{"version":"`+idOf(kept)+`"}`)
	if got := have(t, p, fresh, "a.txt"); got != "two" {
		t.Errorf("restored %q", got)
	}
	// Who has seen the newest can save on top of it.
	top := s.ask(201, "POST", two+"/sync", `{"parent":"`+head+`"}`)
	if top["parent"] != head {
		t.Errorf("saved %v", top)
	}
	// Deleting keeps the files too, and says how.
	put(t, p, three, "a.txt", "three")
	for range 2 {
		if got := s.ask(200, "DELETE", three, "")["version"].(map[string]any); got["conflict"] != true {
			t.Errorf("deleted: %v", got)
		}
	}
	if got := s.versions(two, "?"); len(got) != 5 {
		t.Errorf("listed %q", got)
	}
}

// A run and a save can go on together; a run and a restore cannot.
func TestRunsAndRestoresKeepApart(t *testing.T) {
	p := newPlace(t, func(p *player) {
		p.say("working")
		<-p.interrupted
		p.stopped()
	})
	bucket := &slow{Bucket: new(storagetest.Memory)}
	s := serve(t, p, volumesIn(bucket))
	box := s.create(`{"volume_name":"w"}`)
	put(t, p, box, "a.txt", "a")
	f := s.prompt(box, "go")
	f.must()
	id := idOf(s.ask(201, "POST", box+"/sync", ""))
	restore := `{"version":"` + id + `"}`
	s.refused(409, "run_in_progress", "POST", box+"/restore", restore)
	s.ask(202, "POST", f.run(box)+"/interrupt", "")
	f.end()

	bucket.hold()
	restoring := make(chan int, 1)
	go func() { restoring <- s.request("POST", box+"/restore", restore).StatusCode }()
	<-bucket.asked
	s.refused(409, "volume_busy", "POST", box+"/claude", `{"prompt":"go"}`)
	s.refused(409, "volume_busy", "POST", box+"/restore", restore)
	s.refused(409, "volume_busy", "POST", box+"/sync", "")
	bucket.release()
	if got := <-restoring; got != 200 {
		t.Errorf("restored with %d", got)
	}
	f = s.prompt(box, "go")
	f.must()
	s.ask(202, "POST", f.run(box)+"/interrupt", "")
	f.end()
	s.ask(200, "POST", box+"/restore", restore)
}

// slow is a bucket whose answers can be held up.
type slow struct {
	storage.Bucket
	mu    sync.Mutex
	gate  chan struct{}
	asked chan struct{}
}

func (b *slow) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gate, b.asked = make(chan struct{}), make(chan struct{})
}

func (b *slow) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.gate)
	b.gate = nil
}

func (b *slow) wait(ctx context.Context) error {
	b.mu.Lock()
	gate := b.gate
	if gate != nil {
		select {
		case <-b.asked:
		default:
			close(b.asked)
		}
	}
	b.mu.Unlock()
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *slow) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := b.wait(ctx); err != nil {
		return nil, err
	}
	return b.Bucket.Get(ctx, key, offset, length)
}

func (b *slow) Put(ctx context.Context, key string, r io.Reader, opts *storage.PutOptions) error {
	if err := b.wait(ctx); err != nil {
		return err
	}
	return b.Bucket.Put(ctx, key, r, opts)
}

func TestDeleteWaitsForASave(t *testing.T) {
	p := newPlace(t, talk)
	bucket := &slow{Bucket: new(storagetest.Memory)}
	s := serve(t, p, volumesIn(bucket))
	box := s.create(`{"volume_name":"w"}`)
	put(t, p, box, "a.txt", "a")
	bucket.hold()
	saving, deleting := make(chan map[string]any, 1), make(chan map[string]any, 1)
	go func() { saving <- s.ask(201, "POST", box+"/sync", `{"note":"before"}`) }()
	<-bucket.asked
	go func() { deleting <- s.ask(200, "DELETE", box, "") }()
	until(t, "the deletion goes on", func() bool {
		return s.request("POST", box+"/sync", "").StatusCode == 409 && s.ask(409, "POST", box+"/sync", "")["code"] == "sandbox_ended"
	})
	bucket.release()
	saved, deleted := <-saving, <-deleting
	if got := s.versions(box, "?"); !slices.Equal(got, []string{idOf(deleted["version"]), idOf(saved)}) {
		t.Errorf("listed %q; saved %v, deleted %v", got, saved, deleted)
	}
}

func TestDeleteWithoutSyncEndsASave(t *testing.T) {
	p := newPlace(t, talk)
	bucket := &slow{Bucket: new(storagetest.Memory)}
	s := serve(t, p, volumesIn(bucket))
	box := s.create(`{"volume_name":"w"}`)
	put(t, p, box, "a.txt", "a")
	bucket.hold()
	saving := make(chan map[string]any, 1)
	go func() { saving <- s.ask(409, "POST", box+"/sync", "") }()
	<-bucket.asked
	s.ask(200, "DELETE", box+"?sync=false", "")
	if got := <-saving; got["code"] != "sandbox_ended" {
		t.Errorf("%v", got)
	}
	bucket.release()
	if got := s.versions(box, "?"); len(got) != 0 {
		t.Errorf("listed %q", got)
	}
}

// Two restores at once would spoil the files: what was given up keeps its place
// until it has ended.
func TestSaveThatTakesTooLongKeepsItsPlace(t *testing.T) {
	bucket := newMute(t, "put")
	p := newPlace(t, talk)
	s := serve(t, p, limitedTo(2*time.Second, bucket))
	box := s.create(`{"volume_name":"w"}`)
	problem := s.ask(502, "POST", box+"/sync", "")
	if problem["code"] != "sync_failed" || !strings.Contains(problem["detail"].(string), "2s") || problem["retryable"] != true {
		t.Errorf("%v", problem)
	}
	s.refused(409, "volume_busy", "POST", box+"/sync", "")
	s.ask(200, "DELETE", box+"?sync=false", "")
}

// Closing the connection does not end a save, and its key gives its answer.
func TestClosingTheConnectionDoesNotCancelASave(t *testing.T) {
	p := newPlace(t, talk)
	bucket := &slow{Bucket: new(storagetest.Memory)}
	s := serve(t, p, volumesIn(bucket))
	box := s.create(`{"volume_name":"w"}`)
	put(t, p, box, "a.txt", "a")
	bucket.hold()
	f := s.follow("POST", box+"/sync", "", "Accept", "text/event-stream", "Idempotency-Key", "k")
	<-bucket.asked
	s.refused(409, "idempotency_in_flight", "POST", box+"/sync", "", "Idempotency-Key", "k")
	f.close()
	bucket.release()
	until(t, "it is saved", func() bool { return len(s.versions(box, "?")) == 1 })
	until(t, "its key is settled", func() bool { return s.request("POST", box+"/sync", "", "Idempotency-Key", "k").StatusCode == 201 })
	if got := s.versions(box, "?"); len(got) != 1 {
		t.Errorf("listed %q", got)
	}
}

func TestDamagedVersions(t *testing.T) {
	p := newPlace(t, talk)
	bucket := new(storagetest.Memory)
	s := serve(t, p, volumesIn(bucket))
	box := s.create(`{"volume_name":"w"}`)
	put(t, p, box, "a.txt", "a")
	id := idOf(s.ask(201, "POST", box+"/sync", ""))
	put(t, p, box, "a.txt", "b")
	newer := idOf(s.ask(201, "POST", box+"/sync", ""))
	spoil(t, bucket, "/_packs/")
	problem := s.ask(502, "POST", box+"/restore", `{"version":"`+id+`"}`)
	if problem["code"] != "restore_failed" || problem["retryable"] != false || !strings.Contains(problem["detail"].(string), "damaged") {
		t.Errorf("%v", problem)
	}
	if got := have(t, p, box, "a.txt"); got != "b" {
		t.Errorf("a restore that failed left %q", got)
	}
	if !strings.Contains(s.log.String(), "_packs/") {
		t.Errorf("the log does not name the object: %s", s.log)
	}
	spoil(t, bucket, "/_versions/0000000001")
	page := s.ask(200, "GET", box+"/versions", "")
	if list := page["versions"].([]any); len(list) != 1 || idOf(list[0]) != newer || page["unreadable"] != 1.0 {
		t.Errorf("%v", page)
	}
}

// spoil flips a bit of every object whose key has a part.
func spoil(t *testing.T, bucket storage.Bucket, part string) {
	t.Helper()
	for o, err := range bucket.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(o.Key, part) {
			continue
		}
		r, err := bucket.Get(t.Context(), o.Key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := bucket.Put(t.Context(), o.Key, strings.NewReader(string(data)), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFailuresOfAVolume(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, volumesIn(&readOnly{Bucket: new(storagetest.Memory)}))
	box := s.create(`{"volume_name":"w"}`)
	s.refused(502, "sync_failed", "POST", box+"/sync", "", "Idempotency-Key", "k")
	s.refused(502, "sync_failed", "POST", box+"/sync", "", "Idempotency-Key", "k") // tried again

	volumes := volumesIn(new(storagetest.Memory))
	first := serve(t, p, volumes)
	own := first.create(`{"volume_name":"w","s3":{"bucket":"b","endpoint":"https://s3.example.com","access_key_id":"AKIDENT","secret_access_key":"hush-hush"}}`)
	first.close()
	anew := serve(t, p, volumes)
	problem := anew.ask(502, "GET", own+"/versions", "")
	if problem["code"] != "volume_failed" || !strings.Contains(problem["detail"].(string), "keys") || problem["retryable"] != false {
		t.Errorf("%v", problem)
	}
}

// A version is by who saved it.
func TestAuthorIsThePrincipal(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, func(c *sandboxhttp.Config) {
		volumesIn(new(storagetest.Memory))(c)
		c.Auth = func(r *http.Request) (*sandboxhttp.Principal, error) {
			who, err := byHeader(r)
			if who != nil {
				who.Name = r.Header.Get("X-Test-Name")
			}
			return who, err
		}
	})
	box := s.create(`{"volume_name":"w"}`)
	if got := s.ask(201, "POST", box+"/sync", "", "X-Test-Name", "Ann"); got["author"] != "Ann" {
		t.Errorf("%v", got)
	}
	s.ask(200, "DELETE", box, "", "X-Test-Name", "Bob")
	page := s.ask(200, "GET", box+"/versions", "")
	if got := page["versions"].([]any)[0].(map[string]any)["author"]; got != "Bob" {
		t.Errorf("the last is by %v", got)
	}
}
