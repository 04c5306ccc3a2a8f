package sandboxhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// find gives a sandbox of an account, after looking for those that outlived an
// earlier server.
func (h *Handler) find(ctx context.Context, account, id string) (*Sandbox, *box, error) {
	rec, err := h.store.Sandbox(ctx, account, id)
	if errors.Is(err, ErrNotFound) {
		if err := h.adopt(ctx, account); err != nil {
			return nil, nil, err
		}
		rec, err = h.store.Sandbox(ctx, account, id)
	}
	if err != nil {
		return nil, nil, err
	}
	return rec, h.box(account, id), nil
}

// adopt looks once for sandboxes that have no record, and once for those of an account:
// what an earlier server knew of them may be known no more.
func (h *Handler) adopt(ctx context.Context, account string) error {
	if err := h.findLost(ctx); errors.Is(err, pool.ErrClosed) {
		return nil // what is known can be read
	} else if err != nil {
		return providerProblem(err)
	}
	h.mu.Lock()
	known := h.known[account]
	h.mu.Unlock()
	if known {
		return nil
	}
	if err := h.recordAll(ctx, account); err != nil {
		return err
	}
	if err := h.refreshAll(ctx, account); err != nil {
		return err
	}
	h.mu.Lock()
	h.known[account] = true
	h.mu.Unlock()
	return nil
}

// findLost looks once for sandboxes that have no record.
func (h *Handler) findLost(ctx context.Context) error {
	h.mu.Lock()
	swept := h.swept
	h.mu.Unlock()
	if swept {
		return nil
	}
	if err := h.pool.Sweep(ctx); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.swept = true
	return nil
}

// reconcile brings an account's records in line with what has become of its sandboxes.
func (h *Handler) reconcile(ctx context.Context, account string) error {
	if err := h.adopt(ctx, account); err != nil {
		return err
	}
	return h.refreshAll(ctx, account)
}

// refreshAll looks at the sandboxes of an account that may be running.
func (h *Handler) refreshAll(ctx context.Context, account string) error {
	var all []*Sandbox
	for _, state := range []string{StateRunning, StateCreating} {
		list, err := h.store.Sandboxes(ctx, account, Query{State: state})
		if err != nil {
			return err
		}
		all = append(all, list...)
	}
	var asking sync.WaitGroup
	slots, errs := make(chan struct{}, refreshedAtOnce), make([]error, len(all))
	for i, rec := range all {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			_, errs[i] = h.refresh(ctx, rec)
		})
	}
	asking.Wait()
	return errors.Join(errs...)
}

// refreshedAtOnce is how many sandboxes of an account are asked for at once.
const refreshedAtOnce = 8

// refresh asks how a sandbox is, and records it.
func (h *Handler) refresh(ctx context.Context, rec *Sandbox) (*Sandbox, error) {
	if rec.State == StateEnded || rec.State == StateCreating && h.making(rec.ID) {
		return rec, nil
	}
	s, err := h.pool.Get(ctx, rec.Account, rec.ID)
	if errors.Is(err, sandbox.ErrNotFound) {
		err = h.lost(ctx, rec)
	} else if err == nil {
		err = h.look(ctx, rec, s)
	}
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, pool.ErrClosed) {
		return nil, providerProblem(err)
	}
	return h.store.Sandbox(ctx, rec.Account, rec.ID)
}

func (h *Handler) look(ctx context.Context, rec *Sandbox, s *pool.Sandbox) error {
	now, info, err := s.Check(ctx)
	if err != nil {
		return err
	}
	return h.observe(ctx, rec, now, info)
}

// lost records the end of a sandbox of which the pool knows nothing. One that is being
// made is recorded here first.
func (h *Handler) lost(ctx context.Context, rec *Sandbox) error {
	if rec.State == StateCreating {
		if time.Since(rec.CreatedAt) < makingTime {
			return nil
		}
		return h.ended(ctx, rec.Account, rec.ID, sandbox.EndUnknown, time.Now(), false)
	}
	return h.ended(ctx, rec.Account, rec.ID, sandbox.EndProviderLost, time.Now(), false)
}

// makingTime is how long after its record a sandbox is in the pool at the latest, unless
// the server was killed in between.
const makingTime = time.Minute

// observe takes over how a sandbox is.
func (h *Handler) observe(ctx context.Context, rec *Sandbox, now *pool.Record, info *sandbox.Info) error {
	if now.State == pool.StateTerminated {
		return h.ended(ctx, rec.Account, rec.ID, now.End, now.EndedAt, now.Stop != nil && now.Stop.Saved)
	}
	if info == nil || h.making(rec.ID) {
		return nil
	}
	var made, running *Sandbox
	err := h.change(ctx, rec.Account, rec.ID, func(rec *Sandbox) bool {
		if rec.State == StateEnded {
			return false
		}
		before := rec.clone()
		rec.observe(now, info)
		running = rec
		if before.State == StateCreating {
			made = rec
		}
		return !reflect.DeepEqual(&before, rec)
	})
	switch {
	case made != nil:
		h.countSandbox(made)
	case running != nil:
		h.knowSandbox(running)
	}
	return err
}

