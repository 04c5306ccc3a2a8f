package sandboxhttp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/storage"
)

// versionOut is a version as clients read it.
type versionOut struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	Parent    string    `json:"parent,omitempty"`
	Conflict  bool      `json:"conflict"`
	Author    string    `json:"author,omitempty"`
	Note      string    `json:"note,omitempty"`
	Files     int64     `json:"files"`
	Size      int64     `json:"size"`
	Stored    int64     `json:"stored"`
	Added     int64     `json:"added"`
	Changed   []string  `json:"changed,omitempty"`
	Skipped   []string  `json:"skipped,omitempty"`
	Skips     int64     `json:"skipped_count"`
}

func presentVersion(v *storage.Version) *versionOut {
	return &versionOut{
		ID: v.ID, CreatedAt: v.Time, Parent: v.Parent, Conflict: v.Conflict, Author: v.Author, Note: v.Note,
		Files: v.Files, Size: v.Size, Stored: v.Stored, Added: v.Added,
		Changed: v.Changed, Skipped: v.Skipped, Skips: v.SkippedCount,
	}
}

// noteMost is how long a note may be, in bytes.
const noteMost = 4096

// syncRequest is the body of POST /sandbox/{id}/sync.
type syncRequest struct{ note, parent string }

func parseSync(body []byte) (*syncRequest, error) {
	q := new(syncRequest)
	if err := decodeBody(body, map[string]any{"note": &q.note, "parent": &q.parent}); err != nil {
		return nil, err
	}
	var bad fieldErrors
	bad.when(len(q.note) > noteMost, "note", "use %d bytes at most", noteMost)
	bad.when(q.parent != "" && !storage.IsVersionID(q.parent), "parent", "use the id of a version")
	return q, bad.problem(http.StatusUnprocessableEntity, codeValidationFailed, "some fields cannot be taken as they are")
}

// postSync makes a version of what the sandbox holds now.
func (h *Handler) postSync(w http.ResponseWriter, r *http.Request, p *Principal) error {
	return h.postWork(w, r, p, func(rec *Sandbox, b *box, t *task, body []byte) error {
		q, err := parseSync(body)
		if err != nil {
			return err
		}
		opts := saveOptions{author: p.author(), note: q.note, parent: q.parent, progress: t.tell("saving")}
		return h.beginWork(b, false, t, func(ctx context.Context, sb *sandbox.Sandbox, counted *transfer) (*answer, error) {
			v, head, err := b.save(ctx, sb, opts)
			counted.saved(v)
			switch {
			case err != nil:
				return nil, err
			case v.Conflict:
				return nil, versionConflict(v, head)
			}
			return encodeAnswer(http.StatusCreated, v)
		})
	})
}

func versionConflict(v *storage.Version, head string) *problem {
	p := newProblem(http.StatusConflict, codeVersionConflict, "another version became the newest since this sandbox's files came from the volume; "+
		"this one is kept beside it. Restore the newest one, or save again with it as parent to make these files the newest")
	p.Head, p.Version = head, presentVersion(v)
	return p
}

// postRestore makes the sandbox hold a version.
func (h *Handler) postRestore(w http.ResponseWriter, r *http.Request, p *Principal) error {
	return h.postWork(w, r, p, func(rec *Sandbox, b *box, t *task, body []byte) error {
		var id string
		if err := decodeBody(body, map[string]any{"version": &id}); err != nil {
			return err
		}
		if id == "" {
			return newProblem(http.StatusUnprocessableEntity, codeValidationFailed, "some fields cannot be taken as they are").
				field("version", "say which version")
		}
		if err := h.noRunElsewhere(r.Context(), b); err != nil {
			return err
		}
		return h.beginWork(b, true, t, func(ctx context.Context, sb *sandbox.Sandbox, counted *transfer) (*answer, error) {
			v, err := b.restore(ctx, sb, id, counted.counting(t.tell("restoring")))
			if err != nil {
				return nil, err
			}
			return encodeAnswer(http.StatusOK, v)
		})
	})
}

func encodeAnswer(status int, v *storage.Version) (*answer, error) {
	body, err := json.Marshal(presentVersion(v))
	return &answer{status: status, body: body}, err
}

