package sandboxhttp_test

import (
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// outlived is a server with the records of one that was killed: a sandbox that runs,
// and in it a run of which nothing is left.
func outlived(t *testing.T) (s *server, box, run string) {
	t.Helper()
	p, store := newPlace(t, talk), new(sandboxhttp.MemoryStore)
	keep := func(c *sandboxhttp.Config) { c.Store = store }
	box = serve(t, p, keep).create("")
	rec := &sandboxhttp.Run{
		ID: "run-lost", SandboxID: box[len("/sandbox/"):], Account: "acme", SessionID: "s", Prompt: "go on for ever",
		State: sandboxhttp.StateRunning, StartedAt: time.Now(),
	}
	if err := store.SaveRun(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	return serve(t, p, keep), box, box + "/runs/run-lost"
}

// A run of which nothing is left is not shown as one that goes on for long, whoever looks.
func TestRunOfWhichNothingIsLeft(t *testing.T) {
	s, box, run := outlived(t)
	until(t, "the run has ended", func() bool { return s.ask(200, "GET", run, "")["state"] == "ended" })
	got := s.ask(200, "GET", run, "")
	if got["end"] != "unknown" || got["error"] == "" || got["ended_at"] == nil || got["prompt"] != "go on for ever" {
		t.Errorf("the run is %v", got)
	}
	if again := s.ask(200, "GET", run, ""); again["ended_at"] != got["ended_at"] {
		t.Errorf("it ended at %v, and then at %v", got["ended_at"], again["ended_at"])
	}
	list := s.ask(200, "GET", box+"/runs", "")["runs"].([]any)
	if got := list[0].(map[string]any); len(list) != 1 || got["state"] != "ended" || got["end"] != "unknown" {
		t.Errorf("listed as %v", list)
	}
	s.ask(202, "POST", run+"/interrupt", "")
}

// Whoever followed the run until its server was killed goes on after the last event
// seen, however many that were, and is told the end.
func TestFollowerOfWhatIsGone(t *testing.T) {
	s, box, run := outlived(t)
	for _, seen := range []string{"", "1", "70"} {
		events := s.follow("GET", run+"/events", "", "Last-Event-ID", seen).all()
		if last := events[len(events)-1]; len(events) != 1 || last.name != "end" {
			t.Errorf("after %q: %v", seen, events)
		}
	}
	s.ask(204, "GET", run+"/events?after=18446744073709551615", "")
	if end := s.prompt(box, "2").end(); end["end"] != "completed" {
		t.Errorf("the next run in the sandbox ended as %v", end)
	}
	if got := s.ask(200, "GET", run, ""); got["end"] != "unknown" {
		t.Errorf("the run is %v", got)
	}
}

// What was being made when the server was killed is taken over, or is over.
func TestCreationOfAServerThatIsGone(t *testing.T) {
	p, store := newPlace(t, talk), new(sandboxhttp.MemoryStore)
	bucket := new(storagetest.Memory)
	first := serve(t, p, volumesIn(bucket))
	saved := first.create(`{"volume_name":"w"}`)
	put(t, p, saved, "a.txt", "a")
	first.ask(200, "DELETE", saved, "")
	first.close()
	for id, volume := range map[string]string{"sb-made": "", "sb-full": "w", "sb-none": ""} {
		leftBox(t, p, store, id, sandboxhttp.StateCreating, volume, id != "sb-none", time.Now())
	}
	// Those that did not come to the pool: it may be about to.
	for id, age := range map[string]time.Duration{"sb-new": 0, "sb-old": time.Hour} {
		rec := &sandboxhttp.Sandbox{ID: id, Account: "acme", State: sandboxhttp.StateCreating, CreatedAt: time.Now().Add(-age)}
		if err := store.SaveSandbox(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	s := serve(t, p, func(c *sandboxhttp.Config) {
		volumesIn(bucket)(c)
		c.Store = store
	})
	for id, want := range map[string]string{"sb-made": "running", "sb-full": "running", "sb-none": "ended", "sb-new": "creating", "sb-old": "ended"} {
		if got := s.becomes(id, want); want == "ended" && got["end"] != "unknown" {
			t.Errorf("%s: %v", id, got)
		}
	}
	if got := have(t, p, "/sandbox/sb-full", "a.txt"); got != "a" {
		t.Errorf("a.txt is %q", got)
	}
	if end := s.prompt("/sandbox/sb-made", "1").end(); end["end"] != "completed" {
		t.Errorf("a run in the one that was taken over ended as %v", end)
	}
	for _, id := range []string{"sb-made", "sb-full", "sb-none", "sb-new", "sb-old"} {
		s.ask(200, "DELETE", "/sandbox/"+id, "")
		if got := s.ask(200, "GET", "/sandbox/"+id, ""); got["state"] != "ended" {
			t.Errorf("%s: %v", id, got)
		}
	}
	if p.alive() != 0 {
		t.Errorf("%d alive", p.alive())
	}
}
