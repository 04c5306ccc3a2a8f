package sandboxhttp

import (
	"context"
	"errors"
	"net/http"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/storage"
)

// deletion is a sandbox being saved and terminated, for as many as asked for it.
type deletion struct {
	sync    bool
	author  string                  // who asked for it first
	saving  context.Context         // of the save
	unsave  context.CancelCauseFunc // gives the save up
	counted *transfer
	done    chan struct{}
	err     error // set before done is closed
}

// Why work on a sandbox was given up.
var (
	errUnsaved  = &reason{"its files were given up", context.Canceled}
	errDeleted  = &reason{"it was deleted while it was being made", context.Canceled}
	errDeleting = &reason{"the sandbox was deleted", context.Canceled}
	errSyncTime = &reason{"it took longer than Limits.SyncTime", context.DeadlineExceeded}
)

// deleted is what a deletion is answered with.
type deleted struct {
	ID      string   `json:"id"`
	Version *Version `json:"version,omitempty"`
}

func (h *Handler) deleteSandbox(w http.ResponseWriter, r *http.Request, p *Principal) error {
	sync, err := syncParameter(r)
	if err != nil {
		return err
	}
	_, b, err := h.find(r.Context(), p.Account, r.PathValue("id"))
	if err != nil {
		return err
	}
	if b.unmake != nil {
		b.unmake(errDeleted) // one that has been made does not mind
	}
	select {
	case <-b.ready:
	case <-r.Context().Done():
		return nil // nobody is there to be answered
	}
	if b.left != nil {
		return providerProblem(b.left)
	}
	rec, err := h.store.Sandbox(r.Context(), p.Account, b.id)
	if err != nil {
		return err
	}
	if rec.State != StateEnded {
		if ended, err := h.awaitDeletion(r.Context(), b, sync, p.author()); err != nil || !ended {
			return err
		}
		if rec, err = h.store.Sandbox(r.Context(), p.Account, b.id); err != nil {
			return err
		}
	}
	answer := deleted{ID: rec.ID}
	if rec.Saved {
		answer.Version = rec.Version
	}
	return h.send(w, http.StatusOK, answer)
}

