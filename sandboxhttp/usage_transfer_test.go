package sandboxhttp_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// moved is how many bytes went to buckets and came from them.
func moved(t *testing.T, l usage.Ledger) (in, out int64) {
	t.Helper()
	sum := used(t, l)
	return sum.BytesIn, sum.BytesOut
}

func TestUsageOfTransfers(t *testing.T) {
	p, l := newPlace(t, talk), new(usage.Memory)
	s := serve(t, p, metered(l, usage.Quota{}, volumesIn(new(storagetest.Memory))))
	box := s.create(`{"volume_name":"w"}`)
	put(t, p, box, "a.txt", "seven b")
	first := s.ask(201, "POST", box+"/sync", "")
	added := int64(first["added"].(float64))
	if in, out := moved(t, l); in != added || added == 0 || out != 0 {
		t.Errorf("after a save of %d bytes: %d in, %d out", added, in, out)
	}
	put(t, p, box, "a.txt", "another")
	put(t, p, box, "b.txt", "stays on")
	added += int64(s.ask(201, "POST", box+"/sync", "")["added"].(float64))
	s.ask(200, "POST", box+"/restore", `{"version":"`+idOf(first)+`"}`)
	if in, out := moved(t, l); in != added || out != 7 {
		t.Errorf("after a restore of 7 bytes: %d in, want %d, and %d out", in, added, out)
	}
	put(t, p, box, "c.txt", "saved by the deletion")
	s.ask(200, "DELETE", box, "")
	in, _ := moved(t, l)
	if in <= added {
		t.Errorf("the save of a deletion does not count: %d after %d", in, added)
	}
	s.create(`{"volume_name":"w"}`)
	if again, out := moved(t, l); again != in || out != 7+7+21 {
		t.Errorf("after another sandbox got 28 bytes: %d in, %d out", again, out)
	}
	counts(t, l, 1, 2) // transfers have ended
}

// A version that is kept beside the newest was uploaded too.
func TestUsageOfAConflict(t *testing.T) {
	p, l := newPlace(t, talk), new(usage.Memory)
	s := serve(t, p, metered(l, usage.Quota{}, volumesIn(new(storagetest.Memory))))
	s.ask(200, "DELETE", s.create(`{"volume_name":"w"}`), "")
	one, two := s.create(`{"volume_name":"w"}`), s.create(`{"volume_name":"w"}`)
	s.ask(201, "POST", one+"/sync", "")
	before, _ := moved(t, l)
	put(t, p, two, "a.txt", "two")
	kept := s.ask(409, "POST", two+"/sync", "")["version"].(map[string]any)
	if after, _ := moved(t, l); after-before != int64(kept["added"].(float64)) || after == before {
		t.Errorf("%d bytes after %d, of %v", after, before, kept)
	}
}

func TestQuotaOfTransfers(t *testing.T) {
	p, l, bucket := newPlace(t, talk), new(usage.Memory), new(storagetest.Memory)
	s := serve(t, p, metered(l, usage.Quota{PerDay: usage.Budget{BytesIn: 1, BytesOut: 1}}, volumesIn(bucket)))
	box := s.create(`{"volume_name":"w"}`)
	put(t, p, box, "a.txt", "a")
	version := s.ask(201, "POST", box+"/sync", "")
	put(t, p, box, "a.txt", "bb")
	objects := objectsIn(t, bucket)
	for _, headers := range [][]string{nil, {"Accept", "text/event-stream"}} {
		s.exceeds(usage.LimitBytesInPerDay, "wait until 00:00 UTC", true, "POST", box+"/sync", "", headers...)
	}
	restore := `{"version":"` + idOf(version) + `"}`
	s.ask(200, "POST", box+"/restore", restore)
	put(t, p, box, "a.txt", "bb")
	for _, headers := range [][]string{nil, {"Accept", "text/event-stream"}} {
		s.exceeds(usage.LimitBytesOutPerDay, "wait until 00:00 UTC", true, "POST", box+"/restore", restore, headers...)
		s.exceeds(usage.LimitBytesOutPerDay, "wait until 00:00 UTC", true, "POST", "/sandbox", `{"volume_name":"w"}`, headers...)
	}
	if got := have(t, p, box, "a.txt"); got != "bb" || objectsIn(t, bucket) != objects {
		t.Errorf("work was begun: a.txt %q, %d objects after %d", got, objectsIn(t, bucket), objects)
	}
	s.exceeds(usage.LimitBytesInPerDay, "?sync=false; the sandbox is kept", true, "DELETE", box, "")
	if s.ask(200, "GET", box, "")["state"] != "running" {
		t.Error("the sandbox is gone")
	}
	s.ask(200, "DELETE", box+"?sync=false", "")
	counts(t, l, 0, 1)
}

