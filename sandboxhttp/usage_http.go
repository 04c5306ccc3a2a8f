package sandboxhttp

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// usagePage is the answer to GET /usage.
type usagePage struct {
	Quota usage.Quota `json:"quota"`
	Now   usageNow    `json:"now"`
	Days  []usage.Day `json:"days"`
	Next  string      `json:"next_cursor,omitempty"`
}

// usageNow is what goes on.
type usageNow struct {
	Sandboxes int          `json:"sandboxes"`
	Runs      int          `json:"runs"`
	Held      usage.Budget `json:"held"`
}

// formatJSON is the format of GET /usage that is not an export.
const formatJSON usage.Format = "json"

// usageQuery is what GET /usage is asked for.
type usageQuery struct {
	usage.Query
	format  usage.Format
	entries bool
}

func (h *Handler) getUsage(w http.ResponseWriter, r *http.Request, p *Principal) error {
	if h.ledger == nil {
		return notFound()
	}
	q, err := parseUsage(r, p.Account)
	if err != nil {
		return err
	}
	if q.format != formatJSON {
		return h.exportUsage(w, r, q)
	}
	page := usagePage{}
	if page.Quota, err = h.quota(r.Context(), p.Account); err != nil {
		return err
	}
	if page.Now, err = h.usageNow(r.Context(), p.Account); err != nil {
		return err
	}
	limit := q.Limit
	q.Limit++ // to see whether there is another page
	if page.Days, err = h.ledger.Days(r.Context(), q.Query); err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	if len(page.Days) > limit {
		page.Days = page.Days[:limit]
		page.Next = base64.RawURLEncoding.EncodeToString([]byte(page.Days[limit-1].Date.Format(time.DateOnly)))
	}
	if page.Days == nil {
		page.Days = []usage.Day{}
	}
	return h.send(w, http.StatusOK, page)
}

// usageNow counts an account's places.
func (h *Handler) usageNow(ctx context.Context, account string) (now usageNow, err error) {
	places, err := h.ledger.Places(ctx, usage.Query{Account: account})
	if err != nil {
		return now, fmt.Errorf("usage: %w", err)
	}
	for _, p := range places {
		switch p.Kind {
		case usage.KindSandbox:
			now.Sandboxes++
		case usage.KindRun:
			now.Runs++
		}
		now.Held = now.Held.Add(p.Held)
	}
	return now, nil
}

// parseUsage reads the parameters, of which every one may be left out.
func parseUsage(r *http.Request, account string) (*usageQuery, error) {
	var bad fieldErrors
	values := r.URL.Query()
	q := &usageQuery{Query: usage.Query{Account: account}, format: usageFormat(r, &bad)}
	q.From, q.To = dayParameter(r, "from", &bad), dayParameter(r, "to", &bad)
	bad.when(!q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To), "to", "use a day after from: the days before it are shown")
	switch values.Get("detail") {
	case "", "days":
	case "entries":
		q.entries = true
		bad.when(q.format == formatJSON, "detail", "entries are exported only: add format=csv or format=jsonl")
	default:
		bad.add("detail", "use days or entries")
	}
	if q.format != formatJSON {
		bad.when(values.Has("limit"), "limit", "leave it out: an export has all")
		bad.when(values.Has("cursor"), "cursor", "leave it out: an export has all")
	} else {
		q.Limit = pageLimit(r, &bad)
		q.After = dayCursor(r, account, &bad)
	}
	return q, bad.problem(http.StatusUnprocessableEntity, codeValidationFailed, "some parameters cannot be taken as they are")
}

// usageFormat is the format that is asked for by name, or else by what is accepted.
func usageFormat(r *http.Request, bad *fieldErrors) usage.Format {
	switch format := usage.Format(r.URL.Query().Get("format")); format {
	case usage.CSV, usage.JSONLines, formatJSON:
		return format
	case "":
		if strings.Contains(strings.ToLower(strings.Join(r.Header.Values("Accept"), ",")), "text/csv") {
			return usage.CSV
		}
	default:
		bad.add("format", "use json, csv or jsonl")
	}
	return formatJSON
}

func dayParameter(r *http.Request, name string, bad *fieldErrors) time.Time {
	text := r.URL.Query().Get(name)
	if text == "" {
		return time.Time{}
	}
	day, err := time.Parse(time.DateOnly, text)
	bad.when(err != nil || day.Year() < 1970 || day.Year() > 2261, name, "use a day such as 2026-03-04, of 1970 to 2261")
	return day
}

func dayCursor(r *http.Request, account string, bad *fieldErrors) usage.Position {
	text := r.URL.Query().Get("cursor")
	if text == "" {
		return usage.Position{}
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	day, dayErr := time.Parse(time.DateOnly, string(data))
	bad.when(err != nil || dayErr != nil, "cursor", "use the next_cursor of the page before")
	return usage.Position{Time: day, Account: account}
}

// exportTypes are the formats' media types.
var exportTypes = map[usage.Format]string{usage.CSV: "text/csv; charset=utf-8", usage.JSONLines: "application/jsonl"}

// exportUsage answers with all that a query asks for. An export that fails after it has begun
// is cut off: half of one must not look whole.
func (h *Handler) exportUsage(w http.ResponseWriter, r *http.Request, q *usageQuery) error {
	out := &exportWriter{h: h, w: w, q: q}
	export := usage.ExportDays
	if q.entries {
		export = usage.ExportEntries
	}
	err := export(r.Context(), out, h.ledger, q.format, q.Query)
	switch {
	case err == nil:
		out.begin() // nothing was used: nothing was written
		return nil
	case !out.begun:
		return fmt.Errorf("usage: %w", err)
	case out.failed == nil && r.Context().Err() == nil:
		_ = h.report(r.Context(), fmt.Errorf("usage: %w", err))
	}
	panic(http.ErrAbortHandler)
}

// exportWriter begins the answer with the first bytes of an export, and gives the client
// time for each part.
type exportWriter struct {
	h      *Handler
	w      http.ResponseWriter
	q      *usageQuery
	begun  bool
	failed error // the client's connection
}

func (e *exportWriter) begin() {
	if e.begun {
		return
	}
	e.begun = true
	what := "usage"
	if e.q.entries {
		what = "usage-entries"
	}
	header := e.w.Header()
	header.Set("Content-Type", exportTypes[e.q.format])
	header.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s.%s"`, what, e.q.format))
	header.Set("Cache-Control", "no-store")
	e.h.extendWrite(e.w)
	e.w.WriteHeader(http.StatusOK)
}

func (e *exportWriter) Write(p []byte) (int, error) {
	e.begin()
	e.h.extendWrite(e.w)
	n, err := e.w.Write(p)
	e.failed = errors.Join(e.failed, err)
	return n, err
}
