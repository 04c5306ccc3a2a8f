package claude

import "encoding/json"

// InitMessage (system/init) begins every turn: what the CLI works with.
type InitMessage struct {
	envelope
	CLIVersion     string         `json:"claude_code_version"`
	Model          string         `json:"model"`
	Dir            string         `json:"cwd"`
	PermissionMode PermissionMode `json:"permissionMode"`
	// APIKeySource is where the key came from, such as "ANTHROPIC_API_KEY" or "none".
	APIKeySource  string   `json:"apiKeySource"`
	Tools         []string `json:"tools"`
	SlashCommands []string `json:"slash_commands"`
	Agents        []string `json:"agents"`
	Skills        []string `json:"skills"`
	Betas         []string `json:"betas"`
	OutputStyle   string   `json:"output_style"`
	// Capabilities are what this CLI can do of the protocol, such as
	// "interrupt_receipt_v1".
	Capabilities []string       `json:"capabilities"`
	MCPServers   []MCPInit      `json:"mcp_servers"`
	Plugins      []LoadedPlugin `json:"plugins"`
	PluginErrors []PluginError  `json:"plugin_errors"`
}

// MCPInit is an MCP server as an InitMessage tells of it.
type MCPInit struct {
	Name   string `json:"name"`
	Status string `json:"status"` // such as "connected" or "failed"
	Source string `json:"source"` // such as "sdk" or "project"
}

// LoadedPlugin is a plugin as an InitMessage tells of it.
type LoadedPlugin struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Version string `json:"version"`
}

// PluginError is why a plugin, or a part of one, was not loaded.
type PluginError struct {
	Plugin  string `json:"plugin"`
	Kind    string `json:"type"`
	Message string `json:"message"`
	Path    string `json:"path"`
}

// CompactBoundaryMessage (system/compact_boundary) says that the conversation so
// far was replaced by a summary.
type CompactBoundaryMessage struct {
	envelope
	Metadata struct {
		Trigger    string  `json:"trigger"` // "manual" or "auto"
		PreTokens  int     `json:"pre_tokens"`
		PostTokens int     `json:"post_tokens"`
		DurationMS float64 `json:"duration_ms"`
	} `json:"compact_metadata"`
}

// StatusMessage (system/status) says what the CLI is about.
type StatusMessage struct {
	envelope
	Status         string         `json:"status"` // "compacting", "requesting" or ""
	PermissionMode PermissionMode `json:"permissionMode"`
	CompactResult  string         `json:"compact_result"` // "success" or "failed"
	CompactError   string         `json:"compact_error"`
}

// APIRetryMessage (system/api_retry) says that a request to the model failed and
// is repeated.
type APIRetryMessage struct {
	envelope
	Attempt    int     `json:"attempt"`
	MaxRetries int     `json:"max_retries"`
	DelayMS    float64 `json:"retry_delay_ms"`
	// Status is the HTTP status, 0 where there was no answer.
	Status int `json:"error_status"`
	// Error is such as "rate_limit", "overloaded" or "server_error".
	Error string `json:"error"`
}

// ThinkingTokensMessage (system/thinking_tokens) estimates how much was thought
// while the thinking itself is not shown.
type ThinkingTokensMessage struct {
	envelope
	EstimatedTokens int    `json:"estimated_tokens"`       // of the block so far
	Delta           int    `json:"estimated_tokens_delta"` // since the last such message
	PromptID        string `json:"user_message_uuid"`
}

// SessionStateChangedMessage (system/session_state_changed) says whether the CLI
// is at work. "idle" comes when a turn and what it waited for are over.
type SessionStateChangedMessage struct {
	envelope
	State string `json:"state"` // "idle", "running" or "requires_action"
}

// PermissionDeniedMessage (system/permission_denied) says that the use of a tool
// was denied without anybody being asked. ResultMessage.Denials is the record of all.
type PermissionDeniedMessage struct {
	envelope
	Tool       string `json:"tool_name"`
	ToolUseID  string `json:"tool_use_id"`
	AgentID    string `json:"agent_id"`
	ReasonType string `json:"decision_reason_type"` // such as "mode" or "rule"
	Reason     string `json:"decision_reason"`
	Message    string `json:"message"` // what the model was told
}

// InformationalMessage (system/informational) is a line of text for the user.
type InformationalMessage struct {
	envelope
	Content   string `json:"content"`
	Level     string `json:"level"` // "info", "notice", "suggestion" or "warning"
	ToolUseID string `json:"tool_use_id"`
	// Stops says that the turn ends with this message.
	Stops bool   `json:"prevent_continuation"`
	Tag   string `json:"tag"`
}

// NotificationMessage (system/notification) is a passing note for the user.
type NotificationMessage struct {
	envelope
	Key       string  `json:"key"`
	Text      string  `json:"text"`
	Priority  string  `json:"priority"` // "low", "medium", "high" or "immediate"
	Color     string  `json:"color"`
	TimeoutMS float64 `json:"timeout_ms"`
}

