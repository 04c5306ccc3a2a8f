package torture

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
)

// follower follows a run from one cut to the next, and keeps what it was given.
type follower struct {
	c       *client
	path    string
	got     bytes.Buffer
	n       int    // lines in it
	end     string // the data of the event "end"
	done    bool
	cuts    int
	faults  []string
	newLine func()
	ended   func() error // when the end was told
}

func (f *follower) fault(format string, args ...any) {
	if len(f.faults) < 10 {
		f.faults = append(f.faults, fmt.Sprintf(format, args...))
	}
}

// follow follows to the end.
func (f *follower) follow(ctx context.Context) error {
	for !f.done {
		if err := f.once(ctx); err != nil && ctx.Err() != nil {
			return fmt.Errorf("a follower at event %d: %w, the last time %w", f.n, ctx.Err(), err)
		}
		pause(ctx)
	}
	return nil
}

// once follows over one connection. An error is that it has ended somehow.
func (f *follower) once(ctx context.Context) error {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	q := &request{method: http.MethodGet, path: f.path, header: http.Header{}}
	seen := f.n
	if f.end != "" {
		seen++
	}
	if seen > 0 {
		q.header.Set("Last-Event-ID", fmt.Sprint(seen))
	}
	resp, err := f.c.send(ctx, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		if f.done = f.end != ""; !f.done {
			f.fault("after event %d there is said to be nothing more", f.n)
		}
		return nil
	default:
		p := f.c.refusal(resp)
		if !p.Retryable {
			f.fault("after event %d: %v", f.n, p)
		}
		return p
	}
	events := 1 + rand.IntN(120) // until it is cut
	for e := range readEvents(resp.Body) {
		f.take(e)
		if events--; events == 0 && !f.done {
			f.cuts++
			return nil
		}
	}
	return nil
}

// take takes an event.
func (f *follower) take(e event) {
	switch e.name {
	case "", "control":
		if e.id == 0 && e.data == "[DONE]" {
			if f.done = f.end != ""; !f.done {
				f.fault("the stream is done at event %d, without an end", f.n)
			}
			return
		}
		if e.id != f.n+1 || f.end != "" {
			f.fault("event %d comes after %d", e.id, f.n)
		}
		f.n = e.id
		f.got.WriteString(e.data + "\n")
		f.newLine()
	case "end":
		if e.id != f.n+1 || f.end != "" {
			f.fault("the end is event %d after %d", e.id, f.n)
		}
		f.end = e.data
		if err := f.ended(); err != nil {
			f.fault("an end: %v", err)
		}
	case "heartbeat", "reconnect":
	default:
		f.fault("an event %q: %s", e.name, e.data)
	}
}

// event is a server-sent event.
type event struct {
	id         int
	name, data string
}
