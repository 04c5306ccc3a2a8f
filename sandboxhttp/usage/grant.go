package usage

import (
	"cmp"
	"time"
)

// State is what an account has taken when it asks for a place, for those who write a
// Ledger.
type State struct {
	AtOnce int64   // places of the reservation's kind
	Held   Budget  // by places of all kinds
	Used   Amounts // of the day of the reservation's time
}

// Checked returns the reservation as a Ledger goes by it, with the time that it stands
// for. It is for those who write a Ledger.
func (r Reservation) Checked() (Reservation, error) {
	if r.Kind == KindSandbox {
		r.Least.Sandboxes = max(r.Least.Sandboxes, 1)
	}
	hold, least := r.Hold.each(), r.Least.each()
	err := cmp.Or(checkNames(r.Account, r.Kind, r.ID), checkTime(&r.Time),
		checkRange("what a reservation is to hold", hold[:]), checkRange("what a reservation needs", least[:]))
	for i, field := range hold {
		*field = max(*field, *least[i])
	}
	return r, err
}

// Grant decides whether a checked reservation gets a place, which is not taken by that. It
// is for those who write a Ledger: nothing may change between the reading of s and the
// taking of the place.
func (r Reservation) Grant(s State) (Place, error) {
	if limit, most := r.Quota.atOnce(r.Kind); most != 0 && s.AtOnce >= most {
		return Place{}, &ExceededError{Account: r.Account, Limit: limit, Max: most, Used: s.AtOnce, Need: 1}
	}
	p := Place{Account: r.Account, Kind: r.Kind, ID: r.ID, SandboxID: r.SandboxID, Time: r.Time, Held: r.Hold}
	spent := s.Used.Budget()
	hold, least, most, used, held := p.Held.each(), r.Least.each(), r.Quota.PerDay.each(), spent.each(), s.Held.each()
	for i, about := range perDay {
		if *most[i] == 0 || about.kind != r.Kind && *hold[i] == 0 {
			continue
		}
		left, need := max(0, *most[i])-*used[i]-*held[i], max(1, *least[i])
		if left < need {
			e := &ExceededError{Account: r.Account, Limit: about.limit, Max: *most[i], Used: *used[i], Held: *held[i], Need: need}
			e.RetryAfter = e.untilTomorrow(r.Time)
			return Place{}, e
		}
		*hold[i] = min(*hold[i], left)
	}
	return p, nil
}

// untilTomorrow is how long it takes until there is room, where only the next day has
// it; else zero.
func (e *ExceededError) untilTomorrow(now time.Time) time.Duration {
	if e.Need > e.Max || e.Used+e.Need <= e.Max {
		return 0
	}
	return DayOf(now).Add(24 * time.Hour).Sub(now)
}
