package claude

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Types of content blocks, as ContentBlock.Type has them. The API has others,
// such as "image" and "server_tool_use"; they are kept whole in ContentBlock.Raw.
const (
	BlockText       = "text"
	BlockThinking   = "thinking"
	BlockToolUse    = "tool_use"
	BlockToolResult = "tool_result"
)

// ContentBlock is a part of a message: text, thinking, the use of a tool or its
// result. Which fields are set depends on Type.
type ContentBlock struct {
	// Type says what it is, such as BlockText.
	Type string `json:"type"`
	// Text is the text of a BlockText.
	Text string `json:"text,omitempty"`
	// Thinking is the text of a BlockThinking; Signature proves to the API that
	// the model wrote it.
	Thinking  string `json:"thinking,omitempty"`
	Signature string `json:"signature,omitempty"`
	// ID, Name and Input are those of a BlockToolUse.
	ID    string          `json:"id,omitempty"`
	Name  string          `json:"name,omitempty"`
	Input json.RawMessage `json:"input,omitempty"`
	// ToolUseID is the ID of the BlockToolUse that a BlockToolResult answers,
	// Content what the tool gave, and IsError says that it failed.
	ToolUseID string  `json:"tool_use_id,omitempty"`
	Content   Content `json:"content,omitempty"`
	IsError   bool    `json:"is_error,omitempty"`
	// Raw is the block as it was written, whatever its type.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON decodes a block and keeps it whole in Raw. A field of another
// shape than this package knows is left empty.
func (b *ContentBlock) UnmarshalJSON(data []byte) error {
	b.decode(bytes.Clone(data))
	return nil
}

// decode reads a block of which data is not used for anything else.
func (b *ContentBlock) decode(data []byte) {
	*b = ContentBlock{Raw: raw(data)}
	members(data, func(key, value []byte) {
		switch string(key) {
		case "type":
			b.Type = blockType(value)
		case "text":
			b.Text = text(value)
		case "thinking":
			b.Thinking = text(value)
		case "signature":
			b.Signature = text(value)
		case "id":
			b.ID = text(value)
		case "name":
			b.Name = text(value)
		case "input":
			b.Input = raw(value)
		case "tool_use_id":
			b.ToolUseID = text(value)
		case "content":
			b.Content.decode(value)
		case "is_error":
			b.IsError = isTrue(value)
		}
	})
}

// blockType is text for the types that nearly all blocks have.
func blockType(value []byte) string {
	switch string(value) { // no allocation
	case `"text"`:
		return BlockText
	case `"thinking"`:
		return BlockThinking
	case `"tool_use"`:
		return BlockToolUse
	case `"tool_result"`:
		return BlockToolResult
	}
	return text(value)
}

// MarshalJSON gives Raw where there is one, so that nothing of a block is lost.
func (b ContentBlock) MarshalJSON() ([]byte, error) {
	if len(b.Raw) > 0 {
		return b.Raw, nil
	}
	type plain ContentBlock
	return json.Marshal(plain(b))
}

// Content is a list of blocks. Where the API allows a plain string instead, it
// is decoded as one block of text.
type Content []ContentBlock

// UnmarshalJSON decodes a list of blocks, or a string. Anything else is no content.
func (c *Content) UnmarshalJSON(data []byte) error {
	c.decode(bytes.Clone(data))
	return nil
}

func (c *Content) decode(data []byte) {
	*c = nil
	data = bytes.TrimSpace(data)
	if len(data) > 0 && data[0] == '"' {
		*c = Content{{Type: BlockText, Text: text(data)}}
		return
	}
	elements(data, func(value []byte) {
		*c = append(*c, ContentBlock{})
		(*c)[len(*c)-1].decode(value)
	})
}

// Text is the text of the BlockText among the blocks, one after the other.
func (c Content) Text() string {
	if len(c) == 1 {
		return c[0].Text
	}
	var b strings.Builder
	for i := range c {
		if c[i].Type == BlockText {
			b.WriteString(c[i].Text)
		}
	}
	return b.String()
}

// ToolUses are the BlockToolUse among the blocks.
func (c Content) ToolUses() []ContentBlock {
	var uses []ContentBlock
	for _, b := range c {
		if b.Type == BlockToolUse {
			uses = append(uses, b)
		}
	}
	return uses
}

// AssistantMessage is what the model said. The CLI writes one message for each
// content block, so several in a row share a MessageID.
type AssistantMessage struct {
	MessageID  string
	Model      string
	Content    Content
	StopReason string // empty until the model's message is complete
	// Usage is as it was when the model's message began: take the run's from
	// the Result.
	Usage Usage
	// Error is set when this is a message of the CLI about a request that
	// failed, such as "rate_limit" or "authentication_failed".
	Error string
}

// UnmarshalJSON decodes the line of the CLI.
func (a *AssistantMessage) UnmarshalJSON(data []byte) error {
	a.decode(bytes.Clone(data))
	return nil
}

func (a *AssistantMessage) decode(line []byte) {
	*a = AssistantMessage{}
	message := func(key, value []byte) {
		switch string(key) {
		case "id":
			a.MessageID = text(value)
		case "model":
			a.Model = text(value)
		case "content":
			a.Content.decode(value)
		case "stop_reason":
			a.StopReason = text(value)
		case "usage":
			a.Usage.decode(value)
		}
	}
	members(line, func(key, value []byte) {
		switch string(key) {
		case "message":
			members(value, message)
		case "error":
			a.Error = text(value)
		}
	})
}

// UserMessage is what the model was told: the results of tools, and with
// "--replay-user-messages" the prompts.
type UserMessage struct {
	Content Content
	// ToolUseResult is what the tool gave, in the tool's own shape; nil where
	// the CLI does not say.
	ToolUseResult json.RawMessage
	// Replay says that it is a prompt sent back.
	Replay bool
	// Synthetic says that the CLI wrote it, not a user and not a tool.
	Synthetic bool
}

// UnmarshalJSON decodes the line of the CLI.
func (u *UserMessage) UnmarshalJSON(data []byte) error {
	u.decode(bytes.Clone(data))
	return nil
}

func (u *UserMessage) decode(line []byte) {
	*u = UserMessage{}
	members(line, func(key, value []byte) {
		switch string(key) {
		case "message":
			members(value, func(key, value []byte) {
				if string(key) == "content" {
					u.Content.decode(value)
				}
			})
		case "tool_use_result":
			u.ToolUseResult = raw(value)
		case "isReplay":
			u.Replay = isTrue(value)
		case "isSynthetic":
			u.Synthetic = isTrue(value)
		}
	})
}

// StreamEvent is one event of the Messages API's stream.
// https://docs.anthropic.com/en/api/messages-streaming
type StreamEvent struct {
	// Type is the event's, such as "content_block_delta".
	Type string
	// Index is the content block's number in its message.
	Index int
	// DeltaType is that of a content_block_delta, such as "text_delta"; Text
	// and Thinking are what it adds, PartialJSON what it adds to a tool's input.
	DeltaType, Text, Thinking, PartialJSON string
	// Event is the event as the API wrote it.
	Event json.RawMessage
}

// UnmarshalJSON decodes the line of the CLI.
func (e *StreamEvent) UnmarshalJSON(data []byte) error {
	e.decode(bytes.Clone(data))
	return nil
}

func (e *StreamEvent) decode(line []byte) {
	*e = StreamEvent{}
	delta := func(key, value []byte) {
		switch string(key) {
		case "type":
			e.DeltaType = text(value)
		case "text":
			e.Text = text(value)
		case "thinking":
			e.Thinking = text(value)
		case "partial_json":
			e.PartialJSON = text(value)
		}
	}
	event := func(key, value []byte) {
		switch string(key) {
		case "type":
			e.Type = text(value)
		case "index":
			e.Index = number(value)
		case "delta":
			members(value, delta)
		}
	}
	members(line, func(key, value []byte) {
		if string(key) == "event" {
			e.Event = raw(value)
			members(value, event)
		}
	})
}

// Init begins every turn: what the CLI works with.
type Init struct {
	CLIVersion     string         `json:"claude_code_version"`
	Model          string         `json:"model"`
	Dir            string         `json:"cwd"`
	PermissionMode PermissionMode `json:"permissionMode"`
	APIKeySource   string         `json:"apiKeySource"`
	Tools          []string       `json:"tools"`
	SlashCommands  []string       `json:"slash_commands"`
	Agents         []string       `json:"agents"`
	MCPServers     []struct {
		Name   string `json:"name"`
		Status string `json:"status"`
	} `json:"mcp_servers"`
}

// APIRetry says that a request to the model failed and is repeated.
type APIRetry struct {
	Attempt    int     `json:"attempt"`
	MaxRetries int     `json:"max_retries"`
	DelayMS    float64 `json:"retry_delay_ms"`
	// Status is the HTTP status, 0 where there was no answer.
	Status int    `json:"error_status"`
	Error  string `json:"error"`
}
