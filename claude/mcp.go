package claude

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// MCPServer is a server of the Model Context Protocol whose tools Claude may
// use, as "mcp__NAME__TOOL". Exactly one of Command, URL and InProcess is set.
type MCPServer struct {
	// Command is a program in the sandbox that speaks MCP on its standard
	// streams, with Args, and Env beside its environment.
	Command string
	Args    []string
	Env     map[string]string
	// URL is a server that the CLI reaches over HTTP, with Headers, or with the
	// older server-sent events where SSE is set.
	URL     string
	Headers map[string]string
	SSE     bool
	// InProcess is a server of this process; package claude/mcpserver makes one
	// of a server of the official Go SDK. It needs no network.
	InProcess MCPHandler
	// Timeout bounds a call of a tool. 0 means the CLI's own, and below a second
	// it is that too.
	Timeout time.Duration
	// AlwaysLoad puts its tools into every prompt instead of having Claude look
	// them up when there are many. It is not for InProcess.
	AlwaysLoad bool
	// Ask and Deny are tools of it for which CanUseTool is always asked, and
	// that are never allowed.
	Ask, Deny []string
}

// MCPHandler serves MCP to the CLI from this process.
type MCPHandler interface {
	// ServeMCP serves one client until ctx ends or conn's Receive gives io.EOF,
	// and then returns. It is called again where the client connects anew.
	ServeMCP(ctx context.Context, conn MCPConn) error
}

// MCPConn is a connection to an MCP client: whole JSON-RPC 2.0 messages, in
// order. Its methods are safe for concurrent use.
type MCPConn interface {
	// Receive blocks for the next message; io.EOF means that none will come.
	Receive(ctx context.Context) (json.RawMessage, error)
	// Send sends a message.
	Send(ctx context.Context, message json.RawMessage) error
}

// mcpConfig is a server as the CLI takes it: McpServerConfigForProcessTransport
// in sdk.d.ts.
type mcpConfig struct {
	Type       string            `json:"type"`
	Name       string            `json:"name,omitempty"`
	Command    string            `json:"command,omitempty"`
	Args       []string          `json:"args,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	URL        string            `json:"url,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Timeout    int64             `json:"timeout,omitempty"` // in milliseconds
	AlwaysLoad bool              `json:"alwaysLoad,omitempty"`
	Tools      []mcpPolicy       `json:"tools,omitempty"`
}

type mcpPolicy struct {
	Name   string `json:"name"`
	Policy string `json:"permission_policy"`
}

func (s *MCPServer) config(name string) mcpConfig {
	c := mcpConfig{Timeout: s.Timeout.Milliseconds(), AlwaysLoad: s.AlwaysLoad}
	for _, tool := range s.Ask {
		c.Tools = append(c.Tools, mcpPolicy{tool, "always_ask"})
	}
	for _, tool := range s.Deny {
		c.Tools = append(c.Tools, mcpPolicy{tool, "always_deny"})
	}
	switch {
	case s.InProcess != nil:
		c.Type, c.Name, c.AlwaysLoad = "sdk", name, false
	case s.Command != "":
		c.Type, c.Command, c.Args, c.Env = "stdio", s.Command, s.Args, s.Env
	case s.SSE:
		c.Type, c.URL, c.Headers = "sse", s.URL, s.Headers
	default:
		c.Type, c.URL, c.Headers = "http", s.URL, s.Headers
	}
	return c
}

func (s *MCPServer) validate(name string) error {
	set := 0
	for _, is := range []bool{s.Command != "", s.URL != "", s.InProcess != nil} {
		if is {
			set++
		}
	}
	if name == "" || set != 1 {
		return fmt.Errorf("MCPServers[%q]: set a name, and one of Command, URL and InProcess", name)
	}
	return nil
}

// mcpInboxLimit is how many bytes of messages may wait for a server of this process.
const mcpInboxLimit = 64 << 20

var errMCPInbox = errors.New("the server does not read what it is sent")

// mcpHost is a server of this process with its connection to the CLI.
type mcpHost struct {
	name    string
	handler MCPHandler
	p       *process

	mu   sync.Mutex // taken before process.mu, never after
	conn *mcpConn   // nil until a client has come
}

