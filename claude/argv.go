package claude

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox"
)

// args are the CLI's arguments. Nothing that is long or said in confidence is
// among them: every process in the sandbox can read them.
func (o *Options) args(newID string) []string {
	args := []string{"--output-format=stream-json", "--verbose", "--input-format=stream-json"}
	add := func(set bool, flag string, value any) {
		if set {
			args = append(args, fmt.Sprintf("--%s=%v", flag, value))
		}
	}
	add(o.Model != "", "model", o.Model)
	add(o.FallbackModel != "", "fallback-model", o.FallbackModel)
	o.thinkingArgs(add)
	add(o.Effort != "", "effort", o.Effort)
	add(len(o.Betas) > 0, "betas", strings.Join(o.Betas, ","))
	add(o.TaskBudget > 0, "task-budget", o.TaskBudget)
	add(o.Agent != "", "agent", o.Agent)
	add(o.PermissionMode != "", "permission-mode", o.PermissionMode)
	// With Defer it is a place for questions too: without one there is no AskUserQuestion.
	add(o.CanUseTool != nil || o.putsOff() && o.PermissionTool == "" && !o.NoPrompts, "permission-prompt-tool", "stdio")
	add(o.PermissionTool != "", "permission-prompt-tool", o.PermissionTool)
	add(o.NoPrompts, "permission-prompts", "none")
	add(o.MaxTurns > 0, "max-turns", o.MaxTurns)
	add(o.MaxBudgetUSD > 0, "max-budget-usd", strconv.FormatFloat(o.MaxBudgetUSD, 'f', -1, 64))
	add(o.Tools != nil, "tools", strings.Join(o.Tools, ","))
	for _, rule := range o.allowed() {
		add(true, "allowedTools", rule)
	}
	for _, rule := range o.DisallowedTools {
		add(true, "disallowedTools", rule)
	}
	add(o.SettingSources != nil, "setting-sources", strings.Join(o.SettingSources, ","))
	for _, dir := range o.ExtraDirs {
		add(true, "add-dir", dir)
	}
	add(o.ProjectConfigRoot != "", "project-config-root", o.ProjectConfigRoot)
	add(o.ResumeAt != "", "resume-session-at", o.ResumeAt)
	add(o.ResumeDropsTurn != "", "resume-drops-turn", o.ResumeDropsTurn)
	add(o.Resume != "", "resume", o.Resume)
	add(newID != "", "session-id", newID)
	for _, flag := range []struct {
		set  bool
		name string
	}{
		{o.StrictMCP, "--strict-mcp-config"},
		{o.Partial, "--include-partial-messages"},
		{o.HookEvents, "--include-hook-events"},
		{o.ReplayPrompts, "--replay-user-messages"},
		{o.Ephemeral, "--no-session-persistence"},
		{o.Resume != "" && o.Fork, "--fork-session"},
		{o.readsInitialize(), "--await-initialize"},
		{o.Settings != nil, "--initialize-fields=settings"},
		{o.ManagedSettings != nil, "--managed-settings-in-initialize"},
	} {
		if flag.set {
			args = append(args, flag.name)
		}
	}
	return append(args, o.ExtraArgs...)
}

// thinkingArgs are as the official SDK has them.
func (o *Options) thinkingArgs(add func(set bool, flag string, value any)) {
	switch t := o.Thinking; {
	case t.Mode == "disabled" || t.Mode == "adaptive":
		add(true, "thinking", t.Mode)
	case t.Budget > 0:
		add(true, "max-thinking-tokens", t.Budget)
	case t.Mode != "":
		add(true, "thinking", "adaptive")
	}
	add(o.Thinking.Display != "", "thinking-display", o.Thinking.Display)
}

// allowed are AllowedTools and what Skills comes to.
func (o *Options) allowed() []string {
	rules := o.AllowedTools[:len(o.AllowedTools):len(o.AllowedTools)]
	if o.allSkills() {
		return append(rules, "Skill")
	}
	for _, skill := range o.Skills {
		rules = append(rules, "Skill("+skill+")")
	}
	return rules
}

func (o *Options) allSkills() bool { return len(o.Skills) == 1 && o.Skills[0] == AllSkills[0] }

// readsInitialize reports whether the CLI has to wait for initialize before it
// loads what that names.
func (o *Options) readsInitialize() bool {
	if o.Settings != nil || o.ManagedSettings != nil || len(o.Plugins) > 0 {
		return true
	}
	if o.Resume != "" { // it goes on with a use that was put off, asking only the hooks that it knows by then
		return true
	}
	for _, server := range o.MCPServers {
		if server.InProcess == nil {
			return true
		}
	}
	return false
}

