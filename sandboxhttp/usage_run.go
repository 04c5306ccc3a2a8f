package sandboxhttp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// mostAmount is the largest amount that a ledger takes.
const mostAmount = 1 << 53

func amount[T ~int | ~int64](n T) int64 { return min(max(int64(n), 0), mostAmount) }

// reservation asks for the run's place, which holds what the run may cost and how long it
// may take, where that is bounded.
func (r *run) reservation() usage.Reservation {
	return usage.Reservation{
		Account: r.box.account, Kind: usage.KindRun, ID: r.id, SandboxID: r.box.id,
		Hold: usage.Budget{
			ClaudeTime: time.Duration(amount(r.limit)),
			Cost:       usage.MicroUSD(amount(usage.Dollars(r.opts.MaxBudgetUSD))),
		},
	}
}

// take takes the run's place, under the account's limits.
func (r *run) take() error {
	if r.h.ledger == nil {
		return nil
	}
	place, err := r.h.take(r.h.ctx, r.reservation())
	if err == nil {
		r.keepTo(place.Held)
	}
	return err
}

// takeAgain takes the place of a run that another server has begun, as a rule the one that
// it has, and if it has none any more whatever the limits are.
func (r *run) takeAgain() error {
	if r.h.ledger == nil {
		return nil
	}
	place, err := r.h.ledger.Reserve(r.h.ctx, r.reservation())
	if err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	r.keepTo(place.Held)
	return nil
}

// keepTo lowers the run's bounds to what its place holds. One that holds nothing is of a
// run that was counted, and is over.
func (r *run) keepTo(held usage.Budget) {
	if dollars := held.Cost.Float(); dollars > 0 && r.opts.MaxBudgetUSD > dollars {
		r.opts.MaxBudgetUSD = dollars
	}
	if held.ClaudeTime > 0 && r.limit > held.ClaudeTime {
		r.limit = held.ClaudeTime
	}
}

// amounts are what a run used whose record says when it ended; a nil result says nothing.
// They come from inside the sandbox, and can be anything.
func (r *run) amounts(rec *Run, result *claude.ResultMessage) usage.Amounts {
	used := usage.Amounts{Runs: 1}
	took := rec.EndedAt.Sub(rec.StartedAt)
	if result != nil {
		used.Cost = usage.MicroUSD(amount(usage.Dollars(result.CostUSD)))
		for _, m := range result.ModelUsage {
			addTokens(&used.InputTokens, m.InputTokens)
			addTokens(&used.OutputTokens, m.OutputTokens)
			addTokens(&used.CacheReadTokens, m.CacheReadInputTokens)
			addTokens(&used.CacheWriteTokens, m.CacheCreationInputTokens)
		}
		if r.taken && result.Duration > 0 { // it may have ended while no server was there
			took = min(took, result.Duration)
		}
	}
	used.ClaudeTime = time.Duration(amount(took))
	return used
}

func addTokens(sum *int64, n int) { *sum = amount(*sum + amount(n)) }

// whileItLived bounds what a run took that another server had begun: its sandbox may have
// ended while no server was there.
func (r *run) whileItLived(ctx context.Context, took time.Duration) (time.Duration, error) {
	rec, err := r.h.store.Sandbox(ctx, r.box.account, r.box.id)
	switch {
	case errors.Is(err, ErrNotFound):
		return took, nil
	case err != nil:
		return 0, err
	}
	for _, end := range []time.Time{rec.EndedAt, rec.ExpiresAt} {
		if !end.IsZero() {
			took = min(took, max(0, end.Sub(r.rec.StartedAt)))
		}
	}
	return took, nil
}

// count tells of what the run used, and of its end.
func (r *run) count(ctx context.Context, rec *Run, used usage.Amounts) error {
	if r.h.ledger == nil {
		return nil
	}
	entry := usage.Entry{
		Account: r.box.account, Kind: usage.KindRun, ID: r.id, SandboxID: r.box.id, RunID: r.id, Time: rec.EndedAt, Amounts: used,
	}
	var err error
	if r.taken {
		entry.Amounts.ClaudeTime, err = r.whileItLived(ctx, used.ClaudeTime)
	}
	if err == nil {
		err = r.h.ledger.Add(ctx, entry)
	}
	if err == nil {
		err = r.h.ledger.Release(ctx, entry.Account, entry.Kind, entry.ID)
	}
	if err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	return nil
}