// deliver passes a message of the CLI on, and answers its control request when
// the server has answered. It does not block.
func (h *mcpHost) deliver(requestID string, message json.RawMessage) {
	var head struct {
		Method string          `json:"method"`
		ID     json.RawMessage `json:"id"`
	}
	lenient(message, &head)
	h.mu.Lock()
	defer h.mu.Unlock()
	if head.Method == "initialize" && h.conn != nil {
		h.conn.close() // a client that connects anew
		h.conn = nil
	}
	if h.conn == nil {
		h.conn = newMCPConn(h)
		conn := h.conn
		h.p.spawn(func(ctx context.Context) {
			defer conn.close()
			err := h.p.guard("MCP server "+h.name, func() error { return h.handler.ServeMCP(ctx, conn) })
			conn.fail(err)
		})
	}
	h.conn.push(requestID, head.Method, given(head.ID), message)
}

// end ends the server's connection.
func (h *mcpHost) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn != nil {
		h.conn.close()
	}
}

// mcpConn is an MCPConn over control requests.
type mcpConn struct {
	h *mcpHost

	mu      sync.Mutex
	inbox   []json.RawMessage
	size    int
	more    chan struct{}     // has room for one: something changed
	waiting map[string]string // control requests by the ids of the messages they brought
	closed  bool
}

func newMCPConn(h *mcpHost) *mcpConn {
	return &mcpConn{h: h, more: make(chan struct{}, 1), waiting: map[string]string{}}
}

func (c *mcpConn) push(requestID, method string, id, message json.RawMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		c.h.p.answerError(requestID, "the server has ended")
		return
	case c.size+len(message) > mcpInboxLimit:
		c.h.p.answerError(requestID, errMCPInbox.Error())
		return
	case method != "" && id != nil:
		c.waiting[string(id)] = requestID
	default: // nothing comes back
		c.h.p.settle(requestID, map[string]any{"mcp_response": map[string]any{"jsonrpc": "2.0", "result": struct{}{}, "id": 0}})
	}
	c.inbox = append(c.inbox, message)
	c.size += len(message)
	c.signal()
}

func (c *mcpConn) signal() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// Receive gives the next message of the CLI.
func (c *mcpConn) Receive(ctx context.Context) (json.RawMessage, error) {
	for {
		c.mu.Lock()
		if len(c.inbox) > 0 {
			message := c.inbox[0]
			c.inbox[0], c.inbox = nil, c.inbox[1:]
			c.size -= len(message)
			if len(c.inbox) > 0 {
				c.signal()
			}
			c.mu.Unlock()
			return message, nil
		}
		closed := c.closed
		c.mu.Unlock()
		if closed {
			c.signal() // for who else waits
			return nil, io.EOF
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Send sends a message to the CLI: as the answer to the control request that
// brought what it answers, or as a request of ours.
func (c *mcpConn) Send(ctx context.Context, message json.RawMessage) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	var head struct {
		Method string          `json:"method"`
		ID     json.RawMessage `json:"id"`
	}
	if err := json.Unmarshal(message, &head); err != nil {
		return err
	}
	c.mu.Lock()
	requestID, answers := c.waiting[string(head.ID)]
	answers = answers && head.Method == ""
	if answers {
		delete(c.waiting, string(head.ID))
	}
	closed := c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return io.ErrClosedPipe
	case answers:
		return c.h.p.answer(requestID, map[string]any{"mcp_response": message})
	}
	id, _ := c.h.p.expect()
	defer c.h.p.forget(id) // its answer says nothing
	return c.h.p.sendRequest(id, map[string]any{"subtype": "mcp_message", "server_name": c.h.name, "message": message})
}

func (c *mcpConn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.signal()
}

// fail answers what was not answered.
func (c *mcpConn) fail(err error) {
	text := "the server has ended"
	if err != nil {
		text += ": " + err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, requestID := range c.waiting {
		c.h.p.answerError(requestID, text)
	}
	clear(c.waiting)
}