// postWork is what saving and restoring have in common. begin checks the body and
// begins the work, which settles the task; or it returns why it did not.
func (h *Handler) postWork(w http.ResponseWriter, r *http.Request, p *Principal, begin func(*Sandbox, *box, *task, []byte) error) error {
	body, err := h.readBody(w, r)
	if err != nil {
		return err
	}
	rec, b, err := h.find(r.Context(), p.Account, r.PathValue("id"))
	if err != nil {
		return err
	}
	claim, prior, err := h.keys.claim(r, p.Account, body)
	if err != nil {
		return err
	}
	if prior != nil {
		return h.answerTask(w, r, h.pastTask(r, workEvents, prior))
	}
	begun := false
	defer func() {
		if !begun { // also when a hook panicked
			claim.settle(nil)
		}
	}()
	if rec.VolumeName == "" {
		return noVolume()
	}
	if rec, err = h.awaitRunning(r.Context(), rec, b); err != nil {
		return err
	}
	t := newTask(r, workEvents, claim)
	if err := begin(rec, b, t, body); err != nil {
		return err
	}
	begun = true // the task settles it
	return h.answerTask(w, r, t)
}

func noVolume() *problem {
	return newProblem(http.StatusConflict, codeNoVolume, "the sandbox has no volume; make one with volume_name")
}

// versionPage is the answer to GET /sandbox/{id}/versions.
type versionPage struct {
	Versions []*versionOut `json:"versions"`
	// Unreadable counts versions whose records are damaged.
	Unreadable int    `json:"unreadable,omitempty"`
	Next       string `json:"next_cursor,omitempty"`
}

// listVersions lists the versions of a sandbox's volume, newest first, also when
// the sandbox has ended.
func (h *Handler) listVersions(w http.ResponseWriter, r *http.Request, p *Principal) error {
	limit, before, err := versionQuery(r)
	if err != nil {
		return err
	}
	rec, b, err := h.find(r.Context(), p.Account, r.PathValue("id"))
	if err != nil {
		return err
	}
	if rec.VolumeName == "" {
		return noVolume()
	}
	ctx, stop := context.WithTimeout(r.Context(), cleanUpTime)
	defer stop()
	page, err := bounded(ctx, func(ctx context.Context) (*versionPage, error) {
		volume, err := b.open(ctx, rec)
		if err != nil {
			return nil, err
		}
		return h.readVersions(ctx, volume, limit, before)
	})
	switch {
	case r.Context().Err() != nil:
		return nil // nobody is there to be answered
	case err != nil:
		return h.volumeProblem(ctx, codeVolumeFailed, "the volume's versions could not be listed", err)
	}
	return h.send(w, http.StatusOK, page)
}

// readVersions reads a page of those older than before; "" is all. Their ids sort
// as their times do.
func (h *Handler) readVersions(ctx context.Context, volume *storage.Volume, limit int, before string) (*versionPage, error) {
	page := &versionPage{Versions: []*versionOut{}}
	reached := before == ""
	for v, err := range volume.Versions(ctx) {
		switch {
		case err != nil && (errors.Is(err, storage.ErrCorrupt) || errors.Is(err, errors.ErrUnsupported)):
			if reached {
				page.Unreadable++
				h.log.WarnContext(ctx, "a version cannot be read", "volume", volume.Name(), "error", err)
			}
			continue
		case err != nil:
			return nil, err
		case before != "" && v.ID >= before:
			continue
		}
		reached = true
		if len(page.Versions) == limit {
			page.Next = base64.RawURLEncoding.EncodeToString([]byte(page.Versions[limit-1].ID))
			return page, nil
		}
		page.Versions = append(page.Versions, presentVersion(v))
	}
	return page, nil
}

func versionQuery(r *http.Request) (limit int, before string, err error) {
	var bad fieldErrors
	limit = pageLimit(r, &bad)
	if text := r.URL.Query().Get("cursor"); text != "" {
		id, decodeErr := base64.RawURLEncoding.DecodeString(text)
		bad.when(decodeErr != nil || !storage.IsVersionID(string(id)), "cursor", "use the next_cursor of the page before")
		before = string(id)
	}
	return limit, before, bad.problem(http.StatusUnprocessableEntity, codeValidationFailed, "some parameters cannot be taken as they are")
}
