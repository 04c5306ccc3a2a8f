package claude

import (
	"encoding/json"
	"sync/atomic"
)

// lazyContent is content that is decoded when somebody asks for it, and then kept.
type lazyContent struct {
	value   []byte
	decoded atomic.Pointer[Content]
}

func (l *lazyContent) get() Content {
	if c := l.decoded.Load(); c != nil {
		return *c
	}
	var c Content
	if l.value != nil {
		c.decode(l.value)
	}
	l.decoded.Store(&c)
	return c
}

// AssistantMessage is what the model said. The CLI writes one message for each
// content block, so several in a row share a MessageID.
type AssistantMessage struct {
	envelope
	content lazyContent

	MessageID  string
	Model      string
	StopReason string // empty until the model's message is complete
	// Usage is as it was when the model's message began: take the run's from
	// the ResultMessage.
	Usage Usage
	// Error is set when this is a message of the CLI about a request that
	// failed, such as "rate_limit" or "authentication_failed".
	Error string
	// RequestID is the API's id of the request.
	RequestID string
	// PromptIDs are the prompts that the turn has taken so far. The CLI says so
	// with the first message of a turn.
	PromptIDs []string
	// Supersedes are the UUIDs of messages before that this one replaces.
	Supersedes []string
	// Aborted says that the message was cut by an interrupt.
	Aborted bool
	// AgentID is the task, and SubagentType the kind, of the subagent that said
	// it; empty in the main conversation.
	AgentID, SubagentType string
	// Timestamp is when the block was finished on the sandbox's clock, in
	// RFC 3339; empty where the CLI does not say.
	Timestamp string
}

// Content is the blocks of the message, decoded when it is first called.
func (m *AssistantMessage) Content() Content { return m.content.get() }

func newAssistantMessage(e *envelope) Message {
	m := &AssistantMessage{envelope: *e}
	members(e.raw, func(key, value []byte) {
		switch string(key) {
		case "message":
			members(value, m.member)
		case "error":
			m.Error = text(value)
		case "request_id":
			m.RequestID = text(value)
		case "user_message_uuids":
			m.PromptIDs = texts(value)
		case "supersedes":
			m.Supersedes = texts(value)
		case "aborted":
			m.Aborted = isTrue(value)
		case "agent_id":
			m.AgentID = text(value)
		case "subagent_type":
			m.SubagentType = text(value)
		case "timestamp":
			m.Timestamp = text(value)
		}
	})
	return m
}

// member keeps a member of the API's message.
func (m *AssistantMessage) member(key, value []byte) {
	switch string(key) {
	case "id":
		m.MessageID = text(value)
	case "model":
		m.Model = text(value)
	case "content":
		m.content.value = value
	case "stop_reason":
		m.StopReason = text(value)
	case "usage":
		m.Usage.decode(value)
	}
}

// UserMessage is what the model was told: the results of tools, and with
// Options.ReplayPrompts the prompts.
type UserMessage struct {
	envelope
	content lazyContent

	// ToolUseResult is what the tool gave, in the tool's own shape; nil where
	// the CLI does not say.
	ToolUseResult json.RawMessage
	// Replay says that it is a prompt sent back.
	Replay bool
	// Synthetic says that the CLI wrote it, not a user and not a tool.
	Synthetic bool
	// AgentID is the task, and SubagentType the kind, of the subagent that was
	// told it; empty in the main conversation.
	AgentID, SubagentType string
	// Timestamp is when it was made on the sandbox's clock, in RFC 3339; empty
	// where the CLI does not say.
	Timestamp string
}

// Content is the blocks of the message, decoded when it is first called.
func (m *UserMessage) Content() Content { return m.content.get() }

func newUserMessage(e *envelope) Message {
	m := &UserMessage{envelope: *e}
	message := func(key, value []byte) {
		if string(key) == "content" {
			m.content.value = value
		}
	}
	members(e.raw, func(key, value []byte) {
		switch string(key) {
		case "message":
			members(value, message)
		case "tool_use_result":
			m.ToolUseResult = raw(value)
		case "isReplay":
			m.Replay = isTrue(value)
		case "isSynthetic":
			m.Synthetic = isTrue(value)
		case "agent_id":
			m.AgentID = text(value)
		case "subagent_type":
			m.SubagentType = text(value)
		case "timestamp":
			m.Timestamp = text(value)
		}
	})
	return m
}

// StreamEvent is one event of the Messages API's stream, which Options.Partial
// asks for. https://docs.anthropic.com/en/api/messages-streaming
type StreamEvent struct {
	envelope
	// Kind is the event's type, such as "content_block_delta".
	Kind string
	// Index is the content block's number in its message.
	Index int
	// DeltaType is that of a content_block_delta, such as "text_delta"; Text
	// and Thinking are what it adds, PartialJSON what it adds to a tool's input.
	DeltaType, Text, Thinking, PartialJSON string
	// Event is the event as the API wrote it.
	Event json.RawMessage
}

func newStreamEvent(e *envelope) Message {
	m := new(StreamEvent)
	m.read(e)
	return m
}

func (m *StreamEvent) read(e *envelope) {
	m.envelope = *e
	if m.Event = e.event; m.Event != nil {
		members(e.event, m.member)
	}
}

// eventRoom is room for the events of a stream, of which there are many: they
// are allocated several at once.
type eventRoom []StreamEvent

func (r *eventRoom) new(e *envelope) *StreamEvent {
	const several = 16
	if len(*r) == 0 {
		*r = make(eventRoom, several)
	}
	m := &(*r)[0]
	*r = (*r)[1:]
	m.read(e)
	return m
}

// member keeps a member of the event.
func (m *StreamEvent) member(key, value []byte) {
	switch string(key) {
	case "type":
		m.Kind = eventWord(value)
	case "index":
		m.Index = number(value)
	case "delta":
		members(value, m.delta)
	}
}

func (m *StreamEvent) delta(key, value []byte) {
	switch string(key) {
	case "type":
		m.DeltaType = eventWord(value)
	case "text":
		m.Text = text(value)
	case "thinking":
		m.Thinking = text(value)
	case "partial_json":
		m.PartialJSON = text(value)
	}
}

// eventWords are the types of events and deltas that nearly all have.
var eventWords = map[string]string{}

func init() {
	for _, w := range []string{
		"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop", "ping",
		"text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta",
	} {
		eventWords[`"`+w+`"`] = w
	}
}

// eventWord is text without an allocation for the words of the API.
func eventWord(value []byte) string {
	if w, ok := eventWords[string(value)]; ok { // no allocation
		return w
	}
	return text(value)
}
