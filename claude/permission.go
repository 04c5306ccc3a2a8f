package claude

import (
	"context"
	"encoding/json"
)

// ToolRequest asks whether Claude may use a tool. Options.CanUseTool answers it.
type ToolRequest struct {
	Tool      string          `json:"tool_name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	// AgentID is the subagent that wants to; empty in the main conversation.
	AgentID string `json:"agent_id"`
	// Suggestions are what would make the same question needless: pass them on
	// as Permission.Remember where the user says "always".
	Suggestions []PermissionUpdate `json:"permission_suggestions"`
	// BlockedPath is the file for which it is asked.
	BlockedPath string `json:"blocked_path"`
	// Reason is why it is asked, and ReasonType of which kind that is, such as
	// "safetyCheck". Text from the sandbox, which may hold escape codes.
	Reason     string `json:"decision_reason"`
	ReasonType string `json:"decision_reason_type"`
	// Title is a sentence for the user, DisplayName a name for the action and
	// Description a line below it; each may be empty.
	Title       string `json:"title"`
	DisplayName string `json:"display_name"`
	Description string `json:"description"`
	// DefaultToNo says that one key must not be enough to allow it, and NoAlways
	// that "always" must not be offered.
	DefaultToNo bool `json:"default_to_no"`
	NoAlways    bool `json:"suppress_always_allow_rule"`
	// MCPServer is the server of an "mcp__" tool: its name, and where it comes
	// from; "sdk" is one of Options.MCPServers in this process.
	MCPServer struct {
		Name   string `json:"name"`
		Source string `json:"source"`
	} `json:"mcp_server"`
	// Raw is the whole request.
	Raw json.RawMessage `json:"-"`
}

// Permission is the answer to a ToolRequest: Allow, Deny, or one put together.
// The zero value denies.
type Permission struct {
	// Allowed allows the use.
	Allowed bool
	// Input replaces the tool's input where it is allowed; nil leaves it.
	Input any
	// Remember are changes to the rules, such as ToolRequest.Suggestions.
	Remember []PermissionUpdate
	// Message is why it is denied, for Claude.
	Message string
	// Interrupt also ends the turn, where it is denied.
	Interrupt bool
}

// Allow is the Permission to use a tool as asked for.
func Allow() *Permission { return &Permission{Allowed: true} }

// notAllowed is what Claude is told where nobody said why.
const notAllowed = "not allowed"

// Deny is the Permission that is none, with the reason that Claude is told.
func Deny(message string) *Permission { return &Permission{Message: message} }

// PermissionUpdate is a change to the rules by which tools are allowed.
// PermissionUpdate in sdk.d.ts says what goes with which type.
type PermissionUpdate struct {
	// Type is "addRules", "replaceRules", "removeRules", "setMode",
	// "addDirectories" or "removeDirectories".
	Type        string           `json:"type"`
	Rules       []PermissionRule `json:"rules,omitempty"`
	Behavior    string           `json:"behavior,omitempty"` // "allow", "deny" or "ask"
	Mode        PermissionMode   `json:"mode,omitempty"`
	Directories []string         `json:"directories,omitempty"`
	// Destination is where it is kept: "session", or one of the sandbox's
	// settings files, "userSettings", "projectSettings" or "localSettings".
	Destination string `json:"destination,omitempty"`
}

// PermissionRule names a tool, and what of it, such as "git *" of Bash.
type PermissionRule struct {
	Tool    string `json:"toolName"`
	Content string `json:"ruleContent,omitempty"`
}

// permissionAnswer is a Permission as the CLI takes it: PermissionResult in sdk.d.ts.
type permissionAnswer struct {
	Behavior  string             `json:"behavior"`
	Input     any                `json:"updatedInput,omitempty"`
	Remember  []PermissionUpdate `json:"updatedPermissions,omitempty"`
	Message   *string            `json:"message,omitempty"`
	Interrupt bool               `json:"interrupt,omitempty"`
	ToolUseID string             `json:"toolUseID,omitempty"`
}

func (p *Permission) answer(use *ToolRequest) *permissionAnswer {
	if p == nil || !p.Allowed {
		a := &permissionAnswer{Behavior: "deny", Message: new(string), ToolUseID: use.ToolUseID}
		if p != nil {
			*a.Message, a.Interrupt = p.Message, p.Interrupt
		}
		if *a.Message == "" {
			*a.Message = notAllowed
		}
		return a
	}
	a := &permissionAnswer{Behavior: "allow", Input: p.Input, Remember: p.Remember, ToolUseID: use.ToolUseID}
	if a.Input == nil && use.Input != nil {
		a.Input = use.Input
	}
	return a
}

// askPermission answers a can_use_tool request.
func (o *Options) askPermission(ctx context.Context, request json.RawMessage) (any, error) {
	use := &ToolRequest{Raw: request}
	lenient(request, use)
	var permission *Permission
	var err error
	switch answer := o.Answers[use.ToolUseID]; {
	case answer != nil: // what was put off, and is asked about all the same
		permission = answer
	case o.CanUseTool == nil:
		permission = Deny("nobody is there to ask")
	default:
		permission, err = o.CanUseTool(ctx, use)
	}
	if err != nil {
		permission = Deny("the host could not decide: " + err.Error())
	}
	return permission.answer(use), nil
}

// Elicitation is an MCP server's question to the user. Options.OnElicitation
// answers it.
type Elicitation struct {
	Server  string `json:"mcp_server_name"`
	Message string `json:"message"`
	// Mode is "form" for the fields of Schema, or "url" for something to be
	// done at URL.
	Mode          string          `json:"mode"`
	Schema        json.RawMessage `json:"requested_schema"`
	URL           string          `json:"url"`
	ElicitationID string          `json:"elicitation_id"`
	Title         string          `json:"title"`
	DisplayName   string          `json:"display_name"`
	Description   string          `json:"description"`
}

// ElicitationAnswer is what the user said.
type ElicitationAnswer struct {
	// Action is "accept", "decline" or "cancel"; empty is "decline".
	Action string `json:"action"`
	// Content are the fields of an accepted form.
	Content map[string]any `json:"content,omitempty"`
}

func (o *Options) elicit(ctx context.Context, request json.RawMessage) (any, error) {
	var e Elicitation
	lenient(request, &e)
	answer, err := o.OnElicitation(ctx, &e)
	if err != nil {
		return nil, err
	}
	if answer == nil || answer.Action == "" {
		answer = &ElicitationAnswer{Action: "decline"}
	}
	return answer, nil
}

// UserDialog is a question of the CLI's own to the user, of one of the kinds in
// Options.DialogKinds. Options.OnUserDialog answers it.
type UserDialog struct {
	Kind      string          `json:"dialog_kind"`
	Payload   json.RawMessage `json:"payload"` // its shape goes with Kind
	ToolUseID string          `json:"tool_use_id"`
}

// dialogAnswer is UserDialogResult in sdk.d.ts.
type dialogAnswer struct {
	Behavior string `json:"behavior"`
	Result   any    `json:"result,omitempty"`
}

func (o *Options) showDialog(ctx context.Context, request json.RawMessage) (any, error) {
	var d UserDialog
	lenient(request, &d)
	result, err := o.OnUserDialog(ctx, &d)
	if err != nil {
		return nil, err
	}
	if result == nil {
		return dialogAnswer{Behavior: "cancelled"}, nil
	}
	return dialogAnswer{Behavior: "completed", Result: result}, nil
}