func syncParameter(r *http.Request) (bool, error) {
	switch r.URL.Query().Get("sync") {
	case "", "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, newProblem(http.StatusUnprocessableEntity, codeValidationFailed, "some parameters cannot be taken as they are").
		field("sync", "use true or false")
}

// awaitDeletion deletes, and reports whether that was done before ctx ended.
func (h *Handler) awaitDeletion(ctx context.Context, b *box, sync bool, author string) (ended bool, err error) {
	for {
		d, err := h.beginDeletion(b, sync, author)
		if err != nil {
			return false, err
		}
		select {
		case <-d.done:
		case <-ctx.Done():
			return false, nil
		}
		// One that could not save is no answer to who does not want that: it had
		// failed before it could be told.
		if d.err == nil || sync || !d.sync {
			return true, d.err
		}
	}
}

// beginDeletion begins one, or joins the one that goes on, which without sync no
// longer saves.
func (h *Handler) beginDeletion(b *box, sync bool, author string) (*deletion, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deletion != nil {
		if !sync {
			b.deletion.unsave(errUnsaved)
		}
		return b.deletion, nil
	}
	d := &deletion{sync: sync, author: author, done: make(chan struct{})}
	d.saving, d.unsave = context.WithCancelCause(h.ctx)
	err := h.start("delete", func() {
		d.err = errors.New("the deletion did not come to its end")
		defer func() {
			d.unsave(nil)
			b.mu.Lock()
			b.deletion = nil
			b.mu.Unlock()
			close(d.done)
		}()
		d.err = h.delete(b, d)
	})
	if err != nil {
		d.unsave(nil)
		return nil, err
	}
	b.deletion = d
	return d, nil
}

// delete stops what runs, saves the workspace, and terminates the sandbox. When
// it cannot save, the sandbox stays.
func (h *Handler) delete(b *box, d *deletion) error {
	rec, err := h.store.Sandbox(h.ctx, b.account, b.id)
	if err != nil {
		return err
	}
	if rec.State == StateEnded { // by a deletion that had gone on when this was asked for
		return nil
	}
	made := rec.State == StateRunning // else an earlier server ended while it was at it
	saves := d.sync && made && rec.VolumeName != ""
	if saves {
		if d.counted, err = h.beginTransfer(h.ctx, b.account, b.id, usage.KindSave); err != nil {
			return unsaved(err)
		}
		defer d.counted.end()
	}
	b.stopRuns()
	if saves {
		var sb *sandbox.Sandbox
		if sb, err = h.attach(b, rec); err == nil {
			err = h.saveUnlessGivenUp(d, b, rec, sb)
		}
	}
	if err == nil {
		b.giveUpWork(errDeleting)
		err = h.terminate(b, rec)
	}
	if errors.Is(err, sandbox.ErrEnded) || errors.Is(err, sandbox.ErrNotFound) {
		if !made {
			return h.recordDeletion(b, rec)
		}
		return h.reconcile(h.ctx, b.account) // it ended by itself; its record says how
	}
	if err != nil {
		return providerProblem(err)
	}
	return h.recordDeletion(b, rec)
}

// unsaved adds to the limit that a save has met that there is another way.
func unsaved(err error) error {
	if exceeded, ok := errors.AsType[*usage.ExceededError](err); ok {
		p := exceededProblem(exceeded)
		p.Detail += ", or give the files up with ?sync=false; the sandbox is kept"
		return p
	}
	return err
}

func (h *Handler) attach(b *box, rec *Sandbox) (*sandbox.Sandbox, error) {
	ctx, stop := context.WithTimeout(h.ctx, cleanUpTime)
	defer stop()
	return b.sandbox(ctx, rec)
}

// saveUnlessGivenUp makes a new version of the volume, unless somebody who
// deletes too does not want that. An error that says that the sandbox has ended is
// returned as it is.
func (h *Handler) saveUnlessGivenUp(d *deletion, b *box, rec *Sandbox, sb *sandbox.Sandbox) error {
	ctx, stop := context.WithTimeoutCause(d.saving, h.limits.SyncTime, errSyncTime)
	defer stop()
	v, err := bounded(ctx, func(ctx context.Context) (*storage.Version, error) {
		if err := b.awaitWork(ctx); err != nil {
			return nil, err
		}
		v, _, err := b.save(ctx, sb, saveOptions{author: d.author})
		d.counted.saved(v)
		return v, err
	})
	switch {
	case err == nil:
		rec.Version, rec.Saved = recordVersion(v), true
		return nil
	case errors.Is(err, sandbox.ErrEnded):
		return err
	case context.Cause(ctx) == errUnsaved:
		return nil
	}
	return h.volumeProblem(ctx, codeSyncFailed, "the workspace could not be saved",
		err, "and the sandbox is kept; ask again, or give the files up with ?sync=false")
}

// terminate ends a sandbox by its id, so that one that does not answer is ended
// too. It goes on when the server is shutting down: what was saved is not to be
// saved again.
func (h *Handler) terminate(b *box, rec *Sandbox) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(h.ctx), cleanUpTime)
	defer stop()
	if rec.ProviderID != "" {
		return h.config.Provider.Terminate(ctx, rec.ProviderID)
	}
	sb, err := h.attach(b, rec)
	if err != nil {
		return err
	}
	return sb.Terminate(ctx)
}

func (h *Handler) recordDeletion(b *box, rec *Sandbox) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(h.ctx), cleanUpTime)
	defer stop()
	var over *Sandbox
	err := h.change(ctx, b.account, b.id, func(now *Sandbox) bool {
		now.observe(&sandbox.Info{State: sandbox.StateEnded, End: sandbox.EndCancelled})
		if rec.Saved {
			now.Version, now.Saved = rec.Version, true
		}
		over = now
		return true
	})
	if err != nil {
		return err
	}
	h.freeSandbox(over)
	if err := b.close(); err != nil {
		h.log.Warn("cannot let go of a sandbox", "sandbox", b.id, "error", err)
	}
	h.retain(ctx, b.account)
	return nil
}
