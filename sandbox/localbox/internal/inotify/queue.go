//go:build linux

package inotify

import (
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long the first half of a move waits for the second. The kernel
// queues one right after the other, so it is for the case that a read came
// between them; a move to where nothing is watched has no second half.
const Patience = 10 * time.Millisecond

// Queue joins the halves of moves. The zero value is empty. It is not safe for
// concurrent use.
type Queue struct {
	waiting []queued
}

type queued struct {
	Event
	at    time.Time
	taken bool // as the second half of a move
}

// Add appends events that were read at a time.
func (q *Queue) Add(events []Event, at time.Time) {
	for _, ev := range events {
		q.waiting = append(q.waiting, queued{Event: ev, at: at})
	}
}

// Next takes the oldest event out, with the other half of a move if that is what
// it is. ok is false when there is none, or one that still waits for its other
// half: until then, if then is not zero.
func (q *Queue) Next(now time.Time) (ev Event, to *Event, until time.Time, ok bool) {
	for len(q.waiting) > 0 && q.waiting[0].taken {
		q.waiting = q.waiting[1:]
	}
	if len(q.waiting) == 0 {
		q.waiting = nil
		return Event{}, nil, time.Time{}, false
	}
	first := q.waiting[0]
	if first.Mask&unix.IN_MOVED_FROM != 0 {
		to = q.partner(first.Cookie)
		if until = first.at.Add(Patience); to == nil && now.Before(until) {
			return Event{}, nil, until, false
		}
	}
	q.waiting = q.waiting[1:]
	return first.Event, to, time.Time{}, true
}

func (q *Queue) partner(cookie uint32) *Event {
	for i := 1; i < len(q.waiting); i++ {
		w := &q.waiting[i]
		if w.Mask&unix.IN_MOVED_TO != 0 && w.Cookie == cookie && !w.taken {
			w.taken = true
			return &w.Event
		}
	}
	return nil
}
