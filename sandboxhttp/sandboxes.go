package sandboxhttp

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
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
