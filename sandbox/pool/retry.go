package pool

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Bounds of what is tried again.
const (
	attempts     = 5
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = time.Minute
)

// backoff is how long to wait after so many failures: anything up to a bound that
// doubles, so that those who failed at once do not come back at once.
func backoff(failures int) time.Duration {
	bound := maxBackoff
	if failures < 10 {
		bound = min(bound, firstBackoff<<max(failures, 0))
	}
	return rand.N(bound) + 1
}

// transient reports whether an error may be gone when the same is tried again.
func transient(err error) bool {
	return errors.Is(err, sandbox.ErrUnavailable) || errors.Is(err, sandbox.ErrExhausted)
}

// pause waits, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// retry calls fn, which may be done twice, again while its error is again's kind.
func retry(ctx context.Context, again func(error) bool, fn func(context.Context) error) error {
	for failures := 0; ; failures++ {
		err := fn(ctx)
		if err == nil || !again(err) || failures+1 == attempts {
			return err
		}
		if ended := pause(ctx, backoff(failures)); ended != nil {
			return errors.Join(ended, err)
		}
	}
}
