package sandboxhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/storage"
)

// volumeWork is a save or a restore of a sandbox's files. One goes on at a time.
type volumeWork struct {
	restores bool
	using    atomic.Bool // it has the sandbox, and does not wait for it
	ctx      context.Context
	cancel   context.CancelCauseFunc
	done     chan struct{} // closed when nothing of it touches the files any more
}

// The names of the last event of a save or a restore.
var workEvents = lastEvents{result: "result", problem: "problem"}

// beginWork does fn with a sandbox's files, whether anybody waits for it or not.
// Where fn takes too long everybody is told; the place is free again when fn has
// returned, as two restores at once would spoil the files.
func (h *Handler) beginWork(b *box, restores bool, t *task, fn func(context.Context, *sandbox.Sandbox, *transfer) (*answer, error)) error {
	w := &volumeWork{restores: restores, done: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancelCause(h.ctx)
	if err := b.takeWork(w); err != nil {
		w.cancel(nil)
		return err
	}
	counted, err := h.beginTransfer(h.ctx, b.account, b.id, w.kind())
	if err != nil {
		b.leaveWork(w)
		w.cancel(nil)
		return err
	}
	err = h.start("volume", func() {
		var given *answer
		err := errors.New("the work on the volume did not come to its end")
		defer func() {
			w.cancel(nil)
			h.settleTask(t, given, err)
		}()
		ctx, stop := context.WithTimeoutCause(w.ctx, h.limits.SyncTime, errSyncTime)
		defer stop()
		given, err = bounded(ctx, func(ctx context.Context) (*answer, error) {
			defer b.leaveWork(w)
			defer counted.end()
			sb, release, err := b.use(ctx)
			if err != nil {
				return nil, err
			}
			defer release()
			w.using.Store(true)
			return fn(ctx, sb, counted)
		})
		if err != nil {
			err = h.workProblem(ctx, restores, err)
		}
	})
	if err != nil {
		counted.end()
		b.leaveWork(w)
		w.cancel(nil)
	}
	return err
}

// takeWork makes w what goes on in the sandbox. A restore would change files under
// the hands of whoever works with them.
func (b *box) takeWork(w *volumeWork) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.deletion != nil:
		return sandboxEnded()
	case b.work != nil && b.work.restores:
		return newProblem(http.StatusConflict, codeVolumeBusy, "a version is being restored into this sandbox; ask again when that has ended")
	case b.work != nil:
		return newProblem(http.StatusConflict, codeVolumeBusy, "this sandbox is being saved; ask again when that has ended")
	}
	for _, r := range b.runs {
		if w.restores && !r.hasEnded() {
			return runWorks(r.id)
		}
	}
	b.work = w
	return nil
}

func runWorks(id string) error {
	return newProblem(http.StatusConflict, codeRunInProgress,
		"run "+id+" works with the files; wait for its end, or interrupt it, and restore then")
}

// noRunElsewhere refuses a restore while a run goes on that another server looks after.
func (h *Handler) noRunElsewhere(ctx context.Context, b *box) error {
	list, err := h.store.Runs(ctx, b.account, b.id)
	for _, rec := range list {
		if rec.State == StateRunning && b.run(rec.ID) == nil {
			return runWorks(rec.ID)
		}
	}
	return err
}

// restoring reports whether a version is being written into the sandbox.
func (b *box) restoring() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.work != nil && b.work.restores && b.work.using.Load()
}

func (b *box) leaveWork(w *volumeWork) {
	b.mu.Lock()
	b.work = nil
	b.mu.Unlock()
	close(w.done)
}

func (w *volumeWork) kind() usage.Kind {
	if w.restores {
		return usage.KindRestore
	}
	return usage.KindSave
}

// awaitWork waits for the end of what goes on. Nothing begins during a deletion.
func (b *box) awaitWork(ctx context.Context) error {
	b.mu.Lock()
	w := b.work
	b.mu.Unlock()
	if w == nil {
		return nil
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// giveUpWork cancels what goes on.
func (b *box) giveUpWork(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.work != nil {
		b.work.cancel(why)
	}
}

// workProblem is what a save or a restore that failed is answered with.
func (h *Handler) workProblem(ctx context.Context, restores bool, err error) error {
	if context.Cause(ctx) == errDeleting || errors.Is(err, sandbox.ErrEnded) {
		return sandboxEnded().because(err)
	}
	if restores {
		return h.volumeProblem(ctx, codeRestoreFailed, "the version could not be restored", err)
	}
	return h.volumeProblem(ctx, codeSyncFailed, "the workspace could not be saved", err)
}

// volumeProblem is an error of a volume that this side is to blame for. Its text
// is for the log: it can name buckets. What a client is told is what was to be
// done, why it was not where that helps, and what else there is to say.
func (h *Handler) volumeProblem(ctx context.Context, code, detail string, err error, more ...string) error {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p
	case h.ctx.Err() != nil:
		return shuttingDown().because(err)
	}
	p = newProblem(http.StatusBadGateway, code, detail)
	switch {
	case context.Cause(ctx) == errSyncTime:
		p.Detail += fmt.Sprintf(" within %v", h.limits.SyncTime)
	case errors.Is(err, errKeysGone):
		p.Detail, p.Retryable = p.Detail+": "+errKeysGone.Error(), false
	case errors.Is(err, storage.ErrCorrupt):
		p.Detail, p.Retryable = p.Detail+", since stored data is damaged; the server's log names the object", false
	case errors.Is(err, errors.ErrUnsupported):
		p.Detail, p.Retryable = p.Detail+", since it was written by a later version of this server", false
	case errors.Is(err, storage.ErrUnknownOutcome):
		p.Detail += ": the answer to the last write was lost; look at the versions, it may be there"
	}
	for _, text := range more {
		p.Detail += ", " + text
	}
	return p.because(err)
}
