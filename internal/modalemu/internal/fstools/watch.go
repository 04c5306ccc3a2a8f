package fstools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// killGrace bounds what is done after the tool was killed.
const killGrace = 10 * time.Second

func afterKill(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), killGrace)
}

// event is one line of a watch's output.
type event struct {
	Type  string   `json:"event_type"`
	Paths []string `json:"paths"`
}

// watch prints changes until the time is over or stdin has ended.
func (t *tool) watch(r *watchRequest) error {
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	if r.Timeout != nil {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*r.Timeout*float64(time.Second)))
		defer cancel()
	}
	if _, err := t.fsys.Stat(t.ctx, r.Path); err != nil {
		return err
	}
	w, ok := t.box.(driver.Watcher)
	if !ok {
		return fail(kindNotSupported)
	}
	if ctx.Err() != nil {
		return t.ctx.Err()
	}
	changes, err := w.Watch(ctx, r.Path, r.Recursive)
	if err != nil {
		if ctx.Err() != nil {
			return t.ctx.Err()
		}
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if t.stdin.Discard(ctx) == nil {
			cancel()
		}
	}()
	defer func() { cancel(); <-done }()
	enc := json.NewEncoder(t.stdout)
	for c, err := range changes {
		switch {
		case ctx.Err() != nil:
			return t.ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			return nil // what was watched is gone, which was told
		case err != nil:
			return err
		}
		e := eventOf(c, r.Path)
		if r.Filter != nil && !slices.Contains(*r.Filter, e.Type) {
			continue
		}
		if err := enc.Encode(e); err != nil {
			return fmt.Errorf("writing an event: %w", err)
		}
	}
	return t.ctx.Err()
}

// eventOf is a change in the client's words. One that says that others were
// lost is about the whole of what is watched.
func eventOf(c driver.Change, root string) event {
	switch c.Op {
	case driver.ChangeCreate:
		return event{"Create", c.Names}
	case driver.ChangeModify:
		return event{"Modify", c.Names}
	case driver.ChangeRemove:
		return event{"Remove", c.Names}
	case driver.ChangeAccess:
		return event{"Access", c.Names}
	case driver.ChangeRename:
		switch {
		case len(c.Names) != 2:
			return event{"Modify", c.Names}
		case c.Names[0] == "":
			return event{"RenameTo", c.Names[1:]}
		case c.Names[1] == "":
			return event{"RenameFrom", c.Names[:1]}
		}
		return event{"Rename", c.Names}
	}
	return event{"Unknown", []string{root}}
}
