package pool

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// State is where in its life a sandbox of a pool is.
type State string

// The states.
const (
	StateCreating   State = "creating"   // being made, or being filled
	StateRunning    State = "running"    // ready, or a spare
	StateStopping   State = "stopping"   // being saved, then ended; nobody may use it any more
	StateTerminated State = "terminated" // ended; Record.End says why
)

// Record is all that is known of a sandbox, as a Store keeps it. It holds no secret.
type Record struct {
	Pool string `json:"pool"`
	// Key tells the records of a pool apart, and never changes. What the provider
	// knows the sandbox by is derived from it.
	Key string `json:"key"`
	// Revision is how often the record was saved; 0 before it was.
	Revision int64 `json:"revision"`

	Owner string `json:"owner"` // "" for a spare
	// ID is what the owner knows the sandbox by. It stays the same when another
	// sandbox of the provider takes over.
	ID     string            `json:"id"`
	Labels map[string]string `json:"labels,omitzero"`
	// Spare is the kind of a spare, "" once it has an owner.
	Spare string `json:"spare,omitempty"`
	// Config is what it is made of, without Secrets and Credentials. Its Timeout and
	// IdleTimeout are the limits that the pool keeps to; 0 is no limit of that kind.
	Config sandbox.Config `json:"config"`

	State State       `json:"state"`
	End   sandbox.End `json:"end,omitempty"`   // why, once it is stopping
	Error string      `json:"error,omitempty"` // what went wrong last

	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // when its lifetime ends
	EndedAt   time.Time `json:"ended_at,omitzero"`
	ActiveAt  time.Time `json:"active_at"`         // when it was last used
	SavedAt   time.Time `json:"saved_at,omitzero"` // when Options.Save last succeeded
	// UnsavedAt is when Options.Save first failed since it last succeeded.
	UnsavedAt time.Time `json:"unsaved_at,omitzero"`
	// Busy says by process until when it is in use at least.
	Busy     map[string]time.Time    `json:"busy,omitzero"`
	Warnings map[sandbox.End]Warning `json:"warnings,omitzero"` // the last one for each reason
	Stop     *Stop                   `json:"stop,omitempty"`    // set once it is stopping

	Box      Box       `json:"box"`                // where it is
	Rollover *Rollover `json:"rollover,omitempty"` // going on
	Old      *Box      `json:"old,omitempty"`      // where it was, until that is ended
	Boxes    int       `json:"boxes"`              // how many there were

	Lease Lease `json:"lease,omitzero"`
}

// Box is a sandbox of the provider.
type Box struct {
	Name      string    `json:"name"`         // sandbox.Config.Name, recorded before it is made
	ID        string    `json:"id,omitempty"` // "" until it is known
	ExpiresAt time.Time `json:"expires_at"`   // when the provider ends it
}

// Warning is an end that was announced.
type Warning struct {
	End time.Time `json:"end"` // when it was said to come
	At  time.Time `json:"at"`  // when that was said
}

// Stop is how a sandbox is being ended.
type Stop struct {
	Until time.Time `json:"until"` // when it ends even if it cannot be saved
	// Keep goes on with it if it cannot be saved.
	Keep bool `json:"keep,omitempty"`
	// Unsaved ends it without saving: that was asked for, or there is nothing to save.
	Unsaved bool `json:"unsaved,omitempty"`
	Saved   bool `json:"saved,omitempty"` // it has been
}

// Rollover is a successor that takes over.
type Rollover struct {
	To    Box  `json:"to"`
	Saved bool `json:"saved,omitempty"` // the workspace of the one before has been
	Cut   bool `json:"cut,omitempty"`   // it could not wait for what was running
}

// Lease is which process is at work on a sandbox.
type Lease struct {
	Holder string    `json:"holder,omitempty"`
	Until  time.Time `json:"until,omitzero"` // when another may take it
}