// LocalCommandOutputMessage (system/local_command_output) is what a slash command
// of the CLI printed.
type LocalCommandOutputMessage struct {
	envelope
	Content string `json:"content"`
}

// PluginInstallMessage (system/plugin_install) tells of plugins being installed.
type PluginInstallMessage struct {
	envelope
	Status string `json:"status"` // "started", "installed", "failed" or "completed"
	Name   string `json:"name"`
	Error  string `json:"error"` // text from elsewhere, not to be trusted
}

// SlashCommand is a command or skill that a prompt may begin with.
type SlashCommand struct {
	Name         string   `json:"name"` // without the slash
	Description  string   `json:"description"`
	ArgumentHint string   `json:"argumentHint"`
	Aliases      []string `json:"aliases"`
	Builtin      bool     `json:"builtin"`
}

// CommandsChangedMessage (system/commands_changed) has all slash commands there
// are from now on.
type CommandsChangedMessage struct {
	envelope
	Commands []SlashCommand `json:"commands"`
}

// FilesPersistedMessage (system/files_persisted) tells which files were kept elsewhere.
type FilesPersistedMessage struct {
	envelope
	Files []struct {
		Name   string `json:"filename"`
		FileID string `json:"file_id"`
	} `json:"files"`
	Failed []struct {
		Name  string `json:"filename"`
		Error string `json:"error"`
	} `json:"failed"`
	ProcessedAt string `json:"processed_at"`
}

// MemoryRecallMessage (system/memory_recall) tells which memories the turn was given.
type MemoryRecallMessage struct {
	envelope
	Mode     string `json:"mode"` // "select" or "synthesize"
	Memories []struct {
		Path    string `json:"path"`
		Scope   string `json:"scope"` // "personal", "team" or "organization"
		Content string `json:"content"`
	} `json:"memories"`
}

// ElicitationCompleteMessage (system/elicitation_complete) says that what an MCP
// server asked for at a URL has been given.
type ElicitationCompleteMessage struct {
	envelope
	Server        string `json:"mcp_server_name"`
	ElicitationID string `json:"elicitation_id"`
}

// ModelRefusalFallbackMessage (system/model_refusal_fallback) says that the model
// refused, and that another was asked instead.
type ModelRefusalFallbackMessage struct {
	envelope
	Trigger       string `json:"trigger"`
	Direction     string `json:"direction"` // "retry", "revert" or "sticky"
	Scope         string `json:"scope"`     // "session" or "local"
	OriginalModel string `json:"original_model"`
	FallbackModel string `json:"fallback_model"`
	RequestID     string `json:"request_id"`
	Category      string `json:"api_refusal_category"`
	Explanation   string `json:"api_refusal_explanation"`
	// Retracted are the UUIDs of messages that no longer count.
	Retracted []string `json:"retracted_message_uuids"`
	PromptID  string   `json:"refused_user_message_uuid"`
	Content   string   `json:"content"`
}

// ModelRefusalNoFallbackMessage (system/model_refusal_no_fallback) says that the
// model refused and no other was asked.
type ModelRefusalNoFallbackMessage struct {
	envelope
	OriginalModel string `json:"original_model"`
	RequestID     string `json:"request_id"`
	Category      string `json:"api_refusal_category"`
	Explanation   string `json:"api_refusal_explanation"`
	PromptID      string `json:"refused_user_message_uuid"`
	Content       string `json:"content"`
}

// ControlRequestProgressMessage (system/control_request_progress) tells how a
// request of Session.Control that takes long is getting on.
type ControlRequestProgressMessage struct {
	envelope
	RequestID  string  `json:"request_id"`
	Status     string  `json:"status"` // "started" or "api_retry"
	Attempt    int     `json:"attempt"`
	MaxRetries int     `json:"max_retries"`
	DelayMS    float64 `json:"retry_delay_ms"`
	HTTPStatus int     `json:"error_status"`
}

// WorkerShuttingDownMessage (system/worker_shutting_down) says that the CLI is
// about to end.
type WorkerShuttingDownMessage struct {
	envelope
	Reason string `json:"reason"`
}

// SessionWritesLostMessage (system/session_writes_lost) says that the CLI could
// not save all of a conversation: resuming it may miss a part.
type SessionWritesLostMessage struct {
	envelope
	Code     string   `json:"error_code"` // such as "ENOSPC"
	Lost     []string `json:"lost"`       // "transcript", "global_config"
	Sessions []string `json:"transcript_session_ids"`
}

// MirrorErrorMessage (system/mirror_error) says that a part of the conversation
// did not reach the store that it is mirrored to.
type MirrorErrorMessage struct {
	envelope
	Error string          `json:"error"`
	Key   json.RawMessage `json:"key"`
}

// SessionTitleChangedMessage (system/session_title_changed, which only the CLI's
// own code shows) has the conversation's new title.
type SessionTitleChangedMessage struct {
	envelope
	Title string `json:"title"`
}
