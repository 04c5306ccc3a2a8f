package sandboxhttp_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// mute is a bucket that never answers, whatever its context says, to those
// operations that have a gate. The test opens them at its end.
type mute struct {
	storage.Bucket
	put, list chan struct{}
	asked     chan struct{} // closed by the first operation that gets no answer
	once      sync.Once
}

func newMute(t *testing.T, op string) *mute {
	gate := make(chan struct{})
	t.Cleanup(func() { close(gate) })
	m := &mute{Bucket: new(storagetest.Memory), asked: make(chan struct{})}
	if op == "put" {
		m.put = gate
	} else {
		m.list = gate
	}
	return m
}

func (m *mute) wait(gate chan struct{}) error {
	if gate == nil {
		return nil
	}
	m.once.Do(func() { close(m.asked) })
	<-gate
	return errors.New("the test is over")
}

func (m *mute) Put(ctx context.Context, key string, r io.Reader, opts *storage.PutOptions) error {
	if err := m.wait(m.put); err != nil {
		return err
	}
	return m.Bucket.Put(ctx, key, r, opts)
}

func (m *mute) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		if err := m.wait(m.list); err != nil {
			yield(storage.Object{}, err)
			return
		}
		m.Bucket.List(ctx, prefix)(yield)
	}
}

func limitedTo(d time.Duration, bucket storage.Bucket) func(*sandboxhttp.Config) {
	return func(c *sandboxhttp.Config) {
		volumesIn(bucket)(c)
		c.Limits.SyncTime = d
	}
}

func TestSaveThatTakesTooLongKeepsTheSandbox(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, limitedTo(2*time.Second, // enough to make the sandbox on a slow machine
		newMute(t, "put")))
	box := s.create(`{"volume_name":"w"}`)
	problem := s.ask(502, "DELETE", box, "")
	if problem["code"] != "sync_failed" || !strings.Contains(problem["detail"].(string), "2s") {
		t.Errorf("%v", problem)
	}
	if s.ask(200, "GET", box, "")["state"] != "running" || p.alive() != 1 {
		t.Error("the sandbox is gone")
	}
	s.ask(200, "DELETE", box+"?sync=false", "")
}

func TestDeleteWithoutSyncGivesUpTheSaveThatGoesOn(t *testing.T) {
	bucket := newMute(t, "put")
	p := newPlace(t, talk)
	s := serve(t, p, volumesIn(bucket))
	box := s.create(`{"volume_name":"w"}`)
	saving := make(chan map[string]any, 1)
	go func() { saving <- s.ask(200, "DELETE", box, "") }()
	<-bucket.asked
	if got := s.ask(200, "DELETE", box+"?sync=false", ""); got["version"] != nil || p.alive() != 0 {
		t.Errorf("deleted %v, %d alive", got, p.alive())
	}
	if got := <-saving; got["version"] != nil {
		t.Errorf("the one that saved: %v", got)
	}
	if got := s.ask(200, "GET", box, ""); got["end"] != "cancelled" {
		t.Errorf("afterwards %v", got)
	}
}

func TestDeleteGoesOnWithoutARunThatDoesNotDie(t *testing.T) {
	stuck := make(chan struct{})
	p := newPlace(t, func(p *player) { p.say("one"); <-stuck })
	s := serve(t, p, func(c *sandboxhttp.Config) { c.Limits.InterruptGrace = time.Millisecond })
	t.Cleanup(func() { close(stuck) })
	box := s.create("")
	f := s.prompt(box, "go")
	f.must()
	s.ask(200, "DELETE", box, "")
	if p.alive() != 0 {
		t.Errorf("%d alive", p.alive())
	}
}

func TestRestoreThatTakesTooLongLeavesNothing(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, limitedTo(10*time.Millisecond, newMute(t, "list")))
	problem := s.ask(502, "POST", "/sandbox", `{"volume_name":"w"}`)
	if problem["code"] != "restore_failed" || !strings.Contains(problem["detail"].(string), "10ms") {
		t.Errorf("%v", problem)
	}
	if list := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any); len(list) != 0 || p.alive() != 0 {
		t.Errorf("list %v, %d alive", list, p.alive())
	}
}

