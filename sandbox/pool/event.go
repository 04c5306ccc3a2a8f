package pool

import (
	"context"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// EventKind is what an Event tells of.
type EventKind string

// The kinds of events.
const (
	// EventWarning: the sandbox ends At, for Reason, unless it is used before where
	// that is sandbox.EndIdle.
	EventWarning EventKind = "warning"
	// EventCut: the sandbox is in use, and another takes over At, whatever runs in it.
	EventCut EventKind = "cut"
	// EventUnsaved: Options.Save failed with Err. It is called again, and the sandbox is
	// kept until At.
	EventUnsaved EventKind = "unsaved"
	// EventRolledOver: another sandbox of the provider has taken over.
	EventRolledOver EventKind = "rolled_over"
	// EventEnded: it has ended, for Reason.
	EventEnded EventKind = "ended"
)

// Event is something that an owner may want to know of.
type Event struct {
	Kind   EventKind
	Record *Record // as it is now
	Reason sandbox.End
	At     time.Time
	// Saved says of EventEnded that Options.Save succeeded last, so that nothing was
	// lost; it is false where there is none.
	Saved bool
	Err   error
}

// notify tells of an event, except of spares.
func (p *Pool) notify(ctx context.Context, e Event) {
	if p.opts.Notify == nil || e.Record.Owner == "" {
		return
	}
	ctx, stop := context.WithTimeout(ctx, notifyTime)
	defer stop()
	p.opts.Notify(ctx, e)
}
