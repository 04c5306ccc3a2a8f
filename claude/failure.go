package claude

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"

	"github.com/vivarium-go/vivarium/sandbox"
)

// failure is the error of a turn with this result; nil if it succeeded. cause
// is the context's error if its end stopped the turn.
func (r *ResultMessage) failure(cause error, opts *Options) error {
	if r.succeeded() {
		if opts.OutputSchema != nil && r.StructuredOutput == nil && r.Origin != originTask {
			return &ResultError{Kind: KindNoOutput, Result: r, Err: ErrNoOutput}
		}
		return nil
	}
	e := &ResultError{Kind: r.kind(), Result: r}
	switch {
	case e.Kind == KindInterrupted:
		e.Err = cause
	case e.Kind == KindNoOutput:
		e.Err = ErrNoOutput
	case e.Kind.isAPI():
		e.Err = &APIError{Status: r.APIStatus, Kind: e.Kind, Message: r.words()}
	}
	return e
}

// succeeded: the CLI reports a failure of the API as a success that is an error.
func (r *ResultMessage) succeeded() bool {
	return !r.IsError && !strings.HasPrefix(r.subtype, "error") && r.TerminalReason != "api_error"
}

// kind reads the reason off the fields that version 2.1.328 was seen to use.
func (r *ResultMessage) kind() Kind {
	switch {
	case strings.HasPrefix(r.TerminalReason, "aborted"):
		return KindInterrupted
	case r.subtype == "error_max_turns":
		return KindMaxTurns
	case r.subtype == "error_max_budget_usd":
		return KindBudget
	case r.subtype == "error_max_structured_output_retries":
		return KindNoOutput
	}
	switch status := r.APIStatus; {
	case status == 401, status == 403:
		return KindAuthentication
	case status == 429:
		return KindRateLimit
	case status == 529, status == 503:
		return KindOverloaded
	case status >= 400 && status < 500:
		return KindInvalid
	case status != 0, r.TerminalReason == "api_error":
		return KindAPI
	}
	return KindExecution
}

// startError is the error of a CLI that did not get as far as taking a prompt.
func (p *process) startError(err error) error {
	e := &StartError{Err: err}
	var ended *EndError
	select {
	case <-p.done:
		ended = p.end
		e.Stderr = ended.Stderr
	default:
	}
	switch {
	case errors.Is(err, sandbox.ErrEnded) && ended == nil:
		e.Err = &EndError{Err: err, SandboxEnd: p.sandboxEnd()}
	case errors.As(err, &ended) && ended.Err != nil && ended.SandboxEnd == "":
		e.Err = ended.Err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unasked != nil && p.unasked.IsError {
		if isUnknownConversation(p.unasked.words()) {
			e.Err = errors.Join(ErrUnknownConversation, e.Err)
		}
		e.Stderr = redact(p.unasked.words(), p.secrets)
	}
	e.Remedy = p.remedy(e)
	return e
}

func isUnknownConversation(words string) bool {
	return strings.Contains(words, "No conversation found") || strings.Contains(words, "does not match any session")
}

// remedy says what to do about the failures that are known.
func (p *process) remedy(e *StartError) string {
	switch {
	case errors.Is(e.Err, exec.ErrNotFound):
		return "there is no Claude Code CLI in the sandbox: mount one with sandbox.Config.Mounts and the Mounts of claude.Locate, " +
			"put one into the image, or name it with Options.CLIPath"
	case strings.Contains(e.Stderr, "cannot be used with root"):
		return "the sandbox is not isolated and the CLI runs as root: choose another PermissionMode, or add IS_SANDBOX=1 to Options.Env if you mean it"
	case errors.Is(e.Err, ErrUnknownConversation):
		return "conversations are files of the sandbox they were held in, below its home directory"
	case strings.Contains(e.Stderr, "is already in use"):
		return "the conversation exists: use Options.Resume"
	case errors.Is(e.Err, context.DeadlineExceeded):
		return "Options.StartTimeout is how long the CLI may take to answer the first time"
	}
	return ""
}

// stderrSize is how much of stderr is kept, in bytes.
const stderrSize = 8 << 10

// stderrTail is a writer that keeps the end of what is written.
type stderrTail struct {
	mu  sync.Mutex
	buf []byte
	cut bool // something came before buf

	also io.Writer // is given everything, if not nil
}

func (t *stderrTail) Write(p []byte) (int, error) {
	if t.also != nil {
		_, _ = t.also.Write(p) // a caller that loses its log keeps its run
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - stderrSize; over > 0 {
		t.buf, t.cut = append(t.buf[:0], t.buf[over:]...), true
	}
	return len(p), nil
}

// String is what was kept, in whole lines, without space around it: half a line
// could begin with half a secret.
func (t *stderrTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := string(t.buf)
	if t.cut {
		_, text, _ = strings.Cut(text, "\n")
	}
	return strings.TrimSpace(text)
}

var secretName = regexp.MustCompile(`(?i)key|token|secret|password|passwd|credential|authorization`)

// minSecret is the shortest value that is taken for a secret, in bytes.
const minSecret = 6

// secrets are the values in Env that must not be shown, by their names.
func (o *Options) secrets() []string {
	var values []string
	for _, kv := range o.Env {
		name, value, _ := strings.Cut(kv, "=")
		if secretName.MatchString(name) && len(value) >= minSecret {
			values = append(values, value)
		}
	}
	return values
}

// redact replaces secrets in a text.
func redact(text string, secrets []string) string {
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, "[redacted]")
	}
	return text
}
