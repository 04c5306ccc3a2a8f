package claude

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// A CLI that must not be held up may still not fill this process's memory.
func TestFreeQueueIsBounded(t *testing.T) {
	q := newQueue(true)
	batch := []entry{{line: make([]byte, freeLimit/4)}}
	for range 2 {
		for range 4 {
			if err := q.push(batch); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.push(batch); !errors.Is(err, errFlood) {
			t.Errorf("beyond the limit: %v, want errFlood", err)
		}
		if n := len(q.take(nil)); n != 4 {
			t.Errorf("%d lines were kept, want 4", n)
		}
	}
	if end := EndOf(&StartError{Err: errFlood}); end != EndAgentError {
		t.Errorf("EndOf(errFlood) = %s", end)
	}
}

func TestReadEndsWithTheFlood(t *testing.T) {
	p := &process{opts: &Options{}, queue: newQueue(true)}
	p.queue.size = freeLimit
	err := p.read(io.MultiReader(strings.NewReader(`{"type":"x"}`+"\n"), strings.NewReader(`{"type":"y"}`+"\n")))
	if !errors.Is(err, errFlood) {
		t.Errorf("got %v, want errFlood", err)
	}
}
