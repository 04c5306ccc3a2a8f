package claude

import (
	"bytes"
	"encoding/json"
)

// Message is one line of the CLI's output. It is one of the types of this
// package whose docs say so, always as a pointer: *AssistantMessage,
// *StreamEvent, *ResultMessage and so on, or *UnknownMessage for a line of a
// type that this package has none for. The set grows with the CLI, so a type
// switch needs a default that passes over what it does not know.
//
//	switch m := msg.(type) {
//	case *claude.AssistantMessage:
//		fmt.Println(m.Content().Text())
//	case *claude.ResultMessage:
//		fmt.Println(m.CostUSD)
//	}
//
// A field that has come to have another shape than this package knows is left
// zero, and the rest of the message is there all the same. Encoded as JSON, a
// message is its line. Messages do not change and are safe for concurrent use.
//
// Types are those of @anthropic-ai/claude-agent-sdk 0.3.328 (SDKMessage in its
// sdk.d.ts), and two that only the CLI's own code shows.
type Message interface {
	// Type and Subtype say what it is, such as "system" and "init".
	Type() string
	Subtype() string
	// SessionID is the conversation's id.
	SessionID() string
	// UUID is the message's own id; empty where the CLI gives none.
	UUID() string
	// ParentToolUseID is set on what a subagent does: the id of the tool use
	// that started it.
	ParentToolUseID() string
	// Raw is the line as the CLI wrote it, without its newline. It shares memory
	// with its neighbours: clone what is to be kept for long, and do not change it.
	Raw() json.RawMessage

	sealed()
}

// envelope is what all messages have.
type envelope struct {
	typ, subtype    string
	session, parent string
	uuid            []byte // the value, a part of raw
	event           []byte // likewise
	raw             json.RawMessage
}

// Type is the line's "type", such as "assistant".
func (e *envelope) Type() string { return e.typ }

// Subtype is the line's "subtype", such as "init"; as a rule only messages of
// the types "system" and "result" have one.
func (e *envelope) Subtype() string { return e.subtype }

// SessionID is the conversation's id.
func (e *envelope) SessionID() string { return e.session }

// UUID is the message's own id; empty where the CLI gives none.
func (e *envelope) UUID() string {
	if e.uuid == nil {
		return ""
	}
	return text(e.uuid)
}

// ParentToolUseID is the id of the tool use that started the subagent whose
// message this is; empty in the main conversation.
func (e *envelope) ParentToolUseID() string { return e.parent }

// Raw is the line as the CLI wrote it, without its newline. It shares memory
// with its neighbours: clone what is to be kept for long, and do not change it.
func (e *envelope) Raw() json.RawMessage { return e.raw }

// MarshalJSON gives the line.
func (e *envelope) MarshalJSON() ([]byte, error) {
	if e.raw == nil {
		return []byte("null"), nil
	}
	return e.raw, nil
}

func (e *envelope) sealed() {}

func (e *envelope) setEnvelope(of envelope) { *e = of }

// UnknownMessage is a line of a type that this package has no type for: one that
// came with a newer CLI. Raw has all of it.
type UnknownMessage struct{ envelope }

// Decode decodes the whole line into v, as json.Unmarshal does, of which the
// error is a *ProtocolError.
func (m *UnknownMessage) Decode(v any) error { return decodeRaw(m.raw, v) }

func decodeRaw(line []byte, v any) error {
	if err := json.Unmarshal(line, v); err != nil {
		return &ProtocolError{Line: line, Err: err}
	}
	return nil
}

// Decode reads a line that Stream.Lines gave, now or from where it was kept.
// One that is not a message is a *ProtocolError. It depends on the line alone,
// and the message shares the line's memory. It is safe for concurrent use.
func Decode(line []byte) (Message, error) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	e, err := new(scanner).scan(line)
	if err != nil {
		return nil, &ProtocolError{Line: line, Err: err}
	}
	return e.message(), nil
}