// UnmarshalJSON gives all times in UTC.
func (r *Record) UnmarshalJSON(data []byte) error {
	type plain Record // without this method
	if err := json.Unmarshal(data, (*plain)(r)); err != nil {
		return err
	}
	times := []*time.Time{&r.CreatedAt, &r.ExpiresAt, &r.EndedAt, &r.ActiveAt, &r.SavedAt, &r.UnsavedAt, &r.Box.ExpiresAt, &r.Lease.Until}
	if r.Stop != nil {
		times = append(times, &r.Stop.Until)
	}
	if r.Rollover != nil {
		times = append(times, &r.Rollover.To.ExpiresAt)
	}
	if r.Old != nil {
		times = append(times, &r.Old.ExpiresAt)
	}
	for _, t := range times {
		*t = t.UTC()
	}
	for reason, w := range r.Warnings {
		r.Warnings[reason] = Warning{End: w.End.UTC(), At: w.At.UTC()}
	}
	for holder, until := range r.Busy {
		r.Busy[holder] = until.UTC()
	}
	return nil
}

// Ending gives the end that was announced and is still to come, if nothing is done about it.
func (r *Record) Ending() (reason sandbox.End, at time.Time, announced bool) {
	if r.State != StateRunning {
		return "", time.Time{}, false
	}
	reason, at = r.planned()
	w, told := r.Warnings[reason]
	return reason, at, told && w.End.Equal(at)
}

func (l Lease) heldByOther(holder string, now time.Time) bool {
	return l.Holder != "" && l.Holder != holder && now.Before(l.Until)
}

// live reports whether there is or may be a sandbox.
func (r *Record) live() bool { return r.State != StateTerminated }

// busyUntil is until when somebody uses it at least; not after now when nobody does.
func (r *Record) busyUntil() time.Time {
	var latest time.Time
	for _, until := range r.Busy {
		if until.After(latest) {
			latest = until
		}
	}
	return latest
}

// idleSince is when somebody used it last; that may be to come.
func (r *Record) idleSince() time.Time {
	if until := r.busyUntil(); until.After(r.ActiveAt) {
		return until
	}
	return r.ActiveAt
}

// use marks it as in use by a process, or, with until zero, no longer.
func (r *Record) use(holder string, now, until time.Time) {
	maps.DeleteFunc(r.Busy, func(_ string, until time.Time) bool { return !until.After(now) })
	if r.ActiveAt.Before(now) {
		r.ActiveAt = now
	}
	if until.IsZero() {
		delete(r.Busy, holder)
		return
	}
	if r.Busy == nil {
		r.Busy = map[string]time.Time{}
	}
	r.Busy[holder] = until
}

// warned records that an end was announced.
func (r *Record) warned(reason sandbox.End, w Warning) {
	if r.Warnings == nil {
		r.Warnings = map[sandbox.End]Warning{}
	}
	r.Warnings[reason] = w
}

// stop records that it is to end.
func (r *Record) stop(reason sandbox.End, stop Stop) {
	if stop.Until.After(r.Box.ExpiresAt) {
		stop.Until = r.Box.ExpiresAt
	}
	r.State, r.End, r.Stop = StateStopping, reason, &stop
}

// lost records that it ended by itself; at may be zero.
func (r *Record) lost(reason sandbox.End, at time.Time) {
	r.stop(reason, Stop{Unsaved: true})
	r.EndedAt = at
}

// nextBox names another sandbox of the provider.
func (r *Record) nextBox(expires time.Time) Box {
	r.Boxes++
	return Box{Name: fmt.Sprintf("%s-%d", r.Key, r.Boxes), ExpiresAt: expires}
}

// owns reports whether a sandbox of the provider is this record's.
func (r *Record) owns(name, id string) bool {
	if !r.live() {
		return false
	}
	boxes := []Box{r.Box}
	if r.Rollover != nil {
		boxes = append(boxes, r.Rollover.To)
	}
	if r.Old != nil {
		boxes = append(boxes, *r.Old)
	}
	for _, b := range boxes {
		if b.ID == id || b.ID == "" && b.Name == name {
			return true
		}
	}
	return false
}

// kind is the same for configurations of which a spare can stand in for another:
// limits of time are kept by the pool.
func kind(c *sandbox.Config) (string, error) {
	kept, _ := c.WithoutSecrets()
	kept.Timeout, kept.IdleTimeout = 0, 0
	data, err := json.Marshal(kept)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:12]), nil
}
