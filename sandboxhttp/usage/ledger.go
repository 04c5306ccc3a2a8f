package usage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// Ledger hands out places and adds up what was used: [Memory], that of package
// sqlstore, or another that package usagetest accepts.
//
// Errors are an [*ExceededError], one that matches [ErrInvalid], or the store's own.
// After one of the store's, what was to be done may have been done or not; doing it
// again is safe. Accounts and ids are compared byte by byte. Times are kept to the
// microsecond at least, and returned in UTC. A method whose context has ended returns an
// error that matches its Err. Methods are safe for concurrent use, also by several
// servers where the store has them.
type Ledger interface {
	// Reserve takes a place if there is room for it under all limits of its quota. With
	// the Account, Kind and ID of a place that is taken it changes nothing, and gives
	// that place, whatever the limits are.
	Reserve(ctx context.Context, r Reservation) (Place, error)
	// Release frees a place and what it holds. There being none is no error.
	Release(ctx context.Context, account string, kind Kind, id string) error
	// Places lists the places that are taken: oldest Time first, then by Account, Kind
	// and ID.
	Places(ctx context.Context, q Query) ([]Place, error)

	// Add adds what was used to its day, and takes it from what the entry's place
	// holds. An entry with the Account and ID of one that is there changes nothing.
	// No limit holds it up: what was used was used.
	Add(ctx context.Context, e Entry) error
	// Days lists what accounts used on a day, of days that begin within the query's
	// times: oldest first, then by Account. A day without an entry is not in it.
	Days(ctx context.Context, q Query) ([]Day, error)
	// Entries lists what was added: oldest Time first, then by Account and ID.
	Entries(ctx context.Context, q Query) ([]Entry, error)
}

// ErrInvalid is what errors match that are about what was given: it cannot be kept.
var ErrInvalid = errors.New("invalid")

// Kind says what a place or an entry is about. Others than these can be used: limits of
// places at once do not hold for them, and limits per day for what they hold.
type Kind string

// The kinds.
const (
	KindSandbox Kind = "sandbox" // one that lives; its place holds one of the day's
	KindRun     Kind = "run"     // one that goes on
	KindSave    Kind = "save"    // of a workspace to its bucket
	KindRestore Kind = "restore" // of a workspace from its bucket
)

// Reservation asks for a place. Account, Kind and ID are required.
type Reservation struct {
	Account string
	Kind    Kind
	ID      string // the sandbox's, run's or transfer's
	// SandboxID is kept with the place, for who asks later whether it is still used.
	SandboxID string
	// Time says which day it is; zero is now.
	Time time.Time
	// Quota is what the account may use.
	Quota Quota
	// Hold is the most that it may use. The place holds that, or what the day has left
	// if it is less: Place.Held says how much, to be kept to. Where nothing is limited
	// it holds all of it. A field that is zero holds nothing.
	Hold Budget
	// Least is what it cannot do without: where less is left, Reserve refuses. A zero
	// field is anything at all, of what its kind is about: sandboxes for a sandbox;
	// time, money and tokens for a run; bytes in for a save and out for a restore.
	Least Budget
}

// Place is one that is taken.
type Place struct {
	Account   string
	Kind      Kind
	ID        string
	SandboxID string
	Time      time.Time // when it was taken
	Held      Budget    // what it holds still
}

// Entry is something that was used. Account, Kind and ID are required.
type Entry struct {
	Account string
	// ID is the entry's own: the run's, where it has one entry, or a request's.
	ID string
	// Time says which day it belongs to. Zero is now, with which a day that is over
	// does not change any more.
	Time time.Time
	Kind Kind
	// Place is the ID of the place of this Kind that held what was used; empty for the
	// one with the entry's own ID. There need not be one.
	Place string
	// SandboxID and RunID say where it was used, for who reads the bill.
	SandboxID, RunID string
	// Amounts are at most 2^53 each, and not negative.
	Amounts Amounts
}

// Day is what an account used on a day.
type Day struct {
	Date    time.Time // its beginning, in UTC
	Account string
	Amounts Amounts
}

// Query narrows a list. The zero value matches nothing.
type Query struct {
	// Account is whose; or AllAccounts is set.
	Account     string
	AllAccounts bool
	// From and To bound the times: from From on, and before To. Zero is no bound.
	From, To time.Time
	// After is the position of the last one of the page before.
	After Position
	// Limit is how many at most; 0 is all.
	Limit int
}

// Position is a place in a list. Those without an Account are its beginning. Days have a
// Time and an Account only, and entries no Kind.
type Position struct {
	Time    time.Time
	Account string
	Kind    Kind
	ID      string
}

// Position is where it stands in a list.
func (p Place) Position() Position { return Position{p.Time, p.Account, p.Kind, p.ID} }

// Position is where it stands in a list.
func (e Entry) Position() Position { return Position{Time: e.Time, Account: e.Account, ID: e.ID} }

// Position is where it stands in a list.
func (d Day) Position() Position { return Position{Time: d.Date, Account: d.Account} }

// Compare returns -1, 0 or 1 as p comes before, with or after o.
func (p Position) Compare(o Position) int {
	return cmp.Or(p.Time.Compare(o.Time), cmp.Compare(p.Account, o.Account), cmp.Compare(p.Kind, o.Kind), cmp.Compare(p.ID, o.ID))
}

// start is where the first of a query can be, or just before it.
func (q *Query) start() Position {
	from := Position{Time: q.From}
	if q.After.Account != "" && q.After.Compare(from) > 0 {
		return q.After
	}
	return from
}

func (q *Query) matches(p Position) bool {
	switch {
	case !q.AllAccounts && p.Account != q.Account,
		p.Time.Before(q.From),
		!q.To.IsZero() && !p.Time.Before(q.To),
		q.After.Account != "" && p.Compare(q.After) <= 0:
		return false
	}
	return true
}

// DayOf returns the beginning of a time's day in UTC.
func DayOf(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// Checked returns the entry as a Ledger keeps it, with the time and the place that it
// stands for. It is for those who write a Ledger.
func (e Entry) Checked() (Entry, error) {
	if e.Place == "" {
		e.Place = e.ID
	}
	amounts := e.Amounts.each()
	err := cmp.Or(checkNames(e.Account, e.Kind, e.ID), checkTime(&e.Time), checkRange("an entry", amounts[:]))
	return e, err
}

func checkNames(account string, kind Kind, id string) error {
	if account == "" || kind == "" || id == "" {
		return fmt.Errorf("%w: account %q, kind %q and id %q must not be empty", ErrInvalid, account, kind, id)
	}
	return nil
}

// checkTime makes a time one that can be kept: of 1970 to 2262, as it is nanoseconds
// since then for many a store.
func checkTime(t *time.Time) error {
	if t.IsZero() {
		*t = time.Now()
	}
	*t = t.UTC().Round(0)
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(0, math.MaxInt64)) {
		return fmt.Errorf("%w: time %v; use one of 1970 to 2262", ErrInvalid, t)
	}
	return nil
}
