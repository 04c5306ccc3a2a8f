package claude

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Control sends a request of the control protocol and decodes the CLI's answer
// into response, if that is not nil. subtype names the request, such as
// "get_session_cost", and body has its fields: a struct or a map that is encoded
// as a JSON object, or nil for none. sdk.d.ts of @anthropic-ai/claude-agent-sdk
// has them all, as SDKControl…Request.
//
// It is bounded by ctx, after whose end the request is withdrawn. A request that
// the CLI refuses is a *ControlError, an answer of another shape than response a
// *ProtocolError; when the CLI ends first the error is its *EndError.
func (s *Session) Control(ctx context.Context, subtype string, body, response any) error {
	if s.p.in.isClosed() {
		return ErrClosed
	}
	return s.p.request(ctx, subtype, body, response)
}

type object map[string]any

// SetModel changes the model from the next request on; "" is the CLI's default.
// A model that the CLI refuses is a *ControlError.
func (s *Session) SetModel(ctx context.Context, model string) error {
	body := object{}
	if model != "" {
		body["model"] = model
	}
	return s.Control(ctx, "set_model", body, nil)
}

// SetPermissionMode changes what Claude may do without asking. A mode that the
// CLI refuses is a *ControlError: PermissionBypass is one unless the session
// began with it.
func (s *Session) SetPermissionMode(ctx context.Context, mode PermissionMode) error {
	return s.Control(ctx, "set_permission_mode", object{"mode": mode}, nil)
}

// SetMaxThinkingTokens changes how many tokens the model may think. 0 switches
// thinking off, a negative number is what the session began with.
func (s *Session) SetMaxThinkingTokens(ctx context.Context, tokens int) error {
	body := object{"max_thinking_tokens": nil}
	if tokens >= 0 {
		body["max_thinking_tokens"] = tokens
	}
	return s.Control(ctx, "set_max_thinking_tokens", body, nil)
}

// Rewind is what RewindFiles did, or would do.
type Rewind struct {
	Possible     bool     `json:"canRewind"`
	Error        string   `json:"error"` // why it is not
	Files        []string `json:"filesChanged"`
	Insertions   int      `json:"insertions"`
	Deletions    int      `json:"deletions"`
	SkippedLinks int      `json:"skippedLinks"`
}

// RewindFiles makes the files that Claude has changed with its own tools what
// they were before a prompt, named by Stream.PromptID. dry only says what would
// change. It needs Options.FileCheckpointing. One that is not possible is a
// *ControlError.
func (s *Session) RewindFiles(ctx context.Context, promptID string, dry bool) (*Rewind, error) {
	r := new(Rewind)
	body := object{"user_message_id": promptID, "dry_run": dry}
	if err := s.Control(ctx, "rewind_files", body, r); err != nil {
		return nil, err
	}
	if !r.Possible {
		return r, &ControlError{Request: "rewind_files", Message: r.Error}
	}
	return r, nil
}

// MCPStatus is how an MCP server is doing.
type MCPStatus struct {
	Name       string `json:"name"`
	Status     string `json:"status"` // "connected", "failed", "needs-auth", "pending" or "disabled"
	Error      string `json:"error"`
	Scope      string `json:"scope"`
	Source     string `json:"source"` // "sdk" for one of this process
	ServerInfo struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"serverInfo"`
	Tools []struct {
		Name        string `json:"name"`
		Description string `json:"description"`
	} `json:"tools"`
}

// MCPStatus tells how all MCP servers are doing.
func (s *Session) MCPStatus(ctx context.Context) ([]MCPStatus, error) {
	var answer struct {
		Servers []MCPStatus `json:"mcpServers"`
	}
	err := s.Control(ctx, "mcp_status", nil, &answer)
	return answer.Servers, err
}

// MCPChange is what SetMCPServers did.
type MCPChange struct {
	Added   []string          `json:"added"`
	Removed []string          `json:"removed"`
	Errors  map[string]string `json:"errors"` // of servers that cannot be connected to
}

// SetMCPServers replaces the MCP servers of Options.MCPServers, or of this
// method before, by others.
func (s *Session) SetMCPServers(ctx context.Context, servers map[string]MCPServer) (*MCPChange, error) {
	configs := map[string]mcpConfig{}
	for name, server := range servers {
		if err := server.validate(name); err != nil {
			return nil, fmt.Errorf("claude: %w: %w", sandbox.ErrInvalid, err)
		}
		configs[name] = server.config(name)
	}
	s.p.setMCPServers(servers)
	change := new(MCPChange)
	err := s.Control(ctx, "mcp_set_servers", object{"servers": configs}, change)
	return change, err
}

// setMCPServers replaces the servers of this process. One that stays under its
// name keeps its connection.
func (p *process) setMCPServers(servers map[string]MCPServer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, old := range p.host.mcp {
		server, stays := servers[name]
		if stays && server.InProcess == old.handler {
			continue
		}
		delete(p.host.mcp, name)
		go old.end()
	}
	for name, server := range servers {
		if p.host.mcp[name] == nil {
			p.host.addMCP(p, name, server)
		}
	}
}

// ReconnectMCP connects to an MCP server again.
func (s *Session) ReconnectMCP(ctx context.Context, server string) error {
	return s.Control(ctx, "mcp_reconnect", object{"serverName": server}, nil)
}

// ToggleMCP switches an MCP server on or off.
func (s *Session) ToggleMCP(ctx context.Context, server string, on bool) error {
	return s.Control(ctx, "mcp_toggle", object{"serverName": server, "enabled": on}, nil)
}

// ContextUsage is what fills the model's context window.
type ContextUsage struct {
	Model       string  `json:"model"`
	TotalTokens int     `json:"totalTokens"`
	MaxTokens   int     `json:"maxTokens"`
	Percentage  float64 `json:"percentage"` // 0 to 100, and above
	Categories  []struct {
		ID     string `json:"id"`
		Name   string `json:"name"`
		Kind   string `json:"kind"` // "used", "free", "buffer" or "deferred"
		Tokens int    `json:"tokens"`
	} `json:"categories"`
	AutoCompact          bool `json:"isAutoCompactEnabled"`
	AutoCompactThreshold int  `json:"autoCompactThreshold"`
	// Raw is the whole answer.
	Raw json.RawMessage `json:"-"`
}

// ContextUsage tells what fills the model's context window.
func (s *Session) ContextUsage(ctx context.Context) (*ContextUsage, error) {
	u := new(ContextUsage)
	if err := s.Control(ctx, "get_context_usage", nil, &u.Raw); err != nil {
		return nil, err
	}
	if u.Raw != nil {
		lenient(u.Raw, u)
	}
	return u, nil
}

// StopTask ends a command or a subagent that runs in the background.
func (s *Session) StopTask(ctx context.Context, taskID string) error {
	return s.Control(ctx, "stop_task", object{"task_id": taskID}, nil)
}
