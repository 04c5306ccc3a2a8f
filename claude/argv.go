package claude

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
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
	add(o.PermissionMode != "", "permission-mode", o.PermissionMode)
	add(o.MaxTurns > 0, "max-turns", o.MaxTurns)
	add(o.MaxBudgetUSD > 0, "max-budget-usd", strconv.FormatFloat(o.MaxBudgetUSD, 'f', -1, 64))
	for _, rule := range o.AllowedTools {
		add(true, "allowedTools", rule)
	}
	for _, rule := range o.DisallowedTools {
		add(true, "disallowedTools", rule)
	}
	if o.Partial {
		args = append(args, "--include-partial-messages")
	}
	add(o.Resume != "", "resume", o.Resume)
	if o.Resume != "" && o.Fork {
		args = append(args, "--fork-session")
	}
	add(newID != "", "session-id", newID)
	return append(args, o.ExtraArgs...)
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
	return []string{
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
		"DISABLE_AUTOUPDATER=1",
		"CLAUDE_CODE_MAX_RETRIES=" + strconv.Itoa(retries),
	}
}

// validate reports what the CLI would misunderstand or refuse late.
func (o *Options) validate() error {
	var bad []error
	if o.Fork && o.Resume == "" {
		bad = append(bad, errors.New("Fork needs Resume"))
	}
	if o.MaxTurns < 0 {
		bad = append(bad, fmt.Errorf("MaxTurns %d: use 0 or more", o.MaxTurns))
	}
	if !(o.MaxBudgetUSD >= 0) {
		bad = append(bad, fmt.Errorf("MaxBudgetUSD %v: use 0 or more", o.MaxBudgetUSD))
	}
	if o.MaxLine < 0 {
		bad = append(bad, fmt.Errorf("MaxLine %d: use 0 or more", o.MaxLine))
	}
	if o.Endpoint.Handler == nil && o.Endpoint.Token != "" {
		bad = append(bad, errors.New("Endpoint.Token needs Endpoint.Handler"))
	}
	for _, rule := range append(o.AllowedTools[:len(o.AllowedTools):len(o.AllowedTools)], o.DisallowedTools...) {
		if strings.TrimSpace(rule) == "" {
			bad = append(bad, errors.New("AllowedTools and DisallowedTools: a rule is empty"))
		}
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
