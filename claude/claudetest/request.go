package claudetest

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// Request is one request as it arrived. The fields from Model on are filled
// from the body where it is a Messages request. It must not be modified.
type Request struct {
	// N counts the requests of a handler from 1, in the order of their arrival.
	N int
	// Kind says what the request is for.
	Kind Kind
	// Method, URL and Header are those of the HTTP request.
	Method string
	URL    *url.URL
	Header http.Header
	// Body is the body as it was sent.
	Body []byte

	// Model is the model that was asked for.
	Model string
	// MaxTokens is the limit of the reply, in tokens.
	MaxTokens int
	// Stream says that the reply is wanted as server-sent events.
	Stream bool
	// System is the system prompt; its blocks are joined by newlines.
	System string
	// Messages is the conversation so far.
	Messages []Message
	// Tools are the names of the tools that the model may use.
	Tools []string

	schema     json.RawMessage // of output_config.format, when JSON is asked for
	rawMessage []byte          // messages as sent, from which ids are derived
	ctx        context.Context
}

// Message is one message of a conversation.
type Message struct {
	Role    string // user, assistant or system
	Content []Block
}

// Block is one content block of a [Message]. Which fields are set depends on Type.
type Block struct {
	Type      string          // text, thinking, tool_use, tool_result, …
	Text      string          // of text and thinking blocks
	ID        string          // of a tool_use block
	Name      string          // of a tool_use block
	Input     json.RawMessage // of a tool_use block
	ToolUseID string          // of a tool_result block
	Result    string          // of a tool_result block: its text parts, joined by newlines
	IsError   bool            // of a tool_result block
	Raw       json.RawMessage // the block as it was sent, nil where it was a string
}

// Context is cancelled when the client is gone or the server closes.
func (r *Request) Context() context.Context { return r.ctx }

// Key returns the credential that came with the request: the X-Api-Key header,
// else the bearer token of Authorization, else "".
func (r *Request) Key() string {
	if key := r.Header.Get("X-Api-Key"); key != "" {
		return key
	}
	key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return key
}

// SessionID returns the id of the CLI's session, or "" where there is none.
func (r *Request) SessionID() string { return r.Header.Get("X-Claude-Code-Session-Id") }

// AgentID returns the id of the subagent that asks, or "" where it is not one.
func (r *Request) AgentID() string { return r.Header.Get("X-Claude-Code-Agent-Id") }

// Prompt returns what the user asked for last: the text of the newest message
// in which the user says anything, without what the CLI puts around it
// (reminders, records of slash commands). Blocks are joined by newlines.
func (r *Request) Prompt() string {
	_, prompt := r.lastPrompt()
	return prompt
}

func (r *Request) lastPrompt() (index int, prompt string) {
	for i := len(r.Messages) - 1; i >= 0; i-- {
		if r.Messages[i].Role != "user" {
			continue
		}
		var texts []string
		for _, b := range r.Messages[i].Content {
			if text := userText(b); text != "" {
				texts = append(texts, text)
			}
		}
		if len(texts) > 0 {
			return i, strings.Join(texts, "\n")
		}
	}
	return -1, ""
}

// goesOn is what the CLI says in the user's place when it is resumed and goes on with
// the use of a tool that was put off.
const goesOn = "Continue from where you left off."

// userText returns what the user wrote in a block of a user message. The CLI
// keeps its own additions in blocks or spans that are marked as XML elements.
func userText(b Block) string {
	if b.Type != "text" {
		return ""
	}
	if b.Text == goesOn {
		return ""
	}
	text := withoutSpans(b.Text, "<system-reminder>", "</system-reminder>")
	for _, mark := range []string{"<local-command-", "<command-name>", "<command-message>", "<bash-"} {
		if strings.HasPrefix(text, mark) {
			return ""
		}
	}
	return strings.TrimSpace(text)
}

func withoutSpans(s, open, end string) string {
	var kept strings.Builder
	for {
		before, rest, found := strings.Cut(s, open)
		if !found {
			break
		}
		_, after, closed := strings.Cut(rest, end)
		if !closed {
			break
		}
		kept.WriteString(before)
		s = after
	}
	kept.WriteString(s)
	return kept.String()
}

// How the CLI passes on what the user says while a turn is running.
const (
	queuedHead = "The user sent a new message while you were working:\n"
	queuedTail = "\n\nThis is how Claude Code surfaces messages"
)

// Queued returns what the user said since the last prompt, while the turn it
// began was running, oldest first. The CLI puts it into system messages.
func (r *Request) Queued() []string {
	from, _ := r.lastPrompt()
	var queued []string
	for _, m := range r.Messages[from+1:] {
		if m.Role != "system" {
			continue
		}
		for _, b := range m.Content {
			for rest := b.Text; ; {
				_, after, found := strings.Cut(rest, queuedHead)
				if !found {
					break
				}
				var said string
				said, rest, _ = strings.Cut(after, queuedTail)
				queued = append(queued, strings.TrimSpace(said))
			}
		}
	}
	return queued
}

