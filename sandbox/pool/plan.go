package pool

import (
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// duty is what the passing of time asks for.
type duty int

const (
	dutyNone     duty = iota
	dutyWarn          // announce the end
	dutyStop          // begin it
	dutyWarnCut       // announce that a successor takes over whatever runs
	dutyRollOver      // begin that
)

// endRollover is what a Warning of a rollover is kept under.
const endRollover sandbox.End = "rollover"

// planned is the next end that its limits set, zero for none.
func (r *Record) planned() (reason sandbox.End, end time.Time) {
	reason, end = sandbox.EndLifetime, r.ExpiresAt
	if r.Config.IdleTimeout <= 0 || r.Owner == "" {
		return reason, end
	}
	if idle := r.idleSince().Add(r.Config.IdleTimeout); end.IsZero() || idle.Before(end) {
		reason, end = sandbox.EndIdle, idle
	}
	return reason, end
}

// grace is how long before an end it is announced.
func (p *Pool) grace(r *Record, reason sandbox.End) time.Duration {
	if r.Owner == "" {
		return 0
	}
	limit := r.Config.Timeout
	if reason == sandbox.EndIdle {
		limit = r.Config.IdleTimeout
	}
	return min(p.opts.Grace, limit/2)
}

// due says what is to be done about a running sandbox now, and else when to look again.
func (p *Pool) due(r *Record, now time.Time) (duty, time.Time) {
	do, at := p.dueEnd(r, now)
	if do != dutyNone {
		return do, at
	}
	do, other := p.dueRollover(r, now)
	if do != dutyNone || at.IsZero() || !other.IsZero() && other.Before(at) {
		return do, other
	}
	return dutyNone, at
}

func (p *Pool) dueEnd(r *Record, now time.Time) (duty, time.Time) {
	reason, end := r.planned()
	if end.IsZero() {
		return dutyNone, end
	}
	grace := p.grace(r, reason)
	if w, told := r.Warnings[reason]; grace > 0 {
		if !told || !w.End.Equal(end) {
			return when(dutyWarn, end.Add(-grace), now)
		}
		if earliest := w.At.Add(grace); end.Before(earliest) {
			end = earliest
		}
	}
	return when(dutyStop, end, now)
}

func (p *Pool) dueRollover(r *Record, now time.Time) (duty, time.Time) {
	// An end that leaves the time to save comes first anyway.
	if p.opts.Cap == 0 || r.Owner == "" || !r.ExpiresAt.Add(p.opts.Grace+p.opts.SaveTime).After(r.Box.ExpiresAt) {
		return dutyNone, time.Time{}
	}
	start, bound := r.Box.ExpiresAt.Add(-p.opts.Ahead), r.cutAt(p.opts.Ahead)
	switch {
	case now.Before(start):
		return dutyNone, start
	case !now.Before(bound) || !r.busyUntil().After(now):
		return dutyRollOver, now
	case r.Warnings[endRollover].End.Equal(bound):
		return dutyNone, bound
	}
	return dutyWarnCut, now
}

// cutAt is when a rollover waits no longer.
func (r *Record) cutAt(ahead time.Duration) time.Time { return r.Box.ExpiresAt.Add(-ahead / 2) }

// when is a duty from a time on.
func when(do duty, from, now time.Time) (duty, time.Time) {
	if now.Before(from) {
		return dutyNone, from
	}
	return do, from
}

// boxTime is how long the provider is asked to let a sandbox live: so long that it ends
// it only when no process of the pool does.
func (p *Pool) boxTime(r *Record, now time.Time) time.Duration {
	life := r.ExpiresAt.Sub(now) + p.opts.Grace + p.opts.SaveWithin
	if r.Owner == "" {
		life += p.opts.Lifetime
	}
	if p.opts.Cap > 0 && (r.Owner == "" || life > p.opts.Cap) {
		return p.opts.Cap
	}
	return max(life, p.opts.SaveWithin)
}

// next is the step that a record needs now; nil and when to look again, zero for
// never, if it needs none. Whoever was at work before, what was done is in the record.
func (p *Pool) next(r *Record, now time.Time) (step, time.Time) {
	switch r.State {
	case StateCreating:
		if r.Box.ID == "" {
			return (*work).make, now
		}
		return (*work).fill, now
	case StateRunning:
		if do := rollingOver(r); do != nil {
			return do, now
		}
		do, at := p.due(r, now)
		return duties[do], at
	case StateStopping:
		return stopping(r, p.opts.Save != nil), now
	}
	return nil, time.Time{}
}

var duties = [...]step{
	dutyWarn: (*work).warn, dutyStop: (*work).stop,
	dutyWarnCut: (*work).warnCut, dutyRollOver: (*work).rollOver,
}

func rollingOver(r *Record) step {
	switch {
	case r.Old != nil:
		return (*work).endOld
	case r.Rollover == nil:
		return nil
	case !r.Rollover.Saved:
		return (*work).saveOld
	case r.Rollover.To.ID == "":
		return (*work).makeSuccessor
	}
	return (*work).switchOver
}

func stopping(r *Record, saves bool) step {
	switch {
	case r.Rollover != nil:
		return (*work).dropSuccessor
	case r.Old != nil:
		return (*work).endOld
	case saves && r.Owner != "" && r.Box.ID != "" && !r.Stop.Unsaved && !r.Stop.Saved:
		return (*work).save
	}
	return (*work).end
}
