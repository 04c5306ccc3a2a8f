package usage

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// Memory is a Ledger that lasts as long as the process, and grows by every entry. The
// zero value is ready for use.
type Memory struct {
	mu       sync.Mutex
	accounts map[string]*memoryAccount
	entries  []Entry // in order
}

type memoryAccount struct {
	places map[placeName]*Place
	days   map[time.Time]Amounts
	added  map[string]bool // entries by ID
}

type placeName struct {
	kind Kind
	id   string
}

var _ Ledger = (*Memory)(nil)

// account gives an account's part, and makes it. The caller holds mu.
func (m *Memory) account(name string) *memoryAccount {
	have := m.accounts[name]
	if have == nil {
		have = &memoryAccount{map[placeName]*Place{}, map[time.Time]Amounts{}, map[string]bool{}}
		if m.accounts == nil {
			m.accounts = map[string]*memoryAccount{}
		}
		m.accounts[name] = have
	}
	return have
}

// Reserve implements Ledger.
func (m *Memory) Reserve(ctx context.Context, r Reservation) (Place, error) {
	r, err := r.Checked()
	if err := cmp.Or(context.Cause(ctx), err); err != nil {
		return Place{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a, name := m.account(r.Account), placeName{r.Kind, r.ID}
	if have := a.places[name]; have != nil {
		return *have, nil
	}
	state := State{Used: a.days[DayOf(r.Time)]}
	for other, p := range a.places {
		state.Held = state.Held.Add(p.Held)
		if other.kind == r.Kind {
			state.AtOnce++
		}
	}
	p, err := r.Grant(state)
	if err == nil {
		taken := p
		a.places[name] = &taken
	}
	return p, err
}

// Release implements Ledger.
func (m *Memory) Release(ctx context.Context, account string, kind Kind, id string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.accounts[account]; a != nil {
		delete(a.places, placeName{kind, id})
	}
	return nil
}

// Add implements Ledger.
func (m *Memory) Add(ctx context.Context, e Entry) error {
	e, err := e.Checked()
	if err := cmp.Or(context.Cause(ctx), err); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.account(e.Account)
	if a.added[e.ID] {
		return nil
	}
	a.added[e.ID] = true
	at, _ := slices.BinarySearchFunc(m.entries, e.Position(), comparePositions[Entry])
	m.entries = slices.Insert(m.entries, at, e)
	day := DayOf(e.Time)
	a.days[day] = a.days[day].Add(e.Amounts)
	if p := a.places[placeName{e.Kind, e.Place}]; p != nil {
		p.Held = p.Held.Less(e.Amounts.Budget())
	}
	return nil
}

// Places implements Ledger.
func (m *Memory) Places(ctx context.Context, q Query) ([]Place, error) {
	return gather(ctx, m, q, func(_ string, a *memoryAccount) []Place {
		var places []Place
		for _, p := range a.places {
			places = append(places, *p)
		}
		return places
	})
}

// Days implements Ledger.
func (m *Memory) Days(ctx context.Context, q Query) ([]Day, error) {
	return gather(ctx, m, q, func(account string, a *memoryAccount) []Day {
		var days []Day
		for date, amounts := range a.days {
			days = append(days, Day{date, account, amounts})
		}
		return days
	})
}

// Entries implements Ledger.
func (m *Memory) Entries(ctx context.Context, q Query) ([]Entry, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// A ledger is read page by page: where one begins is looked up.
	first, _ := slices.BinarySearchFunc(m.entries, q.start(), comparePositions[Entry])
	return pick(q, m.entries[first:]), nil
}

// positioned are the things that are listed.
type positioned interface{ Position() Position }

func comparePositions[T positioned](item T, p Position) int { return item.Position().Compare(p) }

// gather collects what accounts have, puts it in order, and gives what a query asks for.
func gather[T positioned](ctx context.Context, m *Memory, q Query, of func(string, *memoryAccount) []T) ([]T, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []T
	for name, a := range m.accounts {
		if q.AllAccounts || name == q.Account {
			all = append(all, of(name, a)...)
		}
	}
	slices.SortFunc(all, func(a, b T) int { return a.Position().Compare(b.Position()) })
	return pick(q, all), nil
}

// pick gives what a query asks for, of what is in order.
func pick[T positioned](q Query, all []T) []T {
	var picked []T
	for _, item := range all {
		if q.Limit > 0 && len(picked) == q.Limit {
			break
		}
		if q.matches(item.Position()) {
			picked = append(picked, item)
		}
	}
	return picked
}