func TestDeleteDuringCreation(t *testing.T) {
	for _, stage := range []string{"creating", "restoring"} {
		t.Run(stage, func(t *testing.T) {
			bucket := newMute(t, "list")
			p := newPlace(t, talk)
			if stage == "creating" {
				p.gate = make(chan struct{})
			}
			s := serve(t, p, func(c *sandboxhttp.Config) {
				volumesIn(bucket)(c)
				c.Limits.Sandboxes = 1
			})
			f := s.follow("POST", "/sandbox", `{"volume_name":"w"}`, "Accept", "text/event-stream")
			for f.must().data != `{"stage":"`+stage+`"}` {
			}
			id := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any)[0].(map[string]any)["id"].(string)
			for range 2 { // the second time it has ended
				if got := s.ask(200, "DELETE", "/sandbox/"+id, ""); got["id"] != id || got["version"] != nil || p.alive() != 0 {
					t.Errorf("deleted %v, %d alive", got, p.alive())
				}
			}
			events := f.all()
			if last := events[len(events)-1]; last.name != "error" || !strings.Contains(last.data, `"sandbox_ended"`) {
				t.Errorf("who made it saw %+v", events)
			}
			if got := s.ask(200, "GET", "/sandbox/"+id, ""); got["state"] != "ended" || got["end"] != "cancelled" {
				t.Errorf("afterwards %v", got)
			}
			if p.gate != nil {
				close(p.gate)
			}
			s.create("") // its place is free
		})
	}
}

// One that was being made, and may live on, is shown until it does not.
func TestDeleteDuringCreationThatCannotTerminate(t *testing.T) {
	bucket := newMute(t, "list")
	p := newPlace(t, talk)
	s := serve(t, p, volumesIn(bucket))
	f := s.follow("POST", "/sandbox", `{"volume_name":"w"}`, "Accept", "text/event-stream")
	<-bucket.asked
	id := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any)[0].(map[string]any)["id"].(string)
	p.fail("terminate", driver.ErrUnavailable)
	s.refused(502, "provider_failed", "DELETE", "/sandbox/"+id, "")
	f.all()
	if list := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any); len(list) != 1 || list[0].(map[string]any)["id"] != id || list[0].(map[string]any)["state"] != "creating" {
		t.Errorf("list %v", list)
	}
	s.refused(502, "provider_failed", "DELETE", "/sandbox/"+id+"?sync=false", "")
	p.fail("terminate", nil)
	s.ask(200, "DELETE", "/sandbox/"+id+"?sync=false", "")
	if got := s.ask(200, "GET", "/sandbox/"+id, ""); p.alive() != 0 || got["state"] != "ended" || got["end"] != "cancelled" {
		t.Errorf("%d alive, %v", p.alive(), got)
	}
}

// peeking is a Store in which somebody reads a sandbox between its record and the
// end of its creation.
type peeking struct {
	sandboxhttp.MemoryStore
	peek func(id string)
}

func (s *peeking) SaveSandbox(ctx context.Context, rec *sandboxhttp.Sandbox) error {
	err := s.MemoryStore.SaveSandbox(ctx, rec)
	if rec.State == sandboxhttp.StateRunning && s.peek != nil {
		peek := s.peek
		s.peek = nil
		peek(rec.ID)
	}
	return err
}

func TestEveryHandleIsClosed(t *testing.T) {
	p := newPlace(t, talk)
	store := new(peeking)
	s := serve(t, p, func(c *sandboxhttp.Config) { c.Store = store })
	count := func() (opened, closed, asked int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.opened, p.closed, p.asked
	}
	peeked := make(chan int, 1)
	store.peek = func(id string) {
		_, _, before := count()
		go func() { peeked <- s.request("GET", "/sandbox/"+id, "").StatusCode }()
		until(t, "the reader has a handle", func() bool { _, _, now := count(); return now > before })
	}
	box := s.create("")
	if status := <-peeked; status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	s.ask(200, "DELETE", box, "")
	if opened, closed, _ := count(); opened != closed {
		t.Errorf("%d handles opened, %d closed", opened, closed)
	}
}