// A deletion that may not save stops no run.
func TestDeletionThatMayNotSaveLeavesRunsAlone(t *testing.T) {
	cli, l := newPaced(), new(usage.Memory)
	s := serve(t, newPlace(t, cli.play), metered(l, usage.Quota{PerDay: usage.Budget{BytesIn: -1}}, volumesIn(new(storagetest.Memory))))
	box := s.create(`{"volume_name":"w"}`)
	f := s.prompt(box, "go")
	f.must()
	s.exceeds(usage.LimitBytesInPerDay, "ask those who run this server", false, "DELETE", box, "")
	close(cli.gate)
	if end := f.end(); end["end"] != "completed" {
		t.Errorf("end %v", end)
	}
}

// Transfers that fail, or never begin, leave no place.
func TestPlacesOfTransfersThatFail(t *testing.T) {
	p, l := newPlace(t, talk), newBrittle()
	s := serve(t, p, metered(l, usage.Quota{}, volumesIn(&readOnly{Bucket: new(storagetest.Memory)})))
	box := s.create(`{"volume_name":"w"}`)
	put(t, p, box, "a.txt", "a")
	s.refused(502, "sync_failed", "POST", box+"/sync", "")
	s.refused(404, "not_found", "POST", box+"/restore", `{"version":"20060102-150405.000000000-1-aaaaaaaa"}`)
	s.refused(502, "sync_failed", "DELETE", box, "")
	counts(t, l.Ledger, 1, 1)
	for _, request := range []string{"POST " + box + "/sync", "POST " + box + "/restore", "DELETE " + box, "POST /sandbox"} {
		l.fail("Reserve", 1)
		method, path, _ := strings.Cut(request, " ")
		body := map[bool]string{true: `{"version":"20060102-150405.000000000-1-aaaaaaaa"}`, false: ""}[strings.HasSuffix(path, "restore")]
		if path == "/sandbox" {
			body = `{"volume_name":"w"}`
		}
		if got := s.ask(500, method, path, body); strings.Contains(fmt.Sprint(got), "db-7") {
			t.Errorf("%s: %v", request, got)
		}
		counts(t, l.Ledger, 1, 1)
	}
	s.shutdown()
	s.refused(503, "shutting_down", "POST", box+"/sync", "")
	counts(t, l.Ledger, 1, 1)
}

// What is refused because of something else leaves no place either.
func TestPlacesOfWhatIsRefused(t *testing.T) {
	cli, l := newPaced(), new(usage.Memory)
	s := serve(t, newPlace(t, cli.play), metered(l, usage.Quota{SandboxesAtOnce: 1}, volumesIn(new(storagetest.Memory))))
	box := s.create(`{"volume_name":"w"}`)
	s.exceeds(usage.LimitSandboxesAtOnce, "delete one first", true, "POST", "/sandbox", `{"volume_name":"w"}`)
	counts(t, l, 1, 1)
	f := s.prompt(box, "go")
	f.must()
	done := make(chan error, 1)
	go func() { done <- s.handler.Shutdown(t.Context()) }()
	until(t, "readyz says so", func() bool { return s.request("GET", "/readyz", "").StatusCode == http.StatusServiceUnavailable })
	s.refused(503, "shutting_down", "POST", box+"/sync", "")
	s.refused(503, "shutting_down", "POST", box+"/claude", `{"prompt":"go"}`)
	s.as("other").refused(503, "shutting_down", "POST", "/sandbox", `{"volume_name":"w"}`)
	counts(t, l, 2, 1) // the sandbox, and the run that goes on
	close(cli.gate)
	f.end()
	if err := <-done; err != nil {
		t.Error(err)
	}
	counts(t, l, 1, 1)
}

// What a save stored counts although the ledger did not take it at once.
func TestTransferThatIsCountedLater(t *testing.T) {
	p, l := newPlace(t, talk), newBrittle()
	s := serve(t, p, metered(l, usage.Quota{}, volumesIn(new(storagetest.Memory)), func(c *sandboxhttp.Config) { c.Store = l }))
	box := s.create(`{"volume_name":"w"}`)
	put(t, p, box, "a.txt", "a")
	l.fail("Add", 2)
	added := int64(s.ask(201, "POST", box+"/sync", "")["added"].(float64))
	until(t, "it is counted", func() bool { in, _ := moved(t, l.Ledger); return in == added })
	until(t, "its place is free", func() bool { return len(places(t, l.Ledger)) == 1 })
}

// objectsIn counts what is in a bucket.
func objectsIn(t *testing.T, b storage.Bucket) (n int) {
	t.Helper()
	for _, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}
