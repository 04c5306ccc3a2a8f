package claude

import (
	"encoding/json"
	"strings"
	"time"
)

// ResultMessage (result) is how a turn ended. Its Subtype is "success",
// "error_during_execution", "error_max_turns", "error_max_budget_usd",
// "error_max_structured_output_retries" or another the CLI comes to have; a
// success can be an error all the same, see IsError. Its SessionID is what
// Options.Resume takes.
type ResultMessage struct {
	envelope
	// IsError says that it failed, whatever the Subtype.
	IsError bool
	// Text is the last thing the model said; of a failure, the CLI's words for it.
	Text string
	// Errors are the CLI's words for a failure.
	Errors []string
	// Turns is how many turns of the model the prompt took.
	Turns int
	// CostUSD is what the process has cost so far, the turns before included.
	CostUSD float64
	// Usage is the turn's tokens in the main conversation, ModelUsage those of
	// each model with subagents, the turns before included.
	Usage      Usage
	ModelUsage map[string]ModelUsage
	// Duration is the turn's, APIDuration the part that was waiting for the
	// model, and FirstToken the time until it said something, 0 where unknown.
	Duration, APIDuration, FirstToken time.Duration
	// StopReason is why the model stopped, such as "end_turn" or "refusal".
	StopReason string
	// TerminalReason is why the turn ended, such as "completed",
	// "aborted_streaming" or "max_turns"; empty where the CLI does not say.
	TerminalReason string
	// APIStatus is the HTTP status of the request that failed; 0 where none did.
	APIStatus int
	// Denials are the uses of tools that were not allowed.
	Denials []Denial
	// StructuredOutput is what the model gave for Options.OutputSchema; see
	// DecodeOutput.
	StructuredOutput json.RawMessage
	// DeferredToolUse is the use of a tool that Options.Defer or a hook put off: the turn
	// has ended, and waits for Options.Answers. nil as a rule.
	DeferredToolUse *DeferredToolUse
	// Origin is "task-notification" where the turn was not asked for by a
	// prompt but by work in the background that had ended; else as a rule empty.
	Origin string
	// PromptIDs are the prompts that the turn answered; see Stream.PromptID.
	PromptIDs []string
	// Queued is how many prompts wait for turns of their own, and Index how many
	// results the process gave before.
	Queued, Index int
	// StartupFailure is why the CLI refused to start, such as
	// "config_file_invalid"; empty as a rule.
	StartupFailure string
}

// DeferredToolUse is the use of a tool that was put off.
type DeferredToolUse struct {
	ID    string          `json:"id"` // what Options.Answers name
	Name  string          `json:"name"`
	Input json.RawMessage `json:"input"`
}

// Usage counts tokens.
type Usage struct {
	InputTokens              int `json:"input_tokens"`
	OutputTokens             int `json:"output_tokens"`
	CacheCreationInputTokens int `json:"cache_creation_input_tokens"`
	CacheReadInputTokens     int `json:"cache_read_input_tokens"`
}

// decode reads what the API writes.
func (u *Usage) decode(value []byte) {
	members(value, func(key, value []byte) {
		switch string(key) {
		case "input_tokens":
			u.InputTokens = number(value)
		case "output_tokens":
			u.OutputTokens = number(value)
		case "cache_creation_input_tokens":
			u.CacheCreationInputTokens = number(value)
		case "cache_read_input_tokens":
			u.CacheReadInputTokens = number(value)
		}
	})
}

// ModelUsage counts one model's tokens, and what they cost.
type ModelUsage struct {
	InputTokens              int     `json:"inputTokens"`
	OutputTokens             int     `json:"outputTokens"`
	ThinkingTokens           int     `json:"thinkingTokens"` // part of OutputTokens
	CacheCreationInputTokens int     `json:"cacheCreationInputTokens"`
	CacheReadInputTokens     int     `json:"cacheReadInputTokens"`
	WebSearchRequests        int     `json:"webSearchRequests"`
	CostUSD                  float64 `json:"costUSD"`
	ContextWindow            int     `json:"contextWindow"`
	MaxOutputTokens          int     `json:"maxOutputTokens"`
}

// Denial is the use of a tool that was not allowed.
type Denial struct {
	Tool      string          `json:"tool_name"`
	ToolUseID string          `json:"tool_use_id"`
	Input     json.RawMessage `json:"tool_input"`
}

// resultLine is the line as the CLI writes it.
type resultLine struct {
	IsError          bool                  `json:"is_error"`
	Result           string                `json:"result"`
	Errors           []string              `json:"errors"`
	NumTurns         int                   `json:"num_turns"`
	TotalCostUSD     float64               `json:"total_cost_usd"`
	Usage            Usage                 `json:"usage"`
	ModelUsage       map[string]ModelUsage `json:"modelUsage"`
	DurationMS       float64               `json:"duration_ms"`
	DurationAPIMS    float64               `json:"duration_api_ms"`
	TTFTMS           float64               `json:"ttft_ms"`
	StopReason       string                `json:"stop_reason"`
	TerminalReason   string                `json:"terminal_reason"`
	APIErrorStatus   int                   `json:"api_error_status"`
	Denials          []Denial              `json:"permission_denials"`
	StructuredOutput json.RawMessage       `json:"structured_output"`
	Deferred         *DeferredToolUse      `json:"deferred_tool_use"`
	Origin           struct {
		Kind string `json:"kind"`
	} `json:"origin"`
	PromptID       string   `json:"user_message_uuid"`
	PromptIDs      []string `json:"user_message_uuids"`
	Queued         int      `json:"queued_turn_count"`
	Index          int      `json:"result_index"`
	StartupFailure string   `json:"startup_failure_reason"`
}

func newResultMessage(e *envelope) *ResultMessage {
	var l resultLine
	lenient(e.raw, &l)
	if len(l.PromptIDs) == 0 && l.PromptID != "" {
		l.PromptIDs = []string{l.PromptID}
	}
	return &ResultMessage{
		envelope: *e, IsError: l.IsError, Text: l.Result, Errors: l.Errors,
		Turns: l.NumTurns, CostUSD: l.TotalCostUSD, Usage: l.Usage, ModelUsage: l.ModelUsage,
		Duration: milliseconds(l.DurationMS), APIDuration: milliseconds(l.DurationAPIMS), FirstToken: milliseconds(l.TTFTMS),
		StopReason: l.StopReason, TerminalReason: l.TerminalReason, APIStatus: l.APIErrorStatus,
		Denials: l.Denials, StructuredOutput: given(l.StructuredOutput), DeferredToolUse: l.Deferred,
		Origin: l.Origin.Kind, PromptIDs: l.PromptIDs, Queued: l.Queued, Index: l.Index, StartupFailure: l.StartupFailure,
	}
}

// given is nil for null.
func given(value json.RawMessage) json.RawMessage {
	if string(value) == "null" {
		return nil
	}
	return value
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// words is what the CLI says about a failure.
func (r *ResultMessage) words() string {
	if len(r.Errors) > 0 {
		return strings.Join(r.Errors, "; ")
	}
	return r.Text
}
