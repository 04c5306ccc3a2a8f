package sandboxhttp_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

func TestSameKeySameAnswer(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, nil)
	first := s.ask(201, "POST", "/sandbox", `{"name":"x"}`, "Idempotency-Key", "k1")
	resp := s.request("POST", "/sandbox", `{"name":"x"}`, "Idempotency-Key", "k1")
	if resp.StatusCode != http.StatusCreated || !strings.HasSuffix(resp.Header.Get("Location"), first["id"].(string)) {
		t.Errorf("again: %d, %s", resp.StatusCode, resp.Header.Get("Location"))
	}
	if again := s.ask(201, "POST", "/sandbox", `{"name":"x"}`, "Idempotency-Key", "k1"); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("first %v, again %v", first, again)
	}
	events := s.follow("POST", "/sandbox", `{"name":"x"}`, "Idempotency-Key", "k1", "Accept", "text/event-stream").all()
	if len(events) != 1 || events[0].name != "sandbox" || !strings.Contains(events[0].data, first["id"].(string)) {
		t.Errorf("as events: %+v", events)
	}
	s.refused(422, "idempotency_mismatch", "POST", "/sandbox", `{"name":"y"}`, "Idempotency-Key", "k1")
	s.create(`{"name":"z"}`)
	s.as("other").ask(201, "POST", "/sandbox", `{"name":"y"}`, "Idempotency-Key", "k1") // keys are each account's own
	if p.alive() != 3 {
		t.Errorf("%d alive", p.alive())
	}
	for _, key := range []string{"a b", "\u00e9", strings.Repeat("x", 256), ""} {
		s.refused(400, "invalid_request", "POST", "/sandbox", "", "Idempotency-Key", key)
	}
}

func TestKeyInFlight(t *testing.T) {
	p := newPlace(t, talk)
	p.gate = make(chan struct{})
	s := serve(t, p, nil)
	f := s.follow("POST", "/sandbox", "", "Idempotency-Key", "k", "Accept", "text/event-stream")
	f.must()
	s.refused(409, "idempotency_in_flight", "POST", "/sandbox", "", "Idempotency-Key", "k")
	close(p.gate)
	f.all()
	s.ask(201, "POST", "/sandbox", "", "Idempotency-Key", "k")
	if p.alive() != 1 {
		t.Errorf("%d alive", p.alive())
	}
}

func TestManyAtOnceWithOneKeyMakeOneSandbox(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, nil)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if status := s.request("POST", "/sandbox", "", "Idempotency-Key", "k").StatusCode; status != 201 && status != 409 {
				t.Errorf("status %d", status)
			}
		})
	}
	wg.Wait()
	if p.alive() != 1 {
		t.Errorf("%d alive", p.alive())
	}
}

func TestAnErrorIsNotKept(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, nil)
	p.fail("create", driver.ErrUnavailable)
	s.refused(502, "provider_failed", "POST", "/sandbox", "", "Idempotency-Key", "k")
	p.fail("create", nil)
	s.ask(201, "POST", "/sandbox", "", "Idempotency-Key", "k")
}

func TestSameKeyIsTheSameRun(t *testing.T) {
	gate := make(chan struct{})
	var mu sync.Mutex
	runs := 0
	s := serve(t, newPlace(t, func(p *player) {
		mu.Lock()
		runs++
		mu.Unlock()
		p.say("one")
		<-gate
		p.succeed()
	}), nil)
	box := s.create("")
	first := s.prompt(box, "go", "Idempotency-Key", "k")
	first.must()
	second := s.prompt(box, "go", "Idempotency-Key", "k")
	if e := second.must(); e.id != 2 || first.run(box) != second.run(box) {
		t.Errorf("%+v of %s and %s", e, first.run(box), second.run(box))
	}
	close(gate)
	if len(first.all()) != len(second.all()) {
		t.Error("they differ")
	}
	if events := s.prompt(box, "go", "Idempotency-Key", "k").all(); len(events) != 3 { // after its end too
		t.Errorf("%d events", len(events))
	}
	s.refused(422, "idempotency_mismatch", "POST", box+"/claude", `{"prompt":"other"}`, "Idempotency-Key", "k")
	mu.Lock()
	defer mu.Unlock()
	if runs != 1 {
		t.Errorf("%d runs", runs)
	}
	for range 2 {
		if resp := s.request("POST", first.run(box)+"/interrupt", "", "Idempotency-Key", "i"); resp.StatusCode != http.StatusAccepted {
			t.Errorf("interrupt: %d", resp.StatusCode)
		}
	}
}

// The memory of keys is bounded, and each account's own.
func TestKeysAreForgottenByAccount(t *testing.T) {
	s := serve(t, newPlace(t, talk), nil)
	box := s.create("")
	f := s.prompt(box, "go")
	f.all()
	s.as("other").ask(201, "POST", "/sandbox", `{"name":"x"}`, "Idempotency-Key", "kept")
	for i := range 1100 {
		s.ask(202, "POST", f.run(box)+"/interrupt", "", "Idempotency-Key", fmt.Sprint(i))
	}
	s.ask(202, "POST", f.run(box)+"/interrupt", "{ }", "Idempotency-Key", "0") // another body: the key is free again
	s.refused(422, "idempotency_mismatch", "POST", f.run(box)+"/interrupt", "{ }", "Idempotency-Key", "1099")
	s.as("other").refused(422, "idempotency_mismatch", "POST", "/sandbox", `{"name":"y"}`, "Idempotency-Key", "kept")
}
