package claude

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
)

// PermissionMode says what Claude may do without asking. The words are the CLI's.
type PermissionMode string

// The permission modes. The zero value is the CLI's default.
const (
	// PermissionDefault asks for what its rules do not allow. Without
	// Options.CanUseTool nobody answers, so that what would be asked is denied.
	PermissionDefault PermissionMode = "default"
	// PermissionAcceptEdits allows edits of files below the working directory.
	PermissionAcceptEdits PermissionMode = "acceptEdits"
	// PermissionPlan makes Claude plan without changing anything.
	PermissionPlan PermissionMode = "plan"
	// PermissionDontAsk denies what is not allowed by a rule.
	PermissionDontAsk PermissionMode = "dontAsk"
	// PermissionBypass allows everything: the sandbox is then the only limit.
	// In a sandbox that is isolated (sandbox.Info.Isolated) the CLI is told
	// that it is in one (IS_SANDBOX=1), without which it refuses this mode to
	// root; in one that is not, add that to Env yourself if you mean it.
	PermissionBypass PermissionMode = "bypassPermissions"
	// PermissionAuto has a model decide, and asks where that cannot.
	PermissionAuto PermissionMode = "auto"
)

// Thinking says how much the model thinks before it answers.
type Thinking struct {
	// Mode is "adaptive", "enabled" or "disabled". Empty means the CLI's default,
	// or "enabled" where Budget is set.
	Mode string
	// Budget is the most tokens for thinking, for models that take one.
	Budget int
	// Display is "summarized" or "omitted". Empty means the CLI's default.
	Display string
}

// Agent is a subagent that Claude may start, or that leads the conversation.
type Agent struct {
	// Description says when to use it, Prompt is its system prompt. Both are required.
	Description string `json:"description"`
	Prompt      string `json:"prompt"`
	// Tools are those it has; nil means all of its parent's.
	Tools           []string `json:"tools,omitempty"`
	DisallowedTools []string `json:"disallowedTools,omitempty"`
	// Model is an alias or a name; empty or "inherit" means the parent's.
	Model string `json:"model,omitempty"`
	// MCPServers are names of Options.MCPServers.
	MCPServers     []string       `json:"mcpServers,omitempty"`
	Skills         []string       `json:"skills,omitempty"`
	InitialPrompt  string         `json:"initialPrompt,omitempty"`
	MaxTurns       int            `json:"maxTurns,omitempty"`
	Background     bool           `json:"background,omitempty"`
	Memory         string         `json:"memory,omitempty"` // "user", "project" or "local"
	Effort         string         `json:"effort,omitempty"`
	PermissionMode PermissionMode `json:"permissionMode,omitempty"`
}

// Plugin is a plugin in a directory of the sandbox.
type Plugin struct {
	Path string
	// NoMCP leaves its MCP servers out.
	NoMCP bool
}

// AllSkills as Options.Skills enables every skill there is.
var AllSkills = []string{"*"}

// Defaults of Options.
const (
	// DefaultStartTimeout bounds the time until the CLI answers the first time.
	// A cold start of 373 MB of program takes about 2 s.
	DefaultStartTimeout = 60 * time.Second
	// DefaultMaxRetries is how often the CLI repeats a request that failed. Its
	// own default is 10, which takes about three minutes.
	DefaultMaxRetries = 3
	// DefaultStartMaxRetries is the same with Client.Start, whose Endpoint is away
	// while no process follows the run. It takes about three minutes.
	DefaultStartMaxRetries = 10
)

