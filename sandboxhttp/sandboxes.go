package sandboxhttp

import (
	"context"
	"encoding/base64"
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
		Sandboxes []sandboxOut `json:"sandboxes"`
		Next      string       `json:"next_cursor,omitempty"`
	}{Sandboxes: []sandboxOut{}}
	limit := q.Limit
	q.Limit++ // to see whether there is another page
	list, err := h.store.Sandboxes(r.Context(), p.Account, q)
	if err != nil {
		return err
	}
	if len(list) > limit {
		list = list[:limit]
		page.Next = encodeCursor(list[limit-1].position())
	}
	endings, err := h.endings(r.Context(), p.Account)
	if err != nil {
		return err
	}
	for _, rec := range list {
		page.Sandboxes = append(page.Sandboxes, sandboxOut{rec, endings[rec.ID]})
	}
	return h.send(w, http.StatusOK, page)
}

// endings gives the ends that are close, by the ids of sandboxes.
func (h *Handler) endings(ctx context.Context, account string) (map[string]*ending, error) {
	list, err := h.pool.List(ctx, account)
	if err != nil {
		return nil, err
	}
	endings := map[string]*ending{}
	for _, now := range list {
		if reason, at, announced := now.Ending(); announced {
			endings[now.ID] = &ending{reason, at}
		}
	}
	return endings, nil
}

func listQuery(r *http.Request) (Query, error) {
	var bad fieldErrors
	q := Query{Limit: pageLimit(r, &bad)}
	if text := r.URL.Query().Get("cursor"); text != "" {
		after, ok := decodeCursor(text)
		bad.when(!ok, "cursor", "use the next_cursor of the page before")
		q.After = after
	}
	return q, bad.problem(http.StatusUnprocessableEntity, codeValidationFailed, "some parameters cannot be taken as they are")
}

func pageLimit(r *http.Request, bad *fieldErrors) int {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return pageDefault
	}
	n, err := strconv.Atoi(text)
	bad.when(err != nil || n < 1 || n > pageMost, "limit", "use 1 to %d", pageMost)
	return n
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

// sandboxOut is a sandbox as clients read it.
type sandboxOut struct {
	*Sandbox
	// Ending is the end that is close, if nothing is done about it.
	Ending *ending `json:"ending,omitempty"`
}

type ending struct {
	Reason sandbox.End `json:"reason"` // "idle" or "lifetime"
	At     time.Time   `json:"at"`
}

func (h *Handler) getSandbox(w http.ResponseWriter, r *http.Request, p *Principal) error {
	rec, _, err := h.find(r.Context(), p.Account, r.PathValue("id"))
	if err != nil {
		return err
	}
	if rec, err = h.refresh(r.Context(), rec); err != nil {
		return err
	}
	endings, err := h.endings(r.Context(), p.Account)
	if err != nil {
		return err
	}
	return h.send(w, http.StatusOK, sandboxOut{rec, endings[rec.ID]})
}
