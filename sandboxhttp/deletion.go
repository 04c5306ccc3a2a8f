package sandboxhttp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
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
	errUnsaved  = &reason{text: "its files were given up", is: context.Canceled}
	errDeleted  = &reason{text: "it was deleted while it was being made", is: context.Canceled}
	errDeleting = &reason{text: "the sandbox was deleted", is: context.Canceled}
	errSyncTime = &reason{text: "it took longer than Limits.SyncTime", is: context.DeadlineExceeded}
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
	rec, err := h.store.Sandbox(r.Context(), p.Account, b.id)
	if err != nil {
		return err
	}
	if b.left != nil && rec.State != StateEnded {
		return h.endLeft(w, b)
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

// endLeft has the pool try once more to end what was not made.
func (h *Handler) endLeft(w http.ResponseWriter, b *box) error {
	if err := h.terminate(b, true); err != nil {
		return err
	}
	return h.send(w, http.StatusOK, deleted{ID: b.id})
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
	b.stopRuns(nil, nil)
	if saves {
		err = h.saveUnlessGivenUp(d, b)
	}
	ending := gone(err) // by itself, or the pool is about to: it saves then
	switch {
	case err != nil && !ending:
		return providerProblem(err)
	case ending:
		if rec, err := h.refresh(h.ctx, rec); err == nil && rec.State == StateEnded {
			return nil // its record says how
		}
	}
	b.giveUpWork(errDeleting)
	return h.terminate(b, !ending || !d.sync)
}

// gone reports whether there is no sandbox any more, or nobody may use it.
func gone(err error) bool {
	return errors.Is(err, sandbox.ErrEnded) || errors.Is(err, sandbox.ErrNotFound)
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

// saveUnlessGivenUp makes a new version of the volume, unless somebody who
// deletes too does not want that. An error that says that the sandbox has ended is
// returned as it is.
func (h *Handler) saveUnlessGivenUp(d *deletion, b *box) error {
	ctx, stop := context.WithTimeoutCause(d.saving, h.limits.SyncTime, errSyncTime)
	defer stop()
	sb, release, err := b.use(ctx)
	if err == nil {
		defer release()
		_, err = bounded(ctx, func(ctx context.Context) (*storage.Version, error) {
			if err := b.awaitWork(ctx); err != nil {
				return nil, err
			}
			v, _, err := b.save(ctx, sb, saveOptions{author: d.author, last: true})
			d.counted.saved(v)
			return v, err
		})
	}
	switch {
	case err == nil || gone(err):
		return err
	case context.Cause(ctx) == errUnsaved:
		return nil
	}
	return h.volumeProblem(ctx, codeSyncFailed, "the workspace could not be saved",
		err, "and the sandbox is kept; ask again, or give the files up with ?sync=false")
}

// terminate ends a sandbox and records that. It goes on when the server is shutting down:
// what was saved is not to be saved again.
func (h *Handler) terminate(b *box, unsaved bool) error {
	limit := cleanUpTime
	if !unsaved {
		limit += h.limits.SyncTime
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(h.ctx), limit)
	defer stop()
	err := h.pool.Terminate(ctx, b.account, b.id, &pool.TerminateOptions{Unsaved: unsaved})
	if err != nil && !unsaved && !errors.Is(err, sandbox.ErrNotFound) {
		if saving, ok := errors.AsType[*pool.SaveError](err); ok {
			err = saving.Err
		}
		return h.volumeProblem(ctx, codeSyncFailed, "the workspace could not be saved before the sandbox's end", err,
			"and that is tried again; give the files up with ?sync=false")
	}
	if errors.Is(err, sandbox.ErrNotFound) {
		err = h.ended(ctx, b.account, b.id, sandbox.EndCancelled, time.Now(), false)
	} else if err == nil {
		err = h.recordEnd(ctx, b) // whether the pool could or not
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return providerProblem(err)
	}
	return nil
}

// recordEnd takes over from the pool that a sandbox has ended.
func (h *Handler) recordEnd(ctx context.Context, b *box) error {
	rec, err := h.store.Sandbox(ctx, b.account, b.id)
	if err == nil {
		rec, err = h.refresh(ctx, rec)
	}
	if err == nil && rec.State == StateCreating { // another server was making it, and the pool has told nobody
		err = h.ended(ctx, b.account, b.id, sandbox.EndCancelled, time.Now(), false)
	}
	return err
}
