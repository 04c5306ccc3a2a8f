package claude

import (
	"context"
	"encoding/json"
	"time"
)

// HookEvent is what a hook is called for. The words are the CLI's; it may come
// to have more, which can be used as they are.
type HookEvent string

// The events that version 2.1.328 has. That version calls functions of the host
// for none of HookSessionStart, HookSessionEnd and HookSetup, only commands of
// the settings.
const (
	HookPreToolUse          HookEvent = "PreToolUse"
	HookPostToolUse         HookEvent = "PostToolUse"
	HookPostToolUseFailure  HookEvent = "PostToolUseFailure"
	HookPostToolBatch       HookEvent = "PostToolBatch"
	HookNotification        HookEvent = "Notification"
	HookUserPromptSubmit    HookEvent = "UserPromptSubmit"
	HookUserPromptExpansion HookEvent = "UserPromptExpansion"
	HookSessionStart        HookEvent = "SessionStart"
	HookSessionEnd          HookEvent = "SessionEnd"
	HookStop                HookEvent = "Stop"
	HookStopFailure         HookEvent = "StopFailure"
	HookSubagentStart       HookEvent = "SubagentStart"
	HookSubagentStop        HookEvent = "SubagentStop"
	HookPreCompact          HookEvent = "PreCompact"
	HookPostCompact         HookEvent = "PostCompact"
	HookPreModelSwitch      HookEvent = "PreModelSwitch"
	HookPostModelSwitch     HookEvent = "PostModelSwitch"
	HookPermissionRequest   HookEvent = "PermissionRequest"
	HookPermissionDenied    HookEvent = "PermissionDenied"
	HookSetup               HookEvent = "Setup"
	HookTeammateIdle        HookEvent = "TeammateIdle"
	HookTaskCreated         HookEvent = "TaskCreated"
	HookTaskCompleted       HookEvent = "TaskCompleted"
	HookElicitation         HookEvent = "Elicitation"
	HookElicitationResult   HookEvent = "ElicitationResult"
	HookConfigChange        HookEvent = "ConfigChange"
	HookWorktreeCreate      HookEvent = "WorktreeCreate"
	HookWorktreeRemove      HookEvent = "WorktreeRemove"
	HookInstructionsLoaded  HookEvent = "InstructionsLoaded"
	HookCwdChanged          HookEvent = "CwdChanged"
	HookFileChanged         HookEvent = "FileChanged"
	HookDirectoryAdded      HookEvent = "DirectoryAdded"
	HookMessageDisplay      HookEvent = "MessageDisplay"
)

// Hook is a function of this process that the CLI calls when something happens.
type Hook struct {
	// Matcher limits what it is called for: to tools, by name or a regular
	// expression such as "Edit|Write", and by what other events have instead.
	// Empty means everything.
	Matcher string
	// Func is called, for several events at once as they come. Its context ends
	// when the CLI withdraws the question, and with the run. Its error is told to
	// the CLI, which goes on unless Block is set. nil output is none.
	Func func(ctx context.Context, in *HookInput) (*HookOutput, error)
	// Timeout is how long the CLI waits for it. 0 means the CLI's own limit.
	Timeout time.Duration
	// Block makes an error of Func stop what the event is about.
	Block bool
}

// HookInput is what a hook is told. Which fields are set depends on the event;
// Raw has all of them.
type HookInput struct {
	Event          HookEvent      `json:"hook_event_name"`
	SessionID      string         `json:"session_id"`
	TranscriptPath string         `json:"transcript_path"` // in the sandbox
	Dir            string         `json:"cwd"`
	PromptID       string         `json:"prompt_id"`
	PermissionMode PermissionMode `json:"permission_mode"`
	// AgentID and AgentType are those of the subagent in which it happened.
	AgentID   string `json:"agent_id"`
	AgentType string `json:"agent_type"`
	// Of events about tools.
	Tool         string          `json:"tool_name"`
	ToolInput    json.RawMessage `json:"tool_input"`
	ToolUseID    string          `json:"tool_use_id"`
	ToolResponse json.RawMessage `json:"tool_response"`
	// Prompt is the user's, of HookUserPromptSubmit.
	Prompt string `json:"prompt"`
	// Of HookNotification.
	Message string `json:"message"`
	Title   string `json:"title"`
	// StopHookActive says that the turn goes on because of a stop hook already.
	StopHookActive bool `json:"stop_hook_active"`
	// Source is how a session began, and Reason why it ended; Trigger is
	// "manual" or "auto", of compaction.
	Source  string `json:"source"`
	Reason  string `json:"reason"`
	Trigger string `json:"trigger"`
	// Error is that of a tool or a turn that failed.
	Error string `json:"error"`
	// Raw is the whole input.
	Raw json.RawMessage `json:"-"`
}

// HookOutput is what a hook answers. The zero value changes nothing.
type HookOutput struct {
	// Stop ends the turn after the hook, and StopReason is shown to the user.
	Stop       bool
	StopReason string
	// Block stops what the event is about, or makes Claude go on after
	// HookStop; Reason is told to Claude.
	Block  bool
	Reason string
	// SystemMessage is shown to the user, and SuppressOutput hides the hook's output.
	SystemMessage  string
	SuppressOutput bool
	// Context is told to Claude beside what the event is about.
	Context string
	// Permission is the decision of a HookPreToolUse: "allow", "deny", "ask" or
	// "defer", with PermissionReason as its reason. Empty leaves it to the rules.
	Permission       string
	PermissionReason string
	// UpdatedInput replaces the tool's input, of HookPreToolUse.
	UpdatedInput any
	// Specific are more members of the answer's hookSpecificOutput, for what the
	// fields above have no place for.
	Specific map[string]any
}

// answer is the output as the CLI takes it: SyncHookJSONOutput in sdk.d.ts.
func (o *HookOutput) answer(event HookEvent) map[string]any {
	answer := map[string]any{}
	if o == nil {
		return answer
	}
	set := func(m map[string]any, ok bool, key string, value any) {
		if ok {
			m[key] = value
		}
	}
	set(answer, o.Stop, "continue", false)
	set(answer, o.StopReason != "", "stopReason", o.StopReason)
	set(answer, o.Block, "decision", "block")
	set(answer, o.Reason != "", "reason", o.Reason)
	set(answer, o.SystemMessage != "", "systemMessage", o.SystemMessage)
	set(answer, o.SuppressOutput, "suppressOutput", true)
	specific := map[string]any{}
	for key, value := range o.Specific {
		specific[key] = value
	}
	set(specific, o.Context != "", "additionalContext", o.Context)
	set(specific, o.Permission != "", "permissionDecision", o.Permission)
	set(specific, o.PermissionReason != "", "permissionDecisionReason", o.PermissionReason)
	set(specific, o.UpdatedInput != nil, "updatedInput", o.UpdatedInput)
	if len(specific) > 0 {
		specific["hookEventName"] = event
		answer["hookSpecificOutput"] = specific
	}
	return answer
}

// hookMatcher is a Hook as initialize has it: SDKHookCallbackMatcher in sdk.d.ts.
type hookMatcher struct {
	Matcher   string   `json:"matcher,omitempty"`
	IDs       []string `json:"hookCallbackIds"`
	Timeout   float64  `json:"timeout,omitempty"` // in seconds
	OnFailure string   `json:"onFailure,omitempty"`
}
