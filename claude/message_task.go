package claude

// TaskUsage is what a task in the background has used so far.
type TaskUsage struct {
	TotalTokens int     `json:"total_tokens"`
	ToolUses    int     `json:"tool_uses"`
	DurationMS  float64 `json:"duration_ms"`
}

// TaskStartedMessage (system/task_started) says that a subagent, a command or
// another task has begun.
type TaskStartedMessage struct {
	envelope
	TaskID       string `json:"task_id"`
	RunID        string `json:"run_id"`
	ToolUseID    string `json:"tool_use_id"`
	Description  string `json:"description"`
	SubagentType string `json:"subagent_type"`
	TaskType     string `json:"task_type"` // such as "local_agent" or "local_bash"
	ParentTaskID string `json:"parent_task_id"`
	Prompt       string `json:"prompt"`
	WorkflowName string `json:"workflow_name"`
	SpawnDepth   int    `json:"spawn_depth"`
	Backgrounded bool   `json:"is_backgrounded"`
	// Ambient says that it is no activity to be shown, such as a watcher.
	Ambient bool `json:"ambient"`
}

// TaskProgressMessage (system/task_progress) tells how a task is getting on.
type TaskProgressMessage struct {
	envelope
	TaskID       string    `json:"task_id"`
	RunID        string    `json:"run_id"`
	ToolUseID    string    `json:"tool_use_id"`
	Description  string    `json:"description"`
	SubagentType string    `json:"subagent_type"`
	Usage        TaskUsage `json:"usage"`
	LastTool     string    `json:"last_tool_name"`
	// Summary is a line about what it does, with Options.AgentProgressSummaries.
	Summary string `json:"summary"`
}

// TaskUpdatedMessage (system/task_updated) has what changed of a task; the rest
// of Patch is zero.
type TaskUpdatedMessage struct {
	envelope
	TaskID string `json:"task_id"`
	RunID  string `json:"run_id"`
	Patch  struct {
		Status       string  `json:"status"` // "pending", "running", "completed", "failed", "killed" or "paused"
		Description  string  `json:"description"`
		EndTime      float64 `json:"end_time"` // in milliseconds since 1970
		Error        string  `json:"error"`
		Backgrounded *bool   `json:"is_backgrounded"`
	} `json:"patch"`
}

// TaskNotificationMessage (system/task_notification) says that a task has ended.
type TaskNotificationMessage struct {
	envelope
	TaskID     string    `json:"task_id"`
	RunID      string    `json:"run_id"`
	ToolUseID  string    `json:"tool_use_id"`
	Status     string    `json:"status"` // "completed", "failed" or "stopped"
	Reason     string    `json:"reason"`
	OutputFile string    `json:"output_file"` // in the sandbox
	Summary    string    `json:"summary"`
	Usage      TaskUsage `json:"usage"`
	Ambient    bool      `json:"ambient"`
}

// BackgroundTask is a task that goes on in the background.
type BackgroundTask struct {
	TaskID       string `json:"task_id"`
	RunID        string `json:"run_id"`
	TaskType     string `json:"task_type"`
	SubagentType string `json:"subagent_type"`
	Description  string `json:"description"`
	ParentTaskID string `json:"parent_task_id"`
	// Ambient says that it is no activity to be waited for, such as a watcher.
	Ambient bool `json:"ambient"`
}

// BackgroundTasksChangedMessage (system/background_tasks_changed) has all tasks
// that go on in the background from now on.
type BackgroundTasksChangedMessage struct {
	envelope
	Tasks []BackgroundTask `json:"tasks"`
}

// HookStartedMessage (system/hook_started) says that a hook has begun; see
// Options.HookEvents.
type HookStartedMessage struct {
	envelope
	HookID string    `json:"hook_id"`
	Name   string    `json:"hook_name"`
	Event  HookEvent `json:"hook_event"`
}

// HookProgressMessage (system/hook_progress) is what a hook has printed so far.
type HookProgressMessage struct {
	envelope
	HookID string    `json:"hook_id"`
	Name   string    `json:"hook_name"`
	Event  HookEvent `json:"hook_event"`
	Stdout string    `json:"stdout"`
	Stderr string    `json:"stderr"`
	Output string    `json:"output"`
}

