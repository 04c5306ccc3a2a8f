package claude

import (
	"context"
	"errors"

	"github.com/vivarium-go/vivarium/sandbox"
)

// End is how a run ended, in the words that are used for endings everywhere: in
// events, over HTTP, in metrics.
type End string

// The ways a run ends.
const (
	EndCompleted    End = "completed"
	EndCancelled    End = "cancelled"     // somebody stopped it, or the sandbox
	EndRunTimeout   End = "run_timeout"   // its context's deadline was reached
	EndIdle         End = "idle"          // the sandbox ended because it was idle
	EndLifetime     End = "lifetime"      // the sandbox reached its Timeout
	EndOOM          End = "oom"           // the sandbox reached its memory limit
	EndProviderLost End = "provider_lost" // the sandbox's place lost it or does not answer
	EndBudget       End = "budget"        // Options.MaxTurns or MaxBudgetUSD was reached
	EndAgentError   End = "agent_error"   // Claude, its CLI or the model's API failed
	EndUnknown      End = "unknown"
)

// EndOf gives the end of a run from the error of Query or Stream.Result; nil
// is EndCompleted. A run that was let go of (ErrDetached) has not ended, and is
// EndUnknown.
func EndOf(err error) End {
	switch {
	case err == nil:
		return EndCompleted
	case errors.Is(err, ErrDetached):
		return EndUnknown
	}
	var ended *EndError
	if errors.As(err, &ended) && ended.SandboxEnd != "" {
		return End(ended.SandboxEnd)
	}
	var exit *sandbox.ExitError
	if errors.As(err, &exit) && exit.OOM {
		return EndOOM
	}
	if end := endOfResult(err); end != "" {
		return end
	}
	var start *StartError
	var long *LineTooLongError
	var panicked *PanicError
	switch {
	case errors.As(err, &panicked), errors.As(err, &long), errors.Is(err, ErrNotReading), errors.Is(err, errFlood):
		return EndAgentError
	case errors.Is(err, sandbox.ErrUnavailable):
		return EndProviderLost
	case errors.Is(err, sandbox.ErrEnded):
		return EndUnknown
	case errors.Is(err, context.Canceled), errors.Is(err, ErrClosed), errors.Is(err, ErrTakenBack):
		return EndCancelled
	case errors.Is(err, errSlowStart):
		return EndAgentError
	case errors.Is(err, context.DeadlineExceeded):
		return EndRunTimeout
	case exit != nil, errors.As(err, &start):
		return EndAgentError
	}
	return EndUnknown
}

// endOfResult is "" for an error that is not a result's.
func endOfResult(err error) End {
	var failed *ResultError
	if !errors.As(err, &failed) {
		return ""
	}
	switch failed.Kind {
	case KindInterrupted:
		if errors.Is(failed.Err, context.DeadlineExceeded) {
			return EndRunTimeout
		}
		return EndCancelled
	case KindMaxTurns, KindBudget:
		return EndBudget
	}
	return EndAgentError
}
