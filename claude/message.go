package claude

import (
	"bytes"
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
	// Raw is the line as the CLI wrote it, without its newline. It shares memory
	// with its neighbours: clone what is to be kept for long, and do not change
	// it. What the accessors return shares it too.
	Raw json.RawMessage
}

// ParseMessage reads a line that Stream.Lines gave, now or from where it was
// kept. One that is not a message is a *ProtocolError, with the line in
// Message.Raw. The Message shares the line's memory.
func ParseMessage(line []byte) (Message, error) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	m, err := new(scanner).scan(line)
	if err != nil {
		return m, &ProtocolError{Line: line, Err: err}
	}
	return m, nil
}

// Decode decodes the whole line into v, as json.Unmarshal does, of which the
// error is a *ProtocolError.
func (m *Message) Decode(v any) error {
	if err := json.Unmarshal(m.Raw, v); err != nil {
		return &ProtocolError{Line: m.Raw, Err: err}
	}
	return nil
}

// Assistant decodes a message of TypeAssistant. Another type is an error.
func (m *Message) Assistant() (*AssistantMessage, error) {
	if err := m.is(TypeAssistant); err != nil {
		return nil, err
	}
	a := new(AssistantMessage)
	a.decode(m.Raw)
	return a, nil
}

// User decodes a message of TypeUser: as a rule the results of tools. Another
// type is an error.
func (m *Message) User() (*UserMessage, error) {
	if err := m.is(TypeUser); err != nil {
		return nil, err
	}
	u := new(UserMessage)
	u.decode(m.Raw)
	return u, nil
}

// Init decodes a system message of SubtypeInit, which begins every turn.
// Another type is an error.
func (m *Message) Init() (*Init, error) {
	if err := m.is(TypeSystem, SubtypeInit); err != nil {
		return nil, err
	}
	i := new(Init)
	return i, m.Decode(i)
}

// StreamEvent decodes a message of TypeStreamEvent, which Options.Partial asks
// for. Another type is an error.
func (m *Message) StreamEvent() (*StreamEvent, error) {
	if err := m.is(TypeStreamEvent); err != nil {
		return nil, err
	}
	e := new(StreamEvent)
	e.decode(m.Raw)
	return e, nil
}

// Result decodes a message of TypeResult. Another type is an error.
func (m *Message) Result() (*Result, error) {
	if err := m.is(TypeResult); err != nil {
		return nil, err
	}
	r := new(Result)
	return r, m.Decode(r)
}

// APIRetry decodes a system message of SubtypeAPIRetry: a request to the model
// failed and is repeated. Another type is an error.
func (m *Message) APIRetry() (*APIRetry, error) {
	if err := m.is(TypeSystem, SubtypeAPIRetry); err != nil {
		return nil, err
	}
	r := new(APIRetry)
	return r, m.Decode(r)
}

// is is an error for a message of another type, or subtype where one is given.
func (m *Message) is(want string, subtype ...string) error {
	if m.Type == want && (len(subtype) == 0 || m.Subtype == subtype[0]) {
		return nil
	}
	return fmt.Errorf("claude: a message of type %q, subtype %q is not %q", m.Type, m.Subtype, append([]string{want}, subtype...))
}
