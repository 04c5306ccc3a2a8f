package claude

import (
	"encoding/json"
	"fmt"
)

// Types of messages that the CLI writes, as Message.Type has them. Others exist,
// and more come with every version: they are delivered all the same.
const (
	TypeAssistant   = "assistant"
	TypeUser        = "user"
	TypeSystem      = "system"
	TypeStreamEvent = "stream_event"
	TypeResult      = "result"
	TypeRateLimit   = "rate_limit_event"
)

// Subtypes of messages of TypeSystem that this package has a type for.
const (
	SubtypeInit     = "init"
	SubtypeAPIRetry = "api_retry"
)

// Message is one line of the CLI's output: its envelope, and the whole line.
//
// It is one struct with accessors rather than an interface with a type for each
// kind of message: what a line says is decoded only when it is asked for, most
// lines of a long run are passed on without that, a Message costs no allocation
// of its own, and a type that this package learns later changes nothing for
// those who matched on Type before.
type Message struct {
	// Type and Subtype say what it is, such as "system" and "init".
	Type, Subtype string
	// SessionID is the conversation's id.
	SessionID string
	// UUID is the message's own id; empty where the CLI gives none.
	UUID string
	// ParentToolUseID is set on what a subagent does: the id of the tool use
	// that started it.
	ParentToolUseID string
	// Raw is the line as the CLI wrote it, without its newline. It is the
	// receiver's to keep, and not to be changed while the message is in use.
	Raw json.RawMessage
}

// Decode decodes the whole line into v, as json.Unmarshal does.
func (m *Message) Decode(v any) error { return m.decode("", v) }

// Assistant decodes a message of TypeAssistant. Another type is an error.
func (m *Message) Assistant() (*AssistantMessage, error) {
	a := new(AssistantMessage)
	return a, m.decode(TypeAssistant, a)
}

// User decodes a message of TypeUser: as a rule the results of tools. Another
// type is an error.
func (m *Message) User() (*UserMessage, error) {
	u := new(UserMessage)
	return u, m.decode(TypeUser, u)
}

// Init decodes a system message of SubtypeInit, which begins every turn.
// Another type is an error.
func (m *Message) Init() (*Init, error) {
	i := new(Init)
	return i, m.decode(TypeSystem, i)
}

// StreamEvent decodes a message of TypeStreamEvent, which Options.Partial asks
// for. Another type is an error.
func (m *Message) StreamEvent() (*StreamEvent, error) {
	e := new(StreamEvent)
	return e, m.decode(TypeStreamEvent, e)
}

// Result decodes a message of TypeResult. Another type is an error.
func (m *Message) Result() (*Result, error) {
	r := new(Result)
	return r, m.decode(TypeResult, r)
}

// APIRetry decodes a system message of SubtypeAPIRetry: a request to the model
// failed and is repeated. Another type is an error.
func (m *Message) APIRetry() (*APIRetry, error) {
	r := new(APIRetry)
	return r, m.decode(TypeSystem, r)
}

// decode decodes the line if it is of the type wanted; "" is any.
func (m *Message) decode(want string, v any) error {
	if want != "" && m.Type != want {
		return fmt.Errorf("claude: a message of type %q is not %q", m.Type, want)
	}
	if err := json.Unmarshal(m.Raw, v); err != nil {
		return &ProtocolError{Line: m.Raw, Err: err}
	}
	return nil
}
