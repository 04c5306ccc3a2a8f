package sandboxhttp

import (
	"context"
	"crypto/rand"
	"strings"
	"sync/atomic"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/storage"
)

// transfer is a save or a restore of a workspace, as the ledger knows it. A nil one is not
// counted.
type transfer struct {
	h     *Handler
	place usage.Reservation
	bytes atomic.Int64 // to the bucket or from it, whichever way the transfer goes
}

// beginTransfer takes the place of a save or a restore, under the account's limits. The
// caller ends it.
func (h *Handler) beginTransfer(ctx context.Context, account, sandboxID string, kind usage.Kind) (*transfer, error) {
	if h.ledger == nil {
		return nil, nil
	}
	t := h.newTransfer(account, sandboxID, kind)
	_, err := h.take(ctx, t.place)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// countTransfer takes the place of one that nobody asked for, whatever the limits are: what
// is not saved would be lost. The caller ends it.
func (h *Handler) countTransfer(ctx context.Context, account, sandboxID string, kind usage.Kind) *transfer {
	if h.ledger == nil {
		return nil
	}
	t := h.newTransfer(account, sandboxID, kind)
	if _, err := h.ledger.Reserve(ctx, t.place); err != nil {
		h.log.Error("cannot take the place of a transfer; it is counted when it has ended", "sandbox", sandboxID, "error", err)
	}
	return t
}

func (h *Handler) newTransfer(account, sandboxID string, kind usage.Kind) *transfer {
	id := string(kind) + "-" + strings.ToLower(rand.Text())
	return &transfer{h: h, place: usage.Reservation{Account: account, Kind: kind, ID: id, SandboxID: sandboxID}}
}

// saved takes over what a version added to the bucket.
func (t *transfer) saved(v *storage.Version) {
	if t != nil && v != nil {
		t.bytes.Add(max(0, v.Added))
	}
}

// counting gives a storage.Options.Progress that also takes over what a restore downloads.
func (t *transfer) counting(tell func(storage.Progress)) func(storage.Progress) {
	if t == nil {
		return tell
	}
	return func(p storage.Progress) {
		if p.Phase == storage.PhaseWrite {
			t.bytes.Store(max(t.bytes.Load(), p.Bytes))
		}
		tell(p)
	}
}

// end tells of what was transferred, and of the end.
func (t *transfer) end() {
	if t == nil {
		return
	}
	entry := usage.Entry{Account: t.place.Account, Kind: t.place.Kind, ID: t.place.ID, SandboxID: t.place.SandboxID}
	bytes := amount(t.bytes.Load())
	if entry.Kind == usage.KindSave {
		entry.Amounts.BytesIn = bytes
	} else {
		entry.Amounts.BytesOut = bytes
	}
	t.h.insist(func(ctx context.Context) error {
		if bytes > 0 {
			if err := t.h.ledger.Add(ctx, entry); err != nil {
				return err
			}
		}
		return t.h.ledger.Release(ctx, entry.Account, entry.Kind, entry.ID)
	}, "end", entry.Kind, "id", entry.ID, "account", entry.Account, "sandbox", entry.SandboxID, "bytes", bytes)
}
