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

// UnmarshalJSON decodes a block and keeps it whole in Raw.
func (b *ContentBlock) UnmarshalJSON(data []byte) error {
	type plain ContentBlock // without this method
	var p plain
	if err := json.Unmarshal(data, &p); err != nil {
		// A block of a type that gives these names another shape.
		var head struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(data, &head) != nil || isKnownBlock(head.Type) {
			return err
		}
		p = plain{Type: head.Type}
	}
	*b = ContentBlock(p)
	b.Raw = bytes.Clone(data)
	return nil
}

func isKnownBlock(blockType string) bool {
	switch blockType {
	case BlockText, BlockThinking, BlockToolUse, BlockToolResult:
		return true
	}
	return false
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

// UnmarshalJSON decodes a list of blocks, a string, or null.
func (c *Content) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	if len(data) > 0 && data[0] == '"' {
		block := ContentBlock{Type: BlockText}
		if err := json.Unmarshal(data, &block.Text); err != nil {
			return err
		}
		*c = Content{block}
		return nil
	}
	return json.Unmarshal(data, (*[]ContentBlock)(c))
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
	var line struct {
		Message struct {
			ID         string  `json:"id"`
			Model      string  `json:"model"`
			Content    Content `json:"content"`
			StopReason string  `json:"stop_reason"`
			Usage      Usage   `json:"usage"`
		} `json:"message"`
		Error string `json:"error"`
	}
	err := json.Unmarshal(data, &line)
	*a = AssistantMessage{
		MessageID: line.Message.ID, Model: line.Message.Model, Content: line.Message.Content,
		StopReason: line.Message.StopReason, Usage: line.Message.Usage, Error: line.Error,
	}
	return err
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
	var line struct {
		Message struct {
			Content Content `json:"content"`
		} `json:"message"`
		ToolUseResult json.RawMessage `json:"tool_use_result"`
		Replay        bool            `json:"isReplay"`
		Synthetic     bool            `json:"isSynthetic"`
	}
	err := json.Unmarshal(data, &line)
	*u = UserMessage{Content: line.Message.Content, ToolUseResult: line.ToolUseResult, Replay: line.Replay, Synthetic: line.Synthetic}
	return err
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
	var line struct {
		Event json.RawMessage `json:"event"`
	}
	if err := json.Unmarshal(data, &line); err != nil {
		return err
	}
	var event struct {
		Type  string `json:"type"`
		Index int    `json:"index"`
		Delta struct {
			Type        string `json:"type"`
			Text        string `json:"text"`
			Thinking    string `json:"thinking"`
			PartialJSON string `json:"partial_json"`
		} `json:"delta"`
	}
	err := json.Unmarshal(line.Event, &event)
	d := event.Delta
	*e = StreamEvent{
		Type: event.Type, Index: event.Index, DeltaType: d.Type,
		Text: d.Text, Thinking: d.Thinking, PartialJSON: d.PartialJSON, Event: line.Event,
	}
	return err
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
