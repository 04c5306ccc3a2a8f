package broker

import (
	"context"
	"sync"
)

// AccountOptions says how an [Account] begins. The zero value, and nil, are usable.
type AccountOptions struct {
	// Limits hold for all tokens of the account together. Zero: none.
	Limits Limits
	// Used is what was used before, as a ledger has it from before a restart.
	Used Usage
}

// Account counts and limits what several tokens use together. It lives as long as
// somebody holds it or a token of it: keep one for each of your accounts. It is
// safe for concurrent use and has nothing to close.
type Account struct {
	name  string
	meter meter

	mu  sync.Mutex
	era *era
}

// era is the time between two revocations.
type era struct {
	over context.Context
	end  context.CancelFunc
}

func newEra() *era {
	over, end := context.WithCancel(context.Background())
	return &era{over, end}
}

// NewAccount returns an account. The name is for events and logs; two accounts of
// one name count apart.
func NewAccount(name string, opts *AccountOptions) *Account {
	if opts == nil {
		opts = &AccountOptions{}
	}
	return &Account{
		name: name, era: newEra(),
		meter: meter{whose: "the account", limits: opts.Limits, used: opts.Used},
	}
}

// Name returns its name.
func (a *Account) Name() string { return a.name }

// Usage returns what was used so far, requests under way included.
func (a *Account) Usage() Usage { return a.meter.usage() }

// SetLimits changes the limits, for requests under way as well.
func (a *Account) SetLimits(l Limits) { a.meter.setLimits(l) }

// Reset begins a new period, a month say, with what was used in it already, and
// returns what was used in the one that ends. Requests under way count in the
// new period from here on.
func (a *Account) Reset(used Usage) (before Usage) {
	a.meter.mu.Lock()
	defer a.meter.mu.Unlock()
	before, a.meter.used = a.meter.used, used
	return before
}

// Revoke makes all its tokens worthless and cuts the requests under way with
// them. Tokens that are made later are valid.
func (a *Account) Revoke() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.era.end()
	a.era = newEra()
}

func (a *Account) current() *era {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.era
}
