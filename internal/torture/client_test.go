package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// client asks the servers, each time another, as behind a balancer.
type client struct {
	servers []*server
	http    http.Client

	mu      sync.Mutex
	answers map[string]int // that were not what was asked for, by status and code
}

// request is what a client asks for.
type request struct {
	method, path, body, key string
	header                  http.Header
}

// errNoServer: the one that was to be asked is not there.
var errNoServer = errors.New("the server is not there")

// send sends a request to some server. The caller closes the body.
func (c *client) send(ctx context.Context, q *request) (*http.Response, error) {
	address := c.servers[rand.IntN(len(c.servers))].address.Load()
	if address == nil {
		return nil, errNoServer
	}
	r, err := http.NewRequestWithContext(ctx, q.method, "http://"+*address+q.path, strings.NewReader(q.body))
	if err != nil {
		return nil, err
	}
	if q.header != nil {
		r.Header = q.header
	}
	if q.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if q.key != "" {
		r.Header.Set("Idempotency-Key", q.key)
	}
	return c.http.Do(r)
}

// problem is an answer that is an error.
type problem struct {
	Status       int
	Code, Detail string
	Retryable    bool // it may be better the next time
}

func (p *problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Code, p.Detail) }

// refusal reads an answer that is an error, and counts it.
func (c *client) refusal(resp *http.Response) *problem {
	p := &problem{}
	data, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(data, p)
	}
	if err != nil {
		p.Detail = err.Error()
	}
	p.Status = resp.StatusCode
	c.count(fmt.Sprintf("%d %s", p.Status, p.Code))
	return p
}

func (c *client) count(answer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers == nil {
		c.answers = map[string]int{}
	}
	c.answers[answer]++
}

// askTime bounds one try: a server that does not answer is as good as none.
const askTime = time.Minute

// once asks once, and gives the answer.
func (c *client) once(ctx context.Context, q *request) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, askTime)
	defer stop()
	resp, err := c.send(ctx, q)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return nil, c.refusal(resp)
	}
	return io.ReadAll(resp.Body)
}

// ask asks until there is an answer, and reads it. Problems with these codes are answers
// too.
func (c *client) ask(ctx context.Context, q *request, answer any, codes ...string) error {
	for {
		data, err := c.once(ctx, q)
		var p *problem
		switch {
		case err == nil && answer == nil:
			return nil
		case err == nil:
			return json.Unmarshal(data, answer)
		case errors.As(err, &p) && (slices.Contains(codes, p.Code) || !p.Retryable):
			return p
		case ctx.Err() != nil:
			return fmt.Errorf("%s %s: %w, the last time %w", q.method, q.path, ctx.Err(), err)
		}
		pause(ctx)
	}
}

// record is a sandbox or a run, as far as it is looked at.
type record struct {
	ID, Name, State, End, Error string
	Events                      int
	SessionID                   string `json:"session_id"`
	Questions                   []struct{ ID string }
}

// create makes a sandbox of a name, and gives its id. An answer that was lost is not
// waited for for ever: then the sandbox has the name.
func (c *client) create(ctx context.Context, name string) (string, error) {
	q := &request{method: http.MethodPost, path: "/sandbox", body: fmt.Sprintf(`{"name":%q}`, name), key: "create-" + name}
	if rand.IntN(3) == 0 { // whose connection is cut
		brief, cut := context.WithTimeout(ctx, time.Duration(rand.IntN(300))*time.Millisecond)
		_, _ = c.once(brief, q)
		cut()
	}
	for {
		var made record
		err := c.ask(ctx, q, &made, "name_in_use")
		var p *problem
		if !errors.As(err, &p) || p.Code != "name_in_use" {
			return made.ID, err
		}
		all, err := c.sandboxes(ctx)
		if err != nil {
			return "", err
		}
		if i := slices.IndexFunc(all, func(r record) bool { return r.Name == name && r.State == "running" }); i >= 0 {
			return all[i].ID, nil
		}
		pause(ctx) // it is being made
	}
}

// sandboxes lists those that have not ended.
func (c *client) sandboxes(ctx context.Context) ([]record, error) {
	var alive []record
	for cursor := ""; ; {
		var page struct {
			Sandboxes []record
			Next      string `json:"next_cursor"`
		}
		if err := c.ask(ctx, &request{method: http.MethodGet, path: "/sandbox?limit=200&cursor=" + cursor}, &page); err != nil {
			return nil, err
		}
		for _, r := range page.Sandboxes {
			if r.State != "ended" {
				alive = append(alive, r)
			}
		}
		if cursor = page.Next; cursor == "" {
			return alive, nil
		}
	}
}

// prompt begins a run, or finds the one that was begun with the key, and gives its id
// before it lets go of the stream.
func (c *client) prompt(ctx context.Context, box, key, body string) (string, error) {
	q := &request{method: http.MethodPost, path: box + "/claude", body: body, key: key}
	for {
		id, err := c.promptOnce(ctx, q)
		var p *problem
		if err == nil || errors.As(err, &p) && !p.Retryable {
			return id, err
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("%s: %w, the last time %w", q.path, ctx.Err(), err)
		}
		pause(ctx)
	}
}

func (c *client) promptOnce(ctx context.Context, q *request) (string, error) {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	resp, err := c.send(ctx, q)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", c.refusal(resp)
	}
	id := resp.Header.Get("Vivarium-Run")
	if id == "" {
		return "", errors.New("the stream is of no run")
	}
	_, _ = io.CopyN(io.Discard, resp.Body, rand.Int64N(20_000)) // it may be cut
	return id, nil
}

// approve answers what Claude asks in a run, until it has ended.
func (c *client) approve(ctx context.Context, run string) error {
	for {
		var now record
		if err := c.ask(ctx, &request{method: http.MethodGet, path: run}, &now); err != nil {
			return err
		}
		if now.State == "ended" {
			return nil
		}
		for _, question := range now.Questions {
			body := fmt.Sprintf(`{"question":%q,"allow":true}`, question.ID)
			// One that fails is asked again if nobody has answered.
			_, err := c.once(ctx, &request{method: http.MethodPost, path: run + "/answer", body: body, key: "answer-" + question.ID})
			if err == nil {
				c.count("an answer taken")
			}
		}
		pause(ctx)
	}
}