// ToolResults returns the results in the order they arrived since the last
// prompt, so that a script can see what its tools did.
func (r *Request) ToolResults() []Block {
	from, _ := r.lastPrompt()
	var results []Block
	for _, m := range r.Messages[from+1:] {
		for _, b := range m.Content {
			if b.Type == "tool_result" {
				results = append(results, b)
			}
		}
	}
	return results
}

// LastToolResult returns the newest result of a tool since the last prompt, and
// whether there is one.
func (r *Request) LastToolResult() (Block, bool) {
	results := r.ToolResults()
	if len(results) == 0 {
		return Block{}, false
	}
	return results[len(results)-1], true
}

// WorkingDir returns the directory that the CLI says it works in, or "" where
// it does not say. The CLI writes it in a system message, or in the system prompt.
func (r *Request) WorkingDir() string {
	for i := len(r.Messages) - 1; i >= 0; i-- {
		if r.Messages[i].Role != "system" {
			continue
		}
		for _, b := range r.Messages[i].Content {
			if dir := workingDir(b.Text); dir != "" {
				return dir
			}
		}
	}
	return workingDir(r.System)
}

func workingDir(text string) string {
	for line := range strings.Lines(text) {
		for _, label := range []string{"Primary working directory: ", "Working directory: "} {
			if _, dir, found := strings.Cut(line, label); found && strings.HasPrefix(dir, "/") {
				dir, _, _ = strings.Cut(dir, " (was /") // so it is said after a cd
				return strings.TrimRight(dir, "\r\n")
			}
		}
	}
	return ""
}

// decode fills the fields that come from the body.
func (r *Request) decode() error {
	var body struct {
		Model        string          `json:"model"`
		MaxTokens    int             `json:"max_tokens"`
		Stream       bool            `json:"stream"`
		System       content         `json:"system"`
		Messages     json.RawMessage `json:"messages"`
		Tools        []struct{ Name string }
		OutputConfig struct {
			Format struct{ Schema json.RawMessage }
		} `json:"output_config"`
	}
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return err
	}
	var messages []struct {
		Role    string  `json:"role"`
		Content content `json:"content"`
	}
	if err := json.Unmarshal(body.Messages, &messages); err != nil {
		return err
	}
	r.Model, r.MaxTokens, r.Stream = body.Model, body.MaxTokens, body.Stream
	r.System = joinText(body.System)
	r.schema, r.rawMessage = body.OutputConfig.Format.Schema, body.Messages
	for _, m := range messages {
		r.Messages = append(r.Messages, Message{Role: m.Role, Content: m.Content})
	}
	for _, t := range body.Tools {
		r.Tools = append(r.Tools, t.Name)
	}
	return nil
}

// content is what the API writes either as a string or as a list of blocks.
type content []Block

func (c *content) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	if bytes.HasPrefix(data, []byte(`"`)) {
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
		*c = content{{Type: "text", Text: text}}
		return nil
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	var blocks []struct {
		Type      string          `json:"type"`
		Text      string          `json:"text"`
		Thinking  string          `json:"thinking"`
		ID        string          `json:"id"`
		Name      string          `json:"name"`
		Input     json.RawMessage `json:"input"`
		ToolUseID string          `json:"tool_use_id"`
		Content   json.RawMessage `json:"content"`
		IsError   bool            `json:"is_error"`
	}
	if err := json.Unmarshal(data, &blocks); err != nil {
		return err
	}
	for i, b := range blocks {
		block := Block{Raw: raw[i], Type: b.Type, Text: b.Text + b.Thinking, ID: b.ID, Name: b.Name, Input: b.Input, ToolUseID: b.ToolUseID, IsError: b.IsError}
		if b.Type == "tool_result" && len(b.Content) > 0 {
			result, err := resultText(b.Content)
			if err != nil {
				return err
			}
			block.Result = result
		}
		*c = append(*c, block)
	}
	return nil
}

// resultText returns the text of a tool's result: a string, or blocks, of which
// those that are not text (images) say nothing here.
func resultText(data []byte) (string, error) {
	var text string
	if json.Unmarshal(data, &text) == nil {
		return text, nil
	}
	var blocks []struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(data, &blocks); err != nil {
		return "", err
	}
	var texts []string
	for _, b := range blocks {
		if b.Text != "" {
			texts = append(texts, b.Text)
		}
	}
	return strings.Join(texts, "\n"), nil
}

func joinText(blocks []Block) string {
	var texts []string
	for _, b := range blocks {
		if b.Text != "" {
			texts = append(texts, b.Text)
		}
	}
	return strings.Join(texts, "\n")
}
