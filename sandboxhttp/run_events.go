package sandboxhttp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/internal/eventlog"
)

// bridge brings the events of a run that another server looks after to those who follow
// it here.
type bridge struct {
	box   *box
	id    string
	log   *eventlog.Log
	stop  context.CancelFunc
	users int // under box.mu
}

// bridge gives the one of a run, which the caller leaves.
func (b *box) bridge(ctx context.Context, id string) (*bridge, error) {
	if b.h.config.Logs == nil || b.h.runs.Err() != nil {
		return nil, shuttingDown() // else this server would look after it
	}
	info, err := b.h.config.Logs.Stat(ctx, id)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if br := b.bridges[id]; br != nil {
		br.users++
		return br, nil
	}
	br := &bridge{box: b, id: id, users: 1}
	br.log = eventlog.NewAt(b.h.limits.RunBytes, uint64(info.Lines), b.h.older(id))
	ctx, br.stop = context.WithCancel(b.h.runs)
	if err := b.h.start("follow", func() { br.work(ctx, info.Lines) }); err != nil {
		br.stop()
		return nil, err
	}
	if b.bridges == nil {
		b.bridges = map[string]*bridge{}
	}
	b.bridges[id] = br
	return br, nil
}

// leave ends the bridge when nobody uses it any more.
func (br *bridge) leave() {
	br.box.mu.Lock()
	defer br.box.mu.Unlock()
	if br.users--; br.users == 0 {
		br.stop()
		br.forget()
	}
}

// forget makes the next one who follows get a new one. The caller holds box.mu.
func (br *bridge) forget() {
	if br.box.bridges[br.id] == br {
		delete(br.box.bridges, br.id)
	}
}

// work passes events on until the run has ended.
func (br *bridge) work(ctx context.Context, from int64) {
	rec, err := br.follow(ctx, from)
	if err != nil {
		if ctx.Err() == nil {
			br.box.h.log.Error("cannot follow a run of another server", "run", br.id, "error", err)
		}
		br.log.Leave()
	} else {
		br.log.End("end", rec.endEvent())
	}
	br.box.mu.Lock()
	defer br.box.mu.Unlock()
	br.forget()
}

func (br *bridge) follow(ctx context.Context, from int64) (*Run, error) {
	h := br.box.h
	for line, err := range h.config.Logs.Follow(ctx, br.id, from+1) {
		if err != nil {
			return nil, err
		}
		e := event(line)
		br.log.Append(e.Name, e.Data)
	}
	// The log ends first, and then the record.
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		rec, err := h.store.Run(ctx, br.box.account, br.box.id, br.id)
		if err != nil || rec.State == StateEnded {
			return rec, err
		}
		if !sleep(ctx, wait) {
			return nil, errors.Join(errLeft, context.Cause(ctx))
		}
	}
}

// eventBudget bounds what the events of runs that have ended take together.
type eventBudget struct {
	limit int64

	mu   sync.Mutex
	logs []*eventlog.Log // oldest first
	size int64
}

func (e *eventBudget) add(l *eventlog.Log) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logs = append(e.logs, l)
	e.size += l.Size()
	trimmed := 0
	for e.size > e.limit && trimmed < len(e.logs) {
		before := e.logs[trimmed].Size()
		e.logs[trimmed].Trim()
		e.size -= before
		trimmed++
	}
	e.logs = slices.Delete(e.logs, 0, trimmed)
}

func (e *eventBudget) remove(l *eventlog.Log) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.Index(e.logs, l); i >= 0 {
		e.size -= l.Size()
		e.logs = slices.Delete(e.logs, i, i+1)
	}
}
