package claude

import (
	"net/http"
	"time"
)

// PermissionMode says what Claude may do without asking. The words are the CLI's.
type PermissionMode string

// The permission modes. The zero value is the CLI's default.
const (
	// PermissionDefault asks for what its rules do not allow. Nobody answers
	// in a sandbox, so that what would be asked is denied.
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
)

// Defaults of Options.
const (
	// DefaultStartTimeout bounds the time until the CLI answers the first time.
	// A cold start of 373 MB of program takes about 2 s.
	DefaultStartTimeout = 60 * time.Second
	// DefaultMaxRetries is how often the CLI repeats a request that failed. Its
	// own default is 10, which takes about three minutes.
	DefaultMaxRetries = 3
)

// Options say how to run the CLI. The zero value, and nil, run it with its own
// defaults, with the credentials that the sandbox's environment has. Options
// are not changed by this package, and may be shared.
type Options struct {
	// Model is an alias such as "sonnet" or a model's full name. Empty means
	// the CLI's default.
	Model string
	// SystemPrompt replaces the CLI's system prompt. Empty keeps it.
	SystemPrompt string
	// AppendSystemPrompt is added to the system prompt.
	AppendSystemPrompt string
	// AllowedTools are rules for what Claude may do without asking, such as
	// "Read" or "Bash(git *)". They do not take tools away.
	AllowedTools []string
	// DisallowedTools are rules for what Claude may not do; a bare name takes
	// the tool away.
	DisallowedTools []string
	// PermissionMode is what Claude may do without asking. Empty means the
	// CLI's default, in which nearly everything that changes something is denied.
	PermissionMode PermissionMode
	// MaxTurns limits the turns of the model for one prompt; reaching it is a
	// *ResultError of kind KindMaxTurns. 0 means no limit.
	MaxTurns int
	// MaxBudgetUSD ends the run when it has cost so much, as a *ResultError of
	// kind KindBudget. 0 means no limit.
	MaxBudgetUSD float64
	// Partial gives the words while they are made: stream_event messages, and
	// Text word by word instead of block by block.
	Partial bool
	// MaxLine is the longest line of the CLI that is kept, in bytes with its
	// newline: a line is held in memory until it is whole, and what runs in the
	// sandbox may write one without end. A longer one is passed over and told as
	// a *LineTooLongError, and the run goes on. 0 means no limit, negative is
	// invalid. Lines of 70 MB have been seen: a tool's result, such as an image,
	// is one line.
	MaxLine int64

	// Resume is the id of a conversation to go on with. Its file must be in the
	// sandbox, where the CLI left it. Empty begins a new one.
	Resume string
	// Fork makes Resume begin a new conversation with the old one's history,
	// under a new id.
	Fork bool

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
	// "--effort=high". Every process in the sandbox can read them.
	ExtraArgs []string
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
	// failed. 0 means DefaultMaxRetries, negative none.
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