// env is what this package sets for the CLI, before Options.Env.
func (o *Options) env() []string {
	retries := o.MaxRetries
	switch {
	case retries == 0:
		retries = DefaultMaxRetries
	case retries < 0:
		retries = 0
	}
	env := []string{
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
		"CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS=1", // Session.WaitIdle waits for them
		"DISABLE_AUTOUPDATER=1",
		"CLAUDE_CODE_MAX_RETRIES=" + strconv.Itoa(retries),
	}
	if o.FileCheckpointing {
		env = append(env, "CLAUDE_CODE_ENABLE_SDK_FILE_CHECKPOINTING=true")
	}
	if o.QuestionPreview != "" {
		env = append(env, "CLAUDE_CODE_QUESTION_PREVIEW_FORMAT="+o.QuestionPreview)
	}
	return env
}

// validate reports what the CLI would misunderstand or refuse late.
func (o *Options) validate() error {
	var bad []error
	refuse := func(is bool, format string, args ...any) {
		if is {
			bad = append(bad, fmt.Errorf(format, args...))
		}
	}
	old := o.Resume != "" || o.Continue
	refuse(o.Fork && !old, "Fork needs Resume or Continue")
	refuse(o.ResumeAt != "" && !old, "ResumeAt needs Resume or Continue")
	refuse(o.ResumeDropsTurn != "" && o.ResumeAt == "", "ResumeDropsTurn needs ResumeAt")
	refuse(len(o.Answers) > 0 && !old, "Answers needs Resume or Continue")
	for id, answer := range o.Answers {
		refuse(id == "" || answer == nil, "Answers[%q]: set an id and a Permission", id)
		refuse(answer != nil && (answer.Interrupt || len(answer.Remember) > 0), "Answers[%q]: Interrupt and Remember are for questions that Claude waits with", id)
	}
	refuse(o.CanUseTool != nil && o.PermissionTool != "", "CanUseTool and PermissionTool: set one of them")
	refuse(o.QuestionPreview != "" && o.QuestionPreview != "markdown" && o.QuestionPreview != "html", "QuestionPreview %q: use markdown or html", o.QuestionPreview)
	refuse(o.Resume != "" && o.Continue, "Resume and Continue: set one of them")
	refuse(o.SessionID != "" && old && !o.Fork, "SessionID is for a new conversation: set Fork too, or leave Resume and Continue")
	refuse(o.SessionID != "" && !isUUID(o.SessionID), "SessionID %q is not a UUID", o.SessionID)
	refuse(o.MaxTurns < 0, "MaxTurns %d: use 0 or more", o.MaxTurns)
	refuse(!(o.MaxBudgetUSD >= 0), "MaxBudgetUSD %v: use 0 or more", o.MaxBudgetUSD)
	refuse(o.TaskBudget < 0, "TaskBudget %d: use 0 or more", o.TaskBudget)
	refuse(o.MaxLine < 0, "MaxLine %d: use 0 or more", o.MaxLine)
	refuse(o.Endpoint.Handler == nil && o.Endpoint.Token != "", "Endpoint.Token needs Endpoint.Handler")
	refuse(len(o.DialogKinds) > 0 && o.OnUserDialog == nil, "DialogKinds needs OnUserDialog")
	switch o.Thinking.Mode {
	case "", "adaptive", "enabled", "disabled":
	default:
		refuse(true, "Thinking.Mode %q: use adaptive, enabled or disabled", o.Thinking.Mode)
	}
	for _, rule := range slices.Concat(o.AllowedTools, o.DisallowedTools) {
		refuse(strings.TrimSpace(rule) == "", "AllowedTools and DisallowedTools: a rule is empty")
	}
	for name, server := range o.MCPServers {
		if err := server.validate(name); err != nil {
			bad = append(bad, err)
		}
	}
	for event, hooks := range o.Hooks {
		for _, hook := range hooks {
			refuse(hook.Func == nil, "Hooks[%s]: Func is nil", event)
		}
	}
	for name, agent := range o.Agents {
		refuse(name == "" || agent.Description == "" || agent.Prompt == "", "Agents[%q]: set a name, Description and Prompt", name)
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("claude: %w: %w", sandbox.ErrInvalid, errors.Join(bad...))
}

// program is the CLI to run in the sandbox.
func (o *Options) program(ctx context.Context, sb *sandbox.Sandbox) (string, error) {
	if o.CLIPath != "" {
		return o.CLIPath, nil
	}
	_, err := sb.FSAt(ctx, "/").Stat(strings.TrimPrefix(CLITarget, "/"))
	switch {
	case err == nil:
		return CLITarget, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return "claude", nil
	}
	return "", err
}

// newUUID is a random UUID (RFC 9562, version 4), the form of the CLI's ids.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// isUUID reports whether s has the form of a UUID. Names of files are made of it.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if !isHex(s[i]) {
				return false
			}
		}
	}
	return true
}