// message makes the message of a line whose envelope was read.
func (e *envelope) message() Message {
	build := builders[e.typ]
	if e.typ == typeSystem {
		build = systemBuilders[e.subtype]
	}
	if build == nil {
		return &UnknownMessage{*e}
	}
	return build(e)
}

// Types of lines that this package looks for itself.
const (
	typeAssistant   = "assistant"
	typeUser        = "user"
	typeSystem      = "system"
	typeStreamEvent = "stream_event"
	typeResult      = "result"
)

// builders make messages by type, and systemBuilders those of type "system" by
// subtype.
var (
	builders = map[string]func(e *envelope) Message{
		typeAssistant:        newAssistantMessage,
		typeUser:             newUserMessage,
		typeStreamEvent:      newStreamEvent,
		typeResult:           func(e *envelope) Message { return newResultMessage(e) },
		"rate_limit_event":   fromJSON[RateLimitEvent],
		"tool_progress":      fromJSON[ToolProgressMessage],
		"auth_status":        fromJSON[AuthStatusMessage],
		"tool_use_summary":   fromJSON[ToolUseSummaryMessage],
		"prompt_suggestion":  fromJSON[PromptSuggestionMessage],
		"conversation_reset": fromJSON[ConversationResetMessage],
		"command_lifecycle":  fromJSON[CommandLifecycleMessage],
		"active_goal":        fromJSON[ActiveGoalMessage],
	}
	systemBuilders = map[string]func(e *envelope) Message{
		"init":                      fromJSON[InitMessage],
		"compact_boundary":          fromJSON[CompactBoundaryMessage],
		"status":                    fromJSON[StatusMessage],
		"api_retry":                 fromJSON[APIRetryMessage],
		"hook_started":              fromJSON[HookStartedMessage],
		"hook_progress":             fromJSON[HookProgressMessage],
		"hook_response":             fromJSON[HookResponseMessage],
		"task_started":              fromJSON[TaskStartedMessage],
		"task_progress":             fromJSON[TaskProgressMessage],
		"task_updated":              fromJSON[TaskUpdatedMessage],
		"task_notification":         fromJSON[TaskNotificationMessage],
		"background_tasks_changed":  fromJSON[BackgroundTasksChangedMessage],
		"thinking_tokens":           fromJSON[ThinkingTokensMessage],
		"session_state_changed":     fromJSON[SessionStateChangedMessage],
		"permission_denied":         fromJSON[PermissionDeniedMessage],
		"informational":             fromJSON[InformationalMessage],
		"notification":              fromJSON[NotificationMessage],
		"local_command_output":      fromJSON[LocalCommandOutputMessage],
		"plugin_install":            fromJSON[PluginInstallMessage],
		"commands_changed":          fromJSON[CommandsChangedMessage],
		"files_persisted":           fromJSON[FilesPersistedMessage],
		"memory_recall":             fromJSON[MemoryRecallMessage],
		"elicitation_complete":      fromJSON[ElicitationCompleteMessage],
		"model_refusal_fallback":    fromJSON[ModelRefusalFallbackMessage],
		"model_refusal_no_fallback": fromJSON[ModelRefusalNoFallbackMessage],
		"control_request_progress":  fromJSON[ControlRequestProgressMessage],
		"worker_shutting_down":      fromJSON[WorkerShuttingDownMessage],
		"session_writes_lost":       fromJSON[SessionWritesLostMessage],
		"mirror_error":              fromJSON[MirrorErrorMessage],
		"session_title_changed":     fromJSON[SessionTitleChangedMessage],
	}
)

// fromJSON makes a message whose fields are decoded by their tags.
func fromJSON[T any, P interface {
	*T
	Message
	setEnvelope(envelope)
}](e *envelope) Message {
	m := P(new(T))
	lenient(e.raw, m)
	m.setEnvelope(*e)
	return m
}

// lenient decodes valid JSON into v. What has another shape than v's fields is
// left out, not the rest: encoding/json goes on behind such a field.
func lenient(data []byte, v any) {
	_ = json.Unmarshal(data, v) // Raw has what v has not
}
