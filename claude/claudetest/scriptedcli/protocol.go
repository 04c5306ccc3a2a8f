package scriptedcli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Prompt is something that the user said.
type Prompt struct {
	UUID string
	// Text is the words of the message: its content, or the text blocks of it.
	Text string
	// Line is all of it.
	Line Line
}

// Handle answers the control requests of a subtype: with what the function returns,
// which marshals to JSON, or with its error. It is given the request line. Without
// it they succeed with an empty answer. Call it before anything else of the play.
func (c *CLI) Handle(subtype string, answer func(request Line) (any, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handlers[subtype] = answer
}

// Prompt returns the next prompt; ok is false once no more comes. The control
// protocol is answered from here on.
func (c *CLI) Prompt() (p Prompt, ok bool) {
	c.read()
	select {
	case p, ok = <-c.prompts:
		return p, ok
	case <-c.ended:
		return Prompt{}, false
	}
}

// Drain answers the control protocol until stdin comes to its end. Prompts wait
// for [CLI.Prompt].
func (c *CLI) Drain() {
	c.read()
	select {
	case <-c.closed:
	case <-c.ended:
	}
}

// Interrupted receives when an interrupt was asked for, at most once for several.
func (c *CLI) Interrupted() <-chan struct{} {
	c.read()
	return c.interrupted
}

// ReadLine returns the next line of stdin, for a play that speaks the protocol by
// itself; ok is false at the end. It must not be mixed with Prompt, Drain,
// Interrupted and Ask.
func (c *CLI) ReadLine() (line Line, ok bool) {
	for {
		data, err := c.in.ReadBytes('\n')
		if err != nil && len(data) == 0 {
			return nil, false
		}
		if len(bytes.TrimSpace(data)) == 0 {
			continue
		}
		if err := json.Unmarshal(data, &line); err != nil {
			c.Stderr("Error parsing streaming input line: " + err.Error() + "\n")
			c.Exit(1) // as the CLI does
			return nil, false
		}
		c.mu.Lock()
		c.received = append(c.received, line)
		c.mu.Unlock()
		return line, true
	}
}

// Received returns the lines that have arrived on stdin so far and were read.
func (c *CLI) Received() []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Line(nil), c.received...)
}

// Controls returns the control requests among them, of a subtype or, for "", all:
// what is in "request" of each.
func (c *CLI) Controls(subtype string) []Line {
	var found []Line
	for _, line := range c.Received() {
		request, ok := line.Get("request").(map[string]any)
		if ok && line.Text("type") == "control_request" && (subtype == "" || request["subtype"] == subtype) {
			found = append(found, request)
		}
	}
	return found
}

// read begins to answer the protocol, once.
func (c *CLI) read() {
	c.reading.Do(func() {
		c.box.wg.Go(func() {
			defer close(c.closed)
			defer close(c.prompts)
			for {
				line, ok := c.ReadLine()
				if !ok {
					return
				}
				c.dispatch(line)
			}
		})
	})
}

func (c *CLI) dispatch(line Line) {
	switch line.Text("type") {
	case "user":
		p := Prompt{UUID: line.Text("uuid"), Text: words(line.Get("message", "content")), Line: line}
		select {
		case c.prompts <- p:
		case <-c.ended:
		}
	case "control_request":
		c.answer(line)
	case "control_response":
		c.mu.Lock()
		id := line.Text("response", "request_id")
		q := c.asked[id]
		delete(c.asked, id)
		c.mu.Unlock()
		if q != nil {
			q.answer <- line
		}
	}
}

// words are the text of a message's content.
func words(content any) string {
	switch v := content.(type) {
	case string:
		return v
	case []any:
		var text string
		for _, block := range v {
			text += Line(map[string]any{"block": block}).Text("block", "text")
		}
		return text
	}
	return ""
}

func (c *CLI) answer(line Line) {
	subtype := line.Text("request", "subtype")
	c.mu.Lock()
	handler := c.handlers[subtype]
	c.mu.Unlock()
	var answer any = struct{}{}
	var err error
	if handler != nil {
		answer, err = handler(line)
	}
	c.Answer(line, answer, err)
	if subtype == "interrupt" {
		select {
		case c.interrupted <- struct{}{}:
		default:
		}
	}
}

// Answer answers a control request that [CLI.ReadLine] gave: with answer, or with
// the error where there is one.
func (c *CLI) Answer(request Line, answer any, err error) {
	response := map[string]any{"subtype": "success", "request_id": request["request_id"], "response": answer}
	if err != nil {
		response = map[string]any{"subtype": "error", "request_id": request["request_id"], "error": err.Error()}
	}
	c.WriteJSON(map[string]any{"type": "control_response", "response": response})
}

// Question is a control request of the CLI's that is under way.
type Question struct {
	c      *CLI
	id     string
	answer chan Line
}

// Ask asks the other side something: can_use_tool, hook_callback, mcp_message, … The
// request marshals to a JSON object with its subtype.
func (c *CLI) Ask(request any) *Question {
	c.read()
	c.mu.Lock()
	c.lastAsk++
	q := &Question{c: c, id: "scripted-" + strconv.Itoa(c.lastAsk), answer: make(chan Line, 1)}
	c.asked[q.id] = q
	c.mu.Unlock()
	c.WriteJSON(map[string]any{"type": "control_request", "request_id": q.id, "request": request})
	return q
}

// AskPermission asks whether a tool may be used.
func (c *CLI) AskPermission(tool string, input any) *Question {
	c.mu.Lock()
	n := c.lastAsk + 1
	c.mu.Unlock()
	return c.Ask(map[string]any{
		"subtype": "can_use_tool", "tool_name": tool, "input": input, "tool_use_id": "toolu_" + strconv.Itoa(n),
	})
}

// ErrNoAnswer says that the run ended, or stdin did, before the answer came.
var ErrNoAnswer = errors.New("scriptedcli: no answer before the end")

// Wait returns what was answered: "response" of the answer, or its error. The error
// matches [ErrNoAnswer] where none came.
func (q *Question) Wait() (Line, error) {
	select {
	case line := <-q.answer:
		return q.decode(line)
	case <-q.c.ended:
	case <-q.c.closed:
	}
	select { // it may have been the last line
	case line := <-q.answer:
		return q.decode(line)
	default:
		return nil, ErrNoAnswer
	}
}

func (q *Question) decode(line Line) (Line, error) {
	if line.Text("response", "subtype") != "success" {
		return nil, fmt.Errorf("scriptedcli: answered with the error %q", line.Text("response", "error"))
	}
	response, _ := line.Get("response", "response").(map[string]any)
	return response, nil
}

// Withdraw tells the other side that the answer is no longer wanted.
func (q *Question) Withdraw() {
	q.c.WriteJSON(map[string]any{"type": "control_cancel_request", "request_id": q.id})
}
