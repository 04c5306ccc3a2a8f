package sandboxhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// What goes on has a place in the ledger, and what was used an entry. Both have the id of
// the sandbox, run or transfer that they are about, so that whoever finds that something
// may not have been said says it, once more or for the first time.

// quota asks the hook.
func (h *Handler) quota(ctx context.Context, account string) (usage.Quota, error) {
	if h.config.Quota == nil {
		return usage.Quota{}, nil
	}
	q, err := h.config.Quota(ctx, account)
	if err != nil {
		err = fmt.Errorf("quota: %w", err)
	}
	return q, err
}

// admit refuses a request of an account that sends too many.
func (h *Handler) admit(ctx context.Context, p *Principal) error {
	if h.config.Quota == nil {
		return nil
	}
	q, err := h.quota(ctx, p.Account)
	if err != nil {
		return err
	}
	return h.rate.Allow(p.Account, q)
}

// exceededProblem is a limit of a quota that is reached. Where asking again is of no use,
// since it is more than the account may ever use, the problem says so.
func exceededProblem(e *usage.ExceededError) *problem {
	p := newProblem(http.StatusTooManyRequests, codeExhausted, e.Error())
	p.Limit, p.after = e.Limit, e.RetryAfter
	p.Retryable = e.RetryAfter > 0 || e.Need > 0 && e.Need <= e.Max
	return p
}

// wait is what a client is asked to wait, in whole seconds; 0 is not to ask again.
func (p *problem) wait() int64 {
	wait := p.after
	switch {
	case !p.Retryable:
		return 0
	case wait <= 0:
		wait = retryAfter
	}
	return int64((wait + time.Second - 1) / time.Second)
}

// take takes a place under the limits of the account's quota. After an error there is none.
func (h *Handler) take(ctx context.Context, r usage.Reservation) (usage.Place, error) {
	quota, err := h.quota(ctx, r.Account)
	if err != nil {
		return usage.Place{}, err
	}
	r.Quota = quota
	place, err := h.ledger.Reserve(ctx, r)
	if isExceeded(err) && h.makesRoom(ctx, r.Account) {
		place, err = h.ledger.Reserve(ctx, r)
	}
	if err == nil || isExceeded(err) {
		return place, err
	}
	h.release(r.Account, r.Kind, r.ID) // it may have been taken all the same
	return place, fmt.Errorf("usage: %w", err)
}

func isExceeded(err error) bool {
	_, is := errors.AsType[*usage.ExceededError](err)
	return is
}

// makesRoom frees the places of an account that are used no more, and reports whether there
// were any.
func (h *Handler) makesRoom(ctx context.Context, account string) bool {
	n, err := h.releaseGone(ctx, usage.Query{Account: account})
	if err != nil {
		h.log.WarnContext(ctx, "cannot tell of all places whether they are used", "account", account, "error", err)
	}
	return n > 0
}

// release frees a place, which may not be there.
func (h *Handler) release(account string, kind usage.Kind, id string) {
	if h.ledger == nil {
		return
	}
	h.insist(func(ctx context.Context) error { return h.ledger.Release(ctx, account, kind, id) },
		"release", kind, "id", id, "account", account)
}

// insist tells the ledger something. Where that fails it goes on in the background until it
// is told, or this server ends. about is what it is, for the log.
func (h *Handler) insist(tell func(context.Context) error, about ...any) {
	once := func() error {
		ctx, stop := context.WithTimeout(context.WithoutCancel(h.ctx), cleanUpTime)
		defer stop()
		return tell(ctx)
	}
	err := once()
	if err == nil {
		return
	}
	h.log.Error("cannot tell the ledger of what is used, and tries again", append(about, "error", err)...)
	again := func() {
		for wait := retryFirst; !errors.Is(err, usage.ErrInvalid) && sleep(h.ctx, wait); wait = min(2*wait, retryMost) {
			if err = once(); err == nil {
				return
			}
		}
		h.log.Error("the ledger was not told of what is used", append(about, "error", err)...)
	}
	if h.start("usage", again) != nil {
		again() // Shutdown waits for whoever says it
	}
}

// takeSandbox takes a place for a sandbox, if the account may have another of its name.
func (h *Handler) takeSandbox(ctx context.Context, rec *Sandbox) error {
	if err := h.mayCreate(ctx, rec); err != nil || h.ledger == nil {
		return err
	}
	_, err := h.take(ctx, usage.Reservation{Account: rec.Account, Kind: usage.KindSandbox, ID: rec.ID, SandboxID: rec.ID})
	return err
}

// countSandbox tells of a sandbox that was made and lives, whatever the limits are. It
// counts on the day it was made.
func (h *Handler) countSandbox(rec *Sandbox) {
	if h.ledger == nil {
		return
	}
	entry := made(rec)
	place := usage.Reservation{Account: rec.Account, Kind: usage.KindSandbox, ID: rec.ID, SandboxID: rec.ID}
	h.insist(func(ctx context.Context) error {
		if _, err := h.ledger.Reserve(ctx, place); err != nil {
			return err
		}
		return h.ledger.Add(ctx, entry)
	}, "count", usage.KindSandbox, "id", rec.ID, "account", rec.Account)
}

func made(rec *Sandbox) usage.Entry {
	return usage.Entry{
		Account: rec.Account, Kind: usage.KindSandbox, ID: rec.ID, SandboxID: rec.ID, Time: rec.CreatedAt,
		Amounts: usage.Amounts{Sandboxes: 1},
	}
}

// freeSandbox tells of the end of a sandbox. One that the provider's id is known of was
// made.
func (h *Handler) freeSandbox(rec *Sandbox) {
	if h.ledger == nil {
		return
	}
	entry, known := made(rec), rec.ProviderID != ""
	h.insist(func(ctx context.Context) error {
		if known {
			if err := h.ledger.Add(ctx, entry); err != nil {
				return err
			}
		}
		return h.ledger.Release(ctx, entry.Account, entry.Kind, entry.ID)
	}, "free", usage.KindSandbox, "id", rec.ID, "account", rec.Account)
}

// knowSandbox tells of a sandbox that a server before this one made: the ledger may have
// begun anew since.
func (h *Handler) knowSandbox(rec *Sandbox) {
	h.mu.Lock()
	known := h.known[rec.Account]
	h.mu.Unlock()
	if !known {
		h.countSandbox(rec)
	}
}
