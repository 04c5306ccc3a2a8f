package scriptedcli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
)

// SessionID is the conversation's id in the lines that the methods of [CLI] write.
const SessionID = "5c121e0d-0000-4000-8000-000000000000"

// Init writes the line that begins a turn, with more members as given.
func (c *CLI) Init(more Line) {
	c.line(Line{"type": "system", "subtype": "init", "model": "claude-scripted", "cwd": "/workspace", "tools": []string{}, "permissionMode": "default"}, more)
}

// line writes a line with a session and an id of its own.
func (c *CLI) line(line Line, more ...Line) {
	c.mu.Lock()
	c.lastLine++
	n := c.lastLine
	c.mu.Unlock()
	all := Line{"session_id": SessionID, "uuid": "00000000-0000-4000-8000-" + pad(n)}
	for _, l := range append([]Line{line}, more...) {
		for key, value := range l {
			all[key] = value
		}
	}
	c.WriteJSON(all)
}

func pad(n int) string {
	s := strconv.Itoa(n)
	return "000000000000"[:12-len(s)] + s
}

// Delta writes a piece of a text as it comes, as with partial messages.
func (c *CLI) Delta(text string) {
	c.line(Line{"type": "stream_event", "parent_tool_use_id": nil, "event": Line{
		"type": "content_block_delta", "index": 0, "delta": Line{"type": "text_delta", "text": text},
	}})
}

// Text writes a message of the model's: a text.
func (c *CLI) Text(text string) { c.assistant(Line{"type": "text", "text": text}) }

// Tool writes a message of the model's: a call of a tool, with an input that marshals
// to a JSON object.
func (c *CLI) Tool(id, name string, input any) {
	c.assistant(Line{"type": "tool_use", "id": id, "name": name, "input": input})
}

func (c *CLI) assistant(block Line) {
	c.line(Line{"type": "assistant", "parent_tool_use_id": nil, "message": Line{
		"id": "msg_scripted", "type": "message", "role": "assistant", "model": "claude-scripted", "content": []Line{block},
		"stop_reason": nil, "usage": Line{"input_tokens": 1, "output_tokens": 1},
	}})
}

// ToolResult writes what a tool answered.
func (c *CLI) ToolResult(id, text string, isError bool) {
	c.line(Line{"type": "user", "parent_tool_use_id": nil, "message": Line{
		"role": "user", "content": []Line{{"type": "tool_result", "tool_use_id": id, "content": text, "is_error": isError}},
	}})
}

// Result is how a turn ends. The zero value is a success that says nothing.
type Result struct {
	Text    string
	IsError bool
	// Subtype is success where it is empty: error_max_turns, error_during_execution, …
	Subtype string
	CostUSD float64
	// Turns is how many turns the model took. Zero: 1.
	Turns int
	// More are further members of the line, or others in place of these.
	More Line
}

// Result writes the result of a prompt. The zero Prompt is one that answers none,
// as background work ends with.
func (c *CLI) Result(p Prompt, r Result) {
	line := Line{
		"type": "result", "subtype": "success", "is_error": r.IsError, "result": r.Text, "num_turns": max(1, r.Turns),
		"total_cost_usd": r.CostUSD, "duration_ms": 1, "duration_api_ms": 1, "permission_denials": []any{},
		"usage": Line{"input_tokens": 1, "output_tokens": 1}, "user_message_uuids": []string{},
	}
	if r.Subtype != "" {
		line["subtype"] = r.Subtype
	}
	if p.UUID != "" {
		line["user_message_uuids"] = []string{p.UUID}
	}
	c.line(line, r.More)
}

// Replay is a play that writes what the real CLI was recorded to write, line by
// line. It waits for a prompt at the start, and after each result that another
// prompt's result follows, and puts the prompts' uuids where the recorded results
// have those of then. Control requests in it are asked anew, and their answers waited
// for; the control responses in it are left out, as all are answered by themselves.
// What is not JSON is written as it is. After the last line it waits for the end of
// stdin, and exits with status 0.
//
// It reads all of recorded, and a failure to do so, which is not io.EOF, is
// returned.
func Replay(recorded io.Reader) (Play, error) {
	var lines [][]byte
	for r := bufio.NewReader(recorded); ; {
		line, err := r.ReadBytes('\n')
		if line = bytes.TrimSuffix(line, []byte("\n")); len(bytes.TrimSpace(line)) > 0 {
			lines = append(lines, line)
		}
		if errors.Is(err, io.EOF) {
			return func(c *CLI) { replay(c, lines) }, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func replay(c *CLI, lines [][]byte) {
	prompt, ok := c.Prompt()
	for i := 0; i < len(lines) && ok; i++ {
		var line Line
		if json.Unmarshal(lines[i], &line) != nil || line == nil {
			c.WriteBytes(append(slices.Clone(lines[i]), '\n'))
			continue
		}
		switch line.Text("type") {
		case "control_response", "control_cancel_request":
		case "control_request":
			_, err := c.Ask(line["request"]).Wait()
			ok = !errors.Is(err, ErrNoAnswer)
		case "result":
			data := slices.Clone(lines[i]) // other runs replay them as well
			if answersPrompt(line) && prompt.UUID != "" {
				data = withUUID(data, prompt.UUID)
			}
			c.WriteBytes(append(data, '\n'))
			if !answersPrompt(line) {
				continue
			}
			if slices.ContainsFunc(lines[i+1:], endsTurn) {
				prompt, ok = c.Prompt()
			}
		default:
			c.WriteBytes(append(slices.Clone(lines[i]), '\n'))
		}
	}
	c.Drain()
}

func endsTurn(data []byte) bool {
	var line Line
	return json.Unmarshal(data, &line) == nil && line.Text("type") == "result" && answersPrompt(line)
}

// answersPrompt says that a result is not one of background work.
func answersPrompt(result Line) bool { return result.Text("origin", "kind") != "task-notification" }

// withUUID puts a prompt's uuid into a result, and leaves every other byte of a
// member as it was.
func withUUID(data []byte, uuid string) []byte {
	var members map[string]json.RawMessage
	if json.Unmarshal(data, &members) != nil || members == nil {
		return data
	}
	one, err := json.Marshal(uuid)
	if err != nil {
		return data
	}
	members["user_message_uuids"] = slices.Concat([]byte("["), one, []byte("]"))
	if _, ok := members["user_message_uuid"]; ok {
		members["user_message_uuid"] = one
	}
	changed, err := json.Marshal(members)
	if err != nil {
		return data
	}
	return changed
}