// Options say how to run the CLI. The zero value, and nil, run it with its own
// defaults, with the credentials that the sandbox's environment has. Options
// are not changed by this package, and may be shared.
type Options struct {
	// Model is an alias such as "sonnet" or a model's full name. Empty means
	// the CLI's default.
	Model string
	// FallbackModel is asked where Model is overloaded; several are separated by
	// commas. Empty means none.
	FallbackModel string
	// Thinking is how much the model thinks.
	Thinking Thinking
	// Effort is "low", "medium", "high", "xhigh" or "max". Empty means the CLI's default.
	Effort string
	// Betas are features of the API to switch on, such as "context-1m-2025-08-07".
	Betas []string
	// TaskBudget is how many tokens the model is told it has. 0 means that it is
	// not told any.
	TaskBudget int

	// SystemPrompt replaces the CLI's system prompt. Empty keeps it.
	SystemPrompt string
	// AppendSystemPrompt is added to the system prompt.
	AppendSystemPrompt string
	// ExcludeDynamicSections keeps what differs between users out of the CLI's
	// system prompt, so that it is cached for all; the model is told it in the
	// first message.
	ExcludeDynamicSections bool
	// FreshSystemPrompt makes the system prompt anew for every request; otherwise
	// a conversation keeps the one it began with.
	FreshSystemPrompt bool
	// PlanInstructions replace how PermissionPlan works.
	PlanInstructions string

	// Tools are the CLI's own tools that Claude has. nil means all, an empty
	// slice none.
	Tools []string
	// AllowedTools are rules for what Claude may do without asking, such as
	// "Read" or "Bash(git *)". They do not take tools away.
	AllowedTools []string
	// DisallowedTools are rules for what Claude may not do; a bare name takes
	// the tool away.
	DisallowedTools []string
	// ToolAliases are tools that are used in the place of others, by the others'
	// names, such as "Bash" for "mcp__remote__bash".
	ToolAliases map[string]string
	// PermissionMode is what Claude may do without asking. Empty means the
	// CLI's default, in which nearly everything that changes something is asked
	// for, or denied where CanUseTool is nil.
	PermissionMode PermissionMode
	// CanUseTool is asked for what neither rules nor the mode decide. It is called
	// for several uses at once; its context ends when the CLI withdraws the
	// question, and with the run. An error denies. nil asks nobody.
	CanUseTool func(ctx context.Context, use *ToolRequest) (*Permission, error)
	// Defer is asked about every use of a tool in the main conversation, before rules,
	// the mode and CanUseTool are: true puts the use off. The tool does not run, and the
	// turn ends without an error, with ResultMessage.DeferredToolUse. Then nothing has to
	// be kept but the workspace and the conversation: whenever there is an answer, Answers
	// give it, in this sandbox or in another. Defer may take days to make up its mind, and
	// so wait for an answer for a while. An error denies. Of several uses at once one is put
	// off, and Claude is told to ask for the others again. Uses in subagents cannot be put
	// off, and are not asked about. Version 2.1.328 of the CLI was tried; one before
	// 2.1.89 passes over it. nil puts nothing off.
	Defer func(ctx context.Context, use *ToolRequest) (bool, error)
	// Answers decide about a use that was put off, by its DeferredToolUse.ID, when Resume
	// or Continue goes on with that conversation, once. What they allow runs then, with
	// Permission.Input if that is set; of what they deny Claude is told. Rules that deny
	// hold all the same. A use that was put off and is not among them is put off again,
	// unless Defer says otherwise; where both are nil, it is left to the rules and
	// CanUseTool, and PermissionBypass runs it. The prompt may be left empty, but
	// not for tools of MCPServers in this process: see Client.Query and Client.Start.
	Answers map[string]*Permission
	// PermissionTool is a tool of one of MCPServers, such as "mcp__guard__ask", that is
	// asked in the place of CanUseTool. Empty means none.
	PermissionTool string
	// NoPrompts denies at once what CanUseTool or PermissionTool would be asked, and
	// tells Claude that nobody is there to ask. They are then not called.
	NoPrompts bool
	// Hooks are called when something happens. A function that panics ends the
	// run as a *PanicError, as one of the other callbacks here.
	Hooks map[HookEvent][]Hook
	// MCPServers are tools for Claude, by the servers' names.
	MCPServers map[string]MCPServer
	// StrictMCP leaves out MCP servers that files in the sandbox name.
	StrictMCP bool
	// OnElicitation is asked what MCP servers ask the user. nil declines. Version
	// 2.1.328 passes on what servers with a Command or a URL ask, not those of
	// this process.
	OnElicitation func(ctx context.Context, e *Elicitation) (*ElicitationAnswer, error)
	// OnUserDialog is asked what the CLI asks the user, of one of DialogKinds; the
	// answer is encoded as JSON, and nil is a dialog that was dismissed.
	OnUserDialog func(ctx context.Context, d *UserDialog) (any, error)
	// DialogKinds are what OnUserDialog can ask, such as "refusal_fallback_prompt".
	DialogKinds []string

	// Agents are subagents that Claude may start, by name. Agent is the one that
	// leads the conversation; empty means Claude itself.
	Agents map[string]Agent
	Agent  string
	// Skills are those that Claude may use: AllSkills, or names. nil leaves it to
	// the CLI.
	Skills []string
	// Plugins are loaded beside those that the sandbox's settings name.
	Plugins []Plugin
	// Settings are encoded as JSON and count before the settings files. The CLI's
	// own sandbox for commands is among them, as "sandbox". nil means none.
	// https://code.claude.com/docs/en/settings
	Settings any
	// ManagedSettings are settings that nothing in the sandbox can undo, as those
	// of an administrator: the CLI takes only what restricts. nil means none.
	ManagedSettings any
	// SettingSources are the settings files that count: "user", "project" and
	// "local". nil means all, an empty slice none.
	SettingSources []string
	// ExtraDirs are directories that Claude may work in beside Dir.
	ExtraDirs []string
	// ProjectConfigRoot is the checkout whose project settings count, where Dir
	// is a worktree of it. Empty means Dir.
	ProjectConfigRoot string

	// OutputSchema makes the model give its answer as JSON of this schema, in
	// ResultMessage.StructuredOutput; a turn that ends without it is a *ResultError
	// of kind KindNoOutput. QueryAs derives it from a Go type. nil means words.
	OutputSchema *jsonschema.Schema

	// MaxTurns limits the turns of the model for one prompt; reaching it is a
	// *ResultError of kind KindMaxTurns. 0 means no limit.
	MaxTurns int
	// MaxBudgetUSD ends the run when it has cost so much, as a *ResultError of
	// kind KindBudget. 0 means no limit.
	MaxBudgetUSD float64

	// Partial gives the words while they are made: StreamEvent messages, and
	// Text word by word instead of block by block.
	Partial bool
	// HookEvents gives messages about all hooks.
	HookEvents bool
	// ReplayPrompts gives the prompts back as UserMessage.
	ReplayPrompts bool
	// ForwardSubagentText gives what subagents say and think, beside the tools
	// they use.
	ForwardSubagentText bool
	// AgentProgressSummaries gives a line about what subagents do, every half
	// minute.
	AgentProgressSummaries bool
	// QuestionPreview is how Claude describes what it lets a user choose from, when it
	// asks a question: "markdown" or "html". Empty means without.
	QuestionPreview string
	// PromptSuggestions gives what the user may say next, behind a result.
	PromptSuggestions bool
	// VerbatimPrompts passes prompts on as they are: "@" names no file and "/"
	// no command. Use it for prompts that are put together from what users did
	// not type.
	VerbatimPrompts bool
	// MaxLine is the longest line of the CLI that is kept, in bytes with its
	// newline: a line is held in memory until it is whole, and what runs in the
	// sandbox may write one without end. A longer one is passed over and told as
	// a *LineTooLongError, and the run goes on. 0 means no limit, negative is
	// invalid. Lines of 70 MB have been seen: a tool's result, such as an image,
	// is one line.
	MaxLine int64

	// Resume is the id of a conversation to go on with. Its file must be in the
	// sandbox, where the CLI left it or Client.ImportSession has put it. Empty
	// begins a new one.
	Resume string
	// Continue resumes the conversation in Dir in which something was said last;
	// where there is none the error matches ErrUnknownConversation.
	Continue bool
	// ResumeAt leaves out what was said after the message with that UUID.
	ResumeAt string
	// ResumeDropsTurn is the UUID of the one prompt that ResumeAt is meant to leave
	// out, with all that followed from it: where it would leave out anything else,
	// the CLI refuses to start. Empty leaves that unchecked.
	ResumeDropsTurn string
	// Fork makes Resume begin a new conversation with the old one's history,
	// under a new id.
	Fork bool
	// SessionID is the id of a new conversation, a UUID. Empty means a random one.
	SessionID string
	// Title is that of a new conversation. Empty means what the CLI makes up.
	Title string
	// Ephemeral keeps no conversation: it cannot be resumed.
	Ephemeral bool
	// FileCheckpointing keeps what files were like, for Session.RewindFiles.
	FileCheckpointing bool
	// TasksSurviveInterrupt keeps work in the background going when a turn is
	// interrupted; Session.StopTask ends it.
	TasksSurviveInterrupt bool

	// Dir is the directory the CLI works in, absolute inside the sandbox.
	// Empty means Sandbox.Dir.
	Dir string
	// Env is added to the sandbox's environment and to what this package sets,
	// as KEY=VALUE; it wins over both. A key put here is readable by everything
	// that runs in the sandbox: see Endpoint.
	Env []string
	// Endpoint is the model's API as the sandbox sees it. The zero value leaves
	// the CLI to the environment it finds.
	Endpoint Endpoint
	// ExtraArgs are added to the CLI's arguments as they are, such as
	// "--debug-file=/tmp/debug". Every process in the sandbox can read them.
	ExtraArgs []string
	// Stderr is given what the CLI writes to stderr, from one goroutine. nil
	// keeps its end for errors only. That of Client.Start and Adopt gets it all at
	// the end.
	Stderr io.Writer
	// Journal is given all that the CLI writes to stdout, from one goroutine, before
	// any of it is looked at here or given to a stream: whole from the first byte on,
	// the lines of the control protocol included. An error of it ends a run, or lets
	// go of one of Client.Start or Adopt. nil is nobody.
	Journal io.Writer
	// CLIPath is the program inside the sandbox, a path or a name on its PATH.
	// Empty means CLITarget if that is there, else "claude".
	CLIPath string

	// BackgroundWait bounds how long a Query goes on after its result while
	// commands or agents that Claude started in the background still run; when
	// they end, Claude says something more. After that they are killed. 0 waits
	// for them as long as the context allows, negative not at all.
	BackgroundWait time.Duration
	// StartTimeout bounds the time until the CLI answers the first time, which
	// then fails as a *StartError that matches context.DeadlineExceeded. 0 means
	// DefaultStartTimeout, negative no bound.
	StartTimeout time.Duration
	// MaxRetries is how often the CLI repeats a request to the model that
	// failed. 0 means DefaultMaxRetries, or DefaultStartMaxRetries with Client.Start;
	// negative none.
	MaxRetries int
}

// Endpoint is a model API that this process serves inside the sandbox, on a
// loopback port that is open while the CLI runs. It works without a network. 128
// connections are open at most, the next wait. The zero value is no endpoint.
type Endpoint struct {
	// Handler answers what the CLI sends to ANTHROPIC_BASE_URL: the Messages
	// API at /v1/messages. It is called for several requests at once, with
	// contexts that end with the run.
	Handler http.Handler
	// Token is what the CLI sends as its API key. It is visible in the sandbox,
	// so it must not be a key that works anywhere else. Empty means what the
	// Handler issues if it is a TokenIssuer, else a random word.
	Token string
}

// TokenIssuer is implemented by a Handler that answers only to tokens of its
// own, *broker.Broker for one. A token is asked for at the start of every run
// and revoked at its end.
type TokenIssuer interface {
	IssueToken() (token string, revoke func(), err error)
}

// TokenAdopter is implemented by a TokenIssuer whose tokens may outlive the process:
// Client.Adopt hands it the token that the CLI has from an earlier one. It comes from
// the sandbox, so it may be anything, and must get no more than a new token would.
type TokenAdopter interface {
	AdoptToken(token string) (revoke func(), err error)
}
