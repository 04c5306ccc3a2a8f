package sandboxhttp

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

const (
	pageDefault = 50
	pageMost    = 200
)

func (h *Handler) listSandboxes(w http.ResponseWriter, r *http.Request, p *Principal) error {
	q, err := listQuery(r)
	if err != nil {
		return err
	}
	if err := h.reconcile(r.Context(), p.Account); err != nil {
		return err
	}
	page := struct {
		Sandboxes []*Sandbox `json:"sandboxes"`
		Next      string     `json:"next_cursor,omitempty"`
	}{}
	limit := q.Limit
	q.Limit++ // to see whether there is another page
	if page.Sandboxes, err = h.store.Sandboxes(r.Context(), p.Account, q); err != nil {
		return err
	}
	if len(page.Sandboxes) > limit {
		page.Sandboxes = page.Sandboxes[:limit]
		page.Next = encodeCursor(page.Sandboxes[limit-1].position())
	}
	if page.Sandboxes == nil {
		page.Sandboxes = []*Sandbox{}
	}
	return h.send(w, http.StatusOK, page)
}

func listQuery(r *http.Request) (Query, error) {
	q := Query{Limit: pageDefault}
	var bad fieldErrors
	values := r.URL.Query()
	if text := values.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		bad.when(err != nil || n < 1 || n > pageMost, "limit", "use 1 to %d", pageMost)
		q.Limit = n
	}
	if text := values.Get("cursor"); text != "" {
		after, ok := decodeCursor(text)
		bad.when(!ok, "cursor", "use the next_cursor of the page before")
		q.After = after
	}
	return q, bad.problem(http.StatusUnprocessableEntity, codeValidationFailed, "some parameters cannot be taken as they are")
}

func encodeCursor(p Position) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d.%s", p.CreatedAt.UnixNano(), p.ID))
}

func decodeCursor(text string) (Position, bool) {
	data, err := base64.RawURLEncoding.DecodeString(text)
	nanos, id, ok := strings.Cut(string(data), ".")
	n, numErr := strconv.ParseInt(nanos, 10, 64)
	if err != nil || numErr != nil || !ok || id == "" {
		return Position{}, false
	}
	return Position{CreatedAt: time.Unix(0, n).UTC(), ID: id}, true
}

func (h *Handler) getSandbox(w http.ResponseWriter, r *http.Request, p *Principal) error {
	rec, b, err := h.find(r.Context(), p.Account, r.PathValue("id"))
	if err != nil {
		return err
	}
	if rec, err = h.refresh(r.Context(), rec, b); err != nil {
		return err
	}
	return h.send(w, http.StatusOK, rec)
}

// deletion is a sandbox being saved and terminated, for as many as asked for it.
type deletion struct {
	sync bool
	done chan struct{}
	err  error // set before done is closed
}

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
	select {
	case <-b.ready:
	case <-r.Context().Done():
		return nil // nobody is there to be answered
	}
	rec, err := h.store.Sandbox(r.Context(), p.Account, b.id)
	if err != nil {
		return err
	}
	if rec.State != StateEnded {
		d, err := h.beginDeletion(b, sync)
		if err != nil {
			return err
		}
		select {
		case <-d.done:
		case <-r.Context().Done():
			return nil
		}
		if d.err != nil {
			return d.err
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

// beginDeletion begins one, or joins the one that goes on.
func (h *Handler) beginDeletion(b *box, sync bool) (*deletion, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deletion != nil {
		return b.deletion, nil
	}
	d := &deletion{sync: sync, done: make(chan struct{})}
	err := h.start("delete", func() {
		d.err = errors.New("the deletion did not come to its end")
		defer func() {
			b.mu.Lock()
			b.deletion = nil
			b.mu.Unlock()
			close(d.done)
		}()
		d.err = h.delete(b, d.sync)
	})
	if err != nil {
		return nil, err
	}
	b.deletion = d
	return d, nil
}

// delete stops what runs, saves the workspace, and terminates the sandbox. When
// it cannot save, the sandbox stays.
func (h *Handler) delete(b *box, sync bool) error {
	rec, err := h.store.Sandbox(h.ctx, b.account, b.id)
	if err != nil {
		return err
	}
	if rec.State == StateEnded { // by a deletion that had gone on when this was asked for
		return nil
	}
	b.stopRuns()
	sb, err := b.sandbox(h.ctx, rec)
	if err == nil && sync && rec.VolumeName != "" {
		rec.Version, err = h.save(b, rec, sb)
		rec.Saved = err == nil
	}
	if err == nil {
		err = h.terminate(sb)
	}
	if errors.Is(err, sandbox.ErrEnded) || errors.Is(err, sandbox.ErrNotFound) {
		return h.reconcile(h.ctx, b.account) // it ended by itself; its record says how
	}
	if err != nil {
		return providerProblem(err)
	}
	return h.recordDeletion(b, rec)
}

// save makes a new version of the volume. An error that says that the sandbox has
// ended is returned as it is.
func (h *Handler) save(b *box, rec *Sandbox, sb *sandbox.Sandbox) (*Version, error) {
	volume, err := b.open(h.ctx, rec)
	if err == nil {
		v, syncErr := volume.Sync(h.ctx, sb, sb.Dir())
		if syncErr == nil {
			return &Version{ID: v.ID, CreatedAt: v.Time}, nil
		}
		err = syncErr
	}
	switch {
	case h.ctx.Err() != nil:
		return nil, shuttingDown().because(err)
	case errors.Is(err, sandbox.ErrEnded):
		return nil, err
	}
	return nil, newProblem(http.StatusBadGateway, codeSyncFailed,
		"the workspace could not be saved, and the sandbox is kept; ask again, or give the files up with ?sync=false").because(err)
}

// terminate goes on when the server is shutting down: what was saved is not to
// be saved again.
func (h *Handler) terminate(sb *sandbox.Sandbox) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(h.ctx), cleanUpTime)
	defer stop()
	return sb.Terminate(ctx)
}

func (h *Handler) recordDeletion(b *box, rec *Sandbox) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(h.ctx), cleanUpTime)
	defer stop()
	err := h.change(ctx, b.account, b.id, func(now *Sandbox) bool {
		now.observe(&sandbox.Info{State: sandbox.StateEnded, End: sandbox.EndCancelled})
		now.Version, now.Saved = rec.Version, rec.Saved
		return true
	})
	if err != nil {
		return err
	}
	if err := b.close(); err != nil {
		h.log.Warn("cannot let go of a sandbox", "sandbox", b.id, "error", err)
	}
	h.retain(ctx, b.account)
	return nil
}
