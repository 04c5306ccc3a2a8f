package sandboxhttp_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func TestShutdownLetsRunsEnd(t *testing.T) {
	gate := make(chan struct{})
	p := newPlace(t, func(p *player) { p.say("one"); <-gate; p.succeed() })
	s := serve(t, p, nil)
	box := s.create("")
	f := s.prompt(box, "go")
	f.must()
	done := make(chan error, 1)
	go func() { done <- s.handler.Shutdown(t.Context()) }()
	until(t, "readyz says so", func() bool { return s.request("GET", "/readyz", "").StatusCode == http.StatusServiceUnavailable })
	for _, path := range []string{"/sandbox", box + "/claude"} {
		resp := s.request("POST", path, `{}`)
		if path != "/sandbox" {
			resp = s.request("POST", path, `{"prompt":"go"}`)
		}
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: status %d, Retry-After %q", path, resp.StatusCode, resp.Header.Get("Retry-After"))
		}
	}
	s.refused(503, "shutting_down", "DELETE", box, "")
	s.ask(200, "GET", "/healthz", "")
	s.ask(200, "GET", box, "") // reading goes on
	close(gate)
	if end := f.end(); end["end"] != "completed" {
		t.Errorf("end %v", end)
	}
	if err := <-done; err != nil || p.alive() != 1 {
		t.Errorf("%v, %d alive", err, p.alive())
	}
	if len(s.ask(200, "GET", f.run(box), "")) == 0 || len(s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any)) != 1 {
		t.Error("nothing to be read any more")
	}
	if err := s.handler.Shutdown(t.Context()); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestShutdownCancelsRunsWhenItsContextEnds(t *testing.T) {
	p := newPlace(t, func(p *player) { p.say("one"); <-p.ctx.Done() })
	s := serve(t, p, nil)
	box := s.create("")
	f := s.prompt(box, "go")
	f.must()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.handler.Shutdown(ctx) }()
	until(t, "readyz says so", func() bool { return s.request("GET", "/readyz", "").StatusCode == http.StatusServiceUnavailable })
	cancel()
	if end := f.end(); end["end"] != "cancelled" || end["error"] != "the server is shutting down" {
		t.Errorf("end %v", end)
	}
	if err := <-done; !errors.Is(err, context.Canceled) || p.alive() != 1 {
		t.Errorf("%v, %d alive", err, p.alive())
	}
}

// A creation that is cancelled leaves nothing.
func TestShutdownInTheMiddleOfACreation(t *testing.T) {
	p := newPlace(t, talk)
	p.gate = make(chan struct{})
	s := serve(t, p, volumesIn(new(storagetest.Memory)))
	f := s.follow("POST", "/sandbox", `{"volume_name":"w"}`, "Accept", "text/event-stream")
	f.must()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.handler.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if events := f.all(); len(events) != 1 || events[0].name != "error" {
		t.Errorf("events %+v", events)
	}
	if p.alive() != 0 {
		t.Errorf("%d alive", p.alive())
	}
}
