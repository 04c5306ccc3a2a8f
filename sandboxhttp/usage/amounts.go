package usage

import (
	"fmt"
	"time"
)

// Amounts are what was used. The zero value is nothing.
type Amounts struct {
	// Sandboxes is how many were made, Runs how many ended.
	Sandboxes, Runs int64
	// ClaudeTime is how long runs went on, each counted by itself.
	ClaudeTime time.Duration
	// Cost is what the model's API cost.
	Cost MicroUSD
	// The tokens of prompts that the cache had no part in, of answers, and of
	// prompts that were read from and written to the cache.
	InputTokens, OutputTokens, CacheReadTokens, CacheWriteTokens int64
	// BytesIn is what was uploaded to buckets of workspaces, BytesOut what was
	// downloaded from them.
	BytesIn, BytesOut int64
}

// Budget is what may be used, or is held for use. In a [Quota] zero is no limit; in a
// [Reservation] and a [Place] it is nothing.
type Budget struct {
	// Sandboxes is how many are made.
	Sandboxes int64
	// ClaudeTime is how long runs go on, each counted by itself.
	ClaudeTime time.Duration
	// Cost is what the model's API costs.
	Cost MicroUSD
	// Tokens are those of prompts and answers, cached ones included.
	Tokens int64
	// BytesIn is what is uploaded to buckets of workspaces, BytesOut what is
	// downloaded from them.
	BytesIn, BytesOut int64
}

// most is the largest amount that is taken: what JavaScript reads exactly, and far from
// where sums overflow.
const most = 1 << 53

// each gives the fields, in the order of columns.
func (a *Amounts) each() [10]*int64 {
	return [...]*int64{&a.Sandboxes, &a.Runs, (*int64)(&a.ClaudeTime), (*int64)(&a.Cost),
		&a.InputTokens, &a.OutputTokens, &a.CacheReadTokens, &a.CacheWriteTokens, &a.BytesIn, &a.BytesOut}
}

// Add returns the sum.
func (a Amounts) Add(b Amounts) Amounts {
	sum, more := a.each(), b.each()
	for i, field := range sum {
		*field += *more[i]
	}
	return a
}

// Tokens returns the tokens of all kinds.
func (a Amounts) Tokens() int64 {
	return a.InputTokens + a.OutputTokens + a.CacheReadTokens + a.CacheWriteTokens
}

// Budget returns the amounts that can be limited.
func (a Amounts) Budget() Budget {
	return Budget{a.Sandboxes, a.ClaudeTime, a.Cost, a.Tokens(), a.BytesIn, a.BytesOut}
}

// each gives the fields, in the order of perDay.
func (b *Budget) each() [6]*int64 {
	return [...]*int64{&b.Sandboxes, (*int64)(&b.ClaudeTime), (*int64)(&b.Cost), &b.Tokens, &b.BytesIn, &b.BytesOut}
}

// Add returns the sum.
func (b Budget) Add(c Budget) Budget {
	sum, more := b.each(), c.each()
	for i, field := range sum {
		*field += *more[i]
	}
	return b
}

// Less returns what is left of b without c, which is nothing where c has more.
func (b Budget) Less(c Budget) Budget {
	left, taken := b.each(), c.each()
	for i, field := range left {
		*field = max(0, *field-*taken[i])
	}
	return b
}

// checkRange refuses amounts that are none, or too large to add up.
func checkRange(what string, fields []*int64) error {
	for _, field := range fields {
		if *field < 0 || *field > most {
			return fmt.Errorf("%w: %s has an amount of %d; use 0 to %d", ErrInvalid, what, *field, int64(most))
		}
	}
	return nil
}