// ended records the end of a sandbox.
func (h *Handler) ended(ctx context.Context, account, id string, end sandbox.End, at time.Time, saved bool) error {
	var over *Sandbox
	err := h.change(ctx, account, id, func(rec *Sandbox) bool {
		if rec.State == StateEnded {
			return false
		}
		rec.State, rec.End, rec.EndedAt, rec.Ports = StateEnded, cmp.Or(end, sandbox.EndUnknown), at.UTC(), nil
		rec.Saved = saved && rec.Version != nil || rec.Saved && end == sandbox.EndCancelled
		over = rec
		return true
	})
	if err == nil && over != nil {
		h.freeSandbox(over)
		h.retain(ctx, account)
	}
	return err
}

// foundRecord is the record of a sandbox that outlived its own, as its tags tell it.
func foundRecord(tags map[string]string) *Sandbox {
	rec := &Sandbox{
		ID: tags[tagID], Account: tags[tagAccount], Name: tags[tagName], State: StateRunning,
		VolumeName: tags[tagVolume], OwnBucket: tags[tagBucket] != "", Tags: map[string]string{},
	}
	for k, v := range tags {
		if !strings.HasPrefix(k, reservedTag) {
			rec.Tags[k] = v
		}
	}
	return rec
}

func (h *Handler) addFound(ctx context.Context, rec *Sandbox) error {
	err := h.addRecord(ctx, rec)
	if err == nil {
		h.countSandbox(rec)
	}
	return err
}

// recordOf gives the record of a sandbox of the pool, and makes it where it was lost.
func (h *Handler) recordOf(ctx context.Context, r *pool.Record) (*Sandbox, error) {
	rec, err := h.store.Sandbox(ctx, r.Owner, r.ID)
	if !errors.Is(err, ErrNotFound) {
		return rec, err
	}
	rec = foundRecord(r.Labels)
	rec.ID, rec.Account, rec.ProviderID, rec.CreatedAt, rec.ExpiresAt = r.ID, r.Owner, r.Box.ID, r.CreatedAt, r.ExpiresAt
	return rec, h.addFound(ctx, rec)
}

// recordAll makes the records of an account's sandboxes that were lost.
func (h *Handler) recordAll(ctx context.Context, account string) error {
	list, err := h.pool.List(ctx, account)
	for _, r := range list {
		if r.State != pool.StateRunning || h.making(r.ID) {
			continue
		}
		if _, failed := h.recordOf(ctx, r); failed != nil {
			err = errors.Join(err, failed)
		}
	}
	return err
}

// addRecord adds a record where there is none.
func (h *Handler) addRecord(ctx context.Context, rec *Sandbox) error {
	h.records.Lock()
	defer h.records.Unlock()
	if _, err := h.store.Sandbox(ctx, rec.Account, rec.ID); !errors.Is(err, ErrNotFound) {
		return err
	}
	return h.store.SaveSandbox(ctx, rec)
}

// observe takes over what can change or is known only once it was made.
func (s *Sandbox) observe(r *pool.Record, info *sandbox.Info) {
	s.State, s.ProviderID = StateRunning, r.Box.ID
	s.present(info)
	s.ExpiresAt = r.ExpiresAt
}

// present takes over what the provider says.
func (s *Sandbox) present(info *sandbox.Info) {
	s.ExpiresAt, s.Isolated, s.Unenforced, s.Ports = info.ExpiresAt.UTC(), info.Isolated, info.Unenforced, nil
	for port, address := range info.Ports {
		if s.Ports == nil {
			s.Ports = map[string]string{}
		}
		s.Ports[strconv.Itoa(port)] = address
	}
}

// change changes a sandbox's record, unless fn returns false.
func (h *Handler) change(ctx context.Context, account, id string, fn func(*Sandbox) bool) error {
	h.records.Lock()
	defer h.records.Unlock()
	rec, err := h.store.Sandbox(ctx, account, id)
	if err != nil {
		return err
	}
	if !fn(rec) {
		return nil
	}
	return h.store.SaveSandbox(ctx, rec)
}

// deleteRecords removes a sandbox's record and those of its runs, with their logs. These
// come last: what is left of them alone is found by nobody.
func (h *Handler) deleteRecords(ctx context.Context, rec *Sandbox) error {
	var runs []*Run
	if h.config.Logs != nil {
		var err error
		if runs, err = h.store.Runs(ctx, rec.Account, rec.ID); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	err := h.store.DeleteSandbox(ctx, rec.Account, rec.ID)
	for _, run := range runs {
		if err == nil {
			err = h.config.Logs.Delete(ctx, run.ID)
		}
	}
	return err
}

// retain forgets the oldest sandboxes that have ended, beyond the limit.
func (h *Handler) retain(ctx context.Context, account string) {
	ended, err := h.store.Sandboxes(ctx, account, Query{State: StateEnded})
	for _, rec := range ended[min(len(ended), h.limits.Ended):] {
		if b := h.box(account, rec.ID); b.busy() {
			continue
		}
		err = errors.Join(err, h.deleteRecords(ctx, rec))
		h.forgetRuns(h.box(account, rec.ID))
		h.dropBox(rec.ID)
	}
	if err != nil {
		h.log.Error("cannot forget sandboxes that have ended", "error", fmt.Sprint(err))
	}
}
