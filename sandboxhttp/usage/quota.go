package usage

import (
	"fmt"
	"time"
)

// Quota is how much an account may use. A zero field is no limit, and a negative one
// that nothing is allowed. The zero value limits nothing. In JSON a field that is no limit
// is left out.
type Quota struct {
	// SandboxesAtOnce and RunsAtOnce are how many places of those kinds the account
	// may have at the same time.
	SandboxesAtOnce int64 `json:"sandboxes_at_once,omitzero"`
	RunsAtOnce      int64 `json:"runs_at_once,omitzero"`
	// PerDay is what it may use in a day of UTC.
	PerDay Budget `json:"per_day,omitzero"`
	// RequestsPerSecond is how many requests the account may send on average, and
	// Burst how many at once: zero is as many as it may send in a second, and at
	// least one. They are for a [Rate], which each server has for itself.
	RequestsPerSecond float64 `json:"requests_per_second,omitzero"`
	Burst             int     `json:"burst,omitzero"`
}

// Limit names one limit of a [Quota], for programs.
type Limit string

// The limits.
const (
	LimitSandboxesAtOnce   Limit = "sandboxes_at_once"
	LimitRunsAtOnce        Limit = "runs_at_once"
	LimitSandboxesPerDay   Limit = "sandboxes_per_day"
	LimitClaudeTimePerDay  Limit = "claude_seconds_per_day"
	LimitDollarsPerDay     Limit = "dollars_per_day"
	LimitTokensPerDay      Limit = "tokens_per_day"
	LimitBytesInPerDay     Limit = "bytes_in_per_day"
	LimitBytesOutPerDay    Limit = "bytes_out_per_day"
	LimitRequestsPerSecond Limit = "requests_per_second"
)

// perDay are the limits of a day, in the order of Budget's fields. A place of the kind
// is about that limit, whether it holds anything or not.
var perDay = [6]struct {
	limit Limit
	kind  Kind
}{
	{LimitSandboxesPerDay, KindSandbox},
	{LimitClaudeTimePerDay, KindRun},
	{LimitDollarsPerDay, KindRun},
	{LimitTokensPerDay, KindRun},
	{LimitBytesInPerDay, KindSave},
	{LimitBytesOutPerDay, KindRestore},
}

// atOnce gives the limit of places of a kind, if it has one.
func (q *Quota) atOnce(k Kind) (Limit, int64) {
	switch k {
	case KindSandbox:
		return LimitSandboxesAtOnce, q.SandboxesAtOnce
	case KindRun:
		return LimitRunsAtOnce, q.RunsAtOnce
	}
	return "", 0
}

// ExceededError is what was refused because a limit is reached. Its text says what to
// do, and is fit for the account's people to read; an HTTP server answers 429 with it.
type ExceededError struct {
	Account string
	Limit   Limit
	// Max is the limit, Used what is used of it, and Held what is held beside that by
	// what goes on. Need is what would have been needed. Money is in millionths of a
	// dollar, time in nanoseconds. Of requests per second only Max is set.
	Max, Used, Held, Need int64
	// RetryAfter is how long it takes until there is room, for Retry-After. Zero is
	// not known: when something ends, or never.
	RetryAfter time.Duration
}

// Error says which limit it is, and what to do.
func (e *ExceededError) Error() string {
	switch e.Limit {
	case LimitSandboxesAtOnce:
		return fmt.Sprintf("an account may have %d sandboxes at once, and has %d: delete one first", max(0, e.Max), e.Used)
	case LimitRunsAtOnce:
		return fmt.Sprintf("an account may have %d runs at once, and has %d: wait for one to end, or interrupt it", max(0, e.Max), e.Used)
	case LimitRequestsPerSecond:
		if e.RetryAfter == 0 {
			return "the account may send no requests: ask those who run this server"
		}
		return fmt.Sprintf("too many requests of the account: wait %v before the next, and send fewer", e.RetryAfter.Round(time.Millisecond))
	}
	return e.dayText()
}

func (e *ExceededError) dayText() string {
	amount, remedy := e.Limit.amount, "wait for that to end"
	text := "an account may use " + amount(max(0, e.Max)) + " a day (used: " + amount(e.Used)
	switch {
	case e.Need > e.Max:
		remedy = "ask those who run this server for more"
	case e.Used+e.Need > e.Max:
		remedy = "wait until 00:00 UTC, or ask those who run this server for more"
	default:
		text += ", held by what goes on: " + amount(e.Held)
	}
	if e.Need > 1 {
		text += ", needed: " + amount(e.Need)
	}
	return text + "): " + remedy
}

// amount writes an amount with its unit.
func (l Limit) amount(n int64) string {
	switch l {
	case LimitClaudeTimePerDay:
		return time.Duration(n).String() + " of Claude"
	case LimitDollarsPerDay:
		return MicroUSD(n).String()
	case LimitTokensPerDay:
		return fmt.Sprint(n, " tokens")
	case LimitBytesInPerDay:
		return fmt.Sprint(n, " bytes of uploads")
	case LimitBytesOutPerDay:
		return fmt.Sprint(n, " bytes of downloads")
	}
	return fmt.Sprint(n, " sandboxes")
}