// HookResponseMessage (system/hook_response) is what came of a hook.
type HookResponseMessage struct {
	envelope
	HookID   string    `json:"hook_id"`
	Name     string    `json:"hook_name"`
	Event    HookEvent `json:"hook_event"`
	Output   string    `json:"output"`
	Stdout   string    `json:"stdout"`
	Stderr   string    `json:"stderr"`
	ExitCode int       `json:"exit_code"`
	Outcome  string    `json:"outcome"` // "success", "error" or "cancelled"
}

// RateLimitEvent (rate_limit_event) has the limits of a claude.ai subscription
// when they have changed.
type RateLimitEvent struct {
	envelope
	Info RateLimitInfo `json:"rate_limit_info"`
}

// RateLimitInfo is a limit of a claude.ai subscription. Times are in seconds since 1970.
type RateLimitInfo struct {
	Status      string  `json:"status"` // "allowed", "allowed_warning" or "rejected"
	ResetsAt    float64 `json:"resetsAt"`
	Type        string  `json:"rateLimitType"` // such as "five_hour"
	Utilization float64 `json:"utilization"`   // 0 to 1
	// Overage is about use beyond the plan.
	OverageStatus         string  `json:"overageStatus"`
	OverageResetsAt       float64 `json:"overageResetsAt"`
	OverageDisabledReason string  `json:"overageDisabledReason"`
	UsingOverage          bool    `json:"isUsingOverage"`
	LimitScope            string  `json:"limitScope"`
	ErrorCode             string  `json:"errorCode"`
}

// ToolProgressMessage (tool_progress) says that a tool is still at work.
type ToolProgressMessage struct {
	envelope
	ToolUseID    string  `json:"tool_use_id"`
	Tool         string  `json:"tool_name"`
	Seconds      float64 `json:"elapsed_time_seconds"`
	TaskID       string  `json:"task_id"`
	Heartbeat    bool    `json:"heartbeat"`
	SubagentType string  `json:"subagent_type"`
	// Retry is set while a subagent's request to the model is repeated.
	Retry *struct {
		AgentID    string  `json:"agent_id"`
		Attempt    int     `json:"attempt"`
		MaxRetries int     `json:"max_retries"`
		DelayMS    float64 `json:"retry_delay_ms"`
		Status     int     `json:"error_status"`
		Category   string  `json:"error_category"`
	} `json:"subagent_retry"`
}

// AuthStatusMessage (auth_status) tells of a login that is going on.
type AuthStatusMessage struct {
	envelope
	Authenticating bool     `json:"isAuthenticating"`
	Output         []string `json:"output"`
	Error          string   `json:"error"`
}

// ToolUseSummaryMessage (tool_use_summary) sums the uses of tools before it up.
type ToolUseSummaryMessage struct {
	envelope
	Summary    string   `json:"summary"`
	ToolUseIDs []string `json:"preceding_tool_use_ids"`
}

// PromptSuggestionMessage (prompt_suggestion) is what the user may say next; it
// comes behind the result, with Options.PromptSuggestions.
type PromptSuggestionMessage struct {
	envelope
	Suggestion string `json:"suggestion"`
}

// ConversationResetMessage (conversation_reset) says that the session goes on in
// a new, empty conversation, as after "/clear".
type ConversationResetMessage struct {
	envelope
	NewConversationID string `json:"new_conversation_id"`
	Trigger           string `json:"trigger"` // such as "clear" or "plan_mode_exit"
	PromptID          string `json:"user_message_uuid"`
	Timestamp         string `json:"timestamp"`
}

// CommandLifecycleMessage (command_lifecycle, which only the CLI's own code
// shows) tells how a prompt in the CLI's queue is getting on.
type CommandLifecycleMessage struct {
	envelope
	PromptID string `json:"command_uuid"`
	State    string `json:"state"` // "started", "completed", "cancelled" and others
}

// ActiveGoalMessage (active_goal) has the goal that the session works towards.
type ActiveGoalMessage struct {
	envelope
	// Goal is nil when there is none any more.
	Goal *struct {
		Condition  string  `json:"condition"`
		Iterations int     `json:"iterations"`
		SetAt      float64 `json:"set_at"` // in milliseconds since 1970
		LastReason string  `json:"last_reason"`
	} `json:"value"`
}
