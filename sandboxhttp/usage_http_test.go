package sandboxhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// recorded is a ledger with days of March 2026 of acme, and of somebody else.
func recorded(t *testing.T) *usage.Memory {
	t.Helper()
	l := new(usage.Memory)
	for day := 1; day <= 3; day++ {
		for _, account := range []string{"acme", "secretive"} {
			err := l.Add(t.Context(), usage.Entry{
				Account: account, ID: fmt.Sprint("run-", day), Kind: usage.KindRun, SandboxID: "sb-1", RunID: fmt.Sprint("run-", day),
				Time:    time.Date(2026, 3, day, 12, 0, 0, 0, time.UTC),
				Amounts: usage.Amounts{Runs: 1, ClaudeTime: time.Duration(day) * 1500 * time.Millisecond, Cost: usage.Dollars(0.1), OutputTokens: int64(day)},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return l
}

// dates gives those of a page.
func dates(page map[string]any) (list []string) {
	for _, d := range page["days"].([]any) {
		list = append(list, d.(map[string]any)["date"].(string))
	}
	return list
}

func TestUsageIsShown(t *testing.T) {
	l, cli := recorded(t), newPaced()
	quota := usage.Quota{RunsAtOnce: 3, PerDay: usage.Budget{Cost: 5 * usage.Dollar, ClaudeTime: time.Hour}}
	s := serve(t, newPlace(t, cli.play), metered(l, quota, func(c *sandboxhttp.Config) { c.Limits.RunTime = time.Minute }))
	box := s.create("")
	s.create("")
	f := s.prompt(box, "go")
	f.must()
	for _, who := range []string{"acme", "acme viewer"} {
		got := s.as(who).ask(200, "GET", "/usage?to=2026-03-05", "")
		now, _ := json.Marshal(got["now"])
		given, _ := json.Marshal(got["quota"])
		if string(now) != `{"held":{"claude_seconds":60},"runs":1,"sandboxes":2}` ||
			string(given) != `{"per_day":{"claude_seconds":3600,"cost_usd":5},"runs_at_once":3}` {
			t.Errorf("now %s, quota %s", now, given)
		}
		first, _ := json.Marshal(got["days"].([]any)[0])
		if string(first) != `{"account":"acme","bytes_in":0,"bytes_out":0,"cache_read_tokens":0,"cache_write_tokens":0,"claude_seconds":1.5,"cost_usd":0.1,`+
			`"date":"2026-03-01","input_tokens":0,"output_tokens":1,"runs":1,"sandboxes":0}` || len(dates(got)) != 3 || got["next_cursor"] != nil {
			t.Errorf("%v, and first %s", got, first)
		}
	}
	if got := s.as("nobody").ask(200, "GET", "/usage", ""); len(dates(got)) != 0 || fmt.Sprint(got["now"]) != "map[held:map[] runs:0 sandboxes:0]" {
		t.Errorf("who has used nothing: %v", got)
	}
	close(cli.gate)
	f.end()
	if got := s.ask(200, "GET", "/usage", ""); len(dates(got)) != 4 {
		t.Errorf("with today: %v", got)
	}
}

func TestPagesOfUsage(t *testing.T) {
	s := serve(t, emptyPlace(), metered(recorded(t), usage.Quota{}))
	var got []string
	for cursor := ""; ; {
		page := s.ask(200, "GET", "/usage?limit=2&cursor="+cursor, "")
		got = append(got, dates(page)...)
		next, more := page["next_cursor"].(string)
		if !more {
			break
		}
		cursor = next
	}
	if !slices.Equal(got, []string{"2026-03-01", "2026-03-02", "2026-03-03"}) {
		t.Errorf("days %q", got)
	}
	if got := dates(s.ask(200, "GET", "/usage?from=2026-03-02&to=2026-03-03", "")); !slices.Equal(got, []string{"2026-03-02"}) {
		t.Errorf("of one day: %q", got)
	}
}

// text asks for something that is no JSON.
func (s *server) text(path string, headers ...string) (text string, resp *http.Response) {
	s.t.Helper()
	resp = s.request("GET", path, "", headers...)
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: status %d, %v: %s", path, resp.StatusCode, err, data)
	}
	return string(data), resp
}

func TestExportsOfUsage(t *testing.T) {
	const amounts = "sandboxes,runs,claude_seconds,cost_usd,input_tokens,output_tokens,cache_read_tokens,cache_write_tokens,bytes_in,bytes_out\n"
	s := serve(t, emptyPlace(), metered(recorded(t), usage.Quota{}))
	for _, c := range []struct{ query, accept, kind, name, want string }{
		{"format=csv&from=2026-03-02", "", "text/csv; charset=utf-8", "usage.csv",
			"date,account," + amounts + "2026-03-02,acme,0,1,3,0.1,0,2,0,0,0,0\n2026-03-03,acme,0,1,4.5,0.1,0,3,0,0,0,0\n"},
		{"to=2026-03-02", "Text/CSV, */*", "text/csv; charset=utf-8", "usage.csv",
			"date,account," + amounts + "2026-03-01,acme,0,1,1.5,0.1,0,1,0,0,0,0\n"},
		{"detail=entries&format=csv&to=2026-03-02", "", "text/csv; charset=utf-8", "usage-entries.csv",
			"time,account,id,kind,sandbox_id,run_id," + amounts + "2026-03-01T12:00:00Z,acme,run-1,run,sb-1,run-1,0,1,1.5,0.1,0,1,0,0,0,0\n"},
		{"format=csv&from=2027-01-01", "", "text/csv; charset=utf-8", "usage.csv", "date,account," + amounts},
		{"format=jsonl&to=2026-03-02&detail=days", "text/csv", "application/jsonl", "usage.jsonl",
			`{"date":"2026-03-01","account":"acme","sandboxes":0,"runs":1,"claude_seconds":1.5,"cost_usd":0.1,"input_tokens":0,"output_tokens":1,"cache_read_tokens":0,"cache_write_tokens":0,"bytes_in":0,"bytes_out":0}` + "\n"},
		{"format=jsonl&from=2027-01-01&detail=entries", "", "application/jsonl", "usage-entries.jsonl", ""},
	} {
		got, resp := s.as("acme viewer").text("/usage?"+c.query, "Accept", c.accept)
		if got != c.want || resp.Header.Get("Content-Type") != c.kind || resp.Header.Get("Content-Disposition") != `attachment; filename="`+c.name+`"` {
			t.Errorf("%s: %v\n%q, want\n%q", c.query, resp.Header, got, c.want)
		}
		if strings.Contains(got, "secretive") {
			t.Errorf("%s shows another account", c.query)
		}
	}
	if got := s.ask(200, "GET", "/usage?format=json", "", "Accept", "text/csv"); len(dates(got)) != 3 {
		t.Errorf("%v", got)
	}
}

func TestUsageThatCannotBeShown(t *testing.T) {
	s := serve(t, emptyPlace(), metered(recorded(t), usage.Quota{}))
	for query, want := range map[string][]string{
		"from=yesterday":                       {"from"},
		"to=2026-3-4":                          {"to"},
		"from=0001-01-01&to=9999-01-01":        {"from", "to"},
		"from=2026-03-02&to=2026-03-02":        {"to"},
		"format=xml":                           {"format"},
		"detail=all":                           {"detail"},
		"detail=entries":                       {"detail"},
		"limit=0":                              {"limit"},
		"limit=x":                              {"limit"},
		"cursor=x":                             {"cursor"},
		"cursor=" + url.QueryEscape("=cmd|' "): {"cursor"},
		"format=csv&limit=1&cursor=x":          {"limit", "cursor"},
		"format=x&from=x&detail=x":             {"format", "from", "detail"},
	} {
		if got := s.refused(422, "validation_failed", "GET", "/usage?"+query, ""); !slices.Equal(got, want) {
			t.Errorf("%s: fields %q, want %q", query, got, want)
		}
	}
	s.refused(405, "method_not_allowed", "POST", "/usage", "{}")
	s.as("").refused(401, "unauthenticated", "GET", "/usage", "")
	serve(t, emptyPlace(), nil).refused(404, "not_found", "GET", "/usage", "")
	// One of the two is enough.
	serve(t, emptyPlace(), func(c *sandboxhttp.Config) { c.Usage = new(usage.Memory) }).ask(200, "GET", "/usage", "")
	serve(t, emptyPlace(), metered(nil, usage.Quota{})).ask(200, "GET", "/usage", "")
}

// endless is a ledger with very many days, which fails when so many were read.
type endless struct {
	usage.Ledger
	pages int
}

func (e *endless) Days(_ context.Context, q usage.Query) ([]usage.Day, error) {
	if e.pages == 0 {
		return nil, errBrittle
	}
	e.pages--
	days := make([]usage.Day, q.Limit)
	for i := range days {
		days[i] = usage.Day{Date: usage.DayOf(time.Now()), Account: q.Account}
	}
	return days, nil
}

// What fails on this side says nothing of why, and half an export does not look whole.
func TestUsageThatFails(t *testing.T) {
	l := newBrittle()
	s := serve(t, emptyPlace(), metered(l, usage.Quota{}))
	for method, path := range map[string]string{"Places": "/usage", "Days": "/usage"} {
		l.fail(method, 1)
		if p := s.ask(500, "GET", path, ""); p["code"] != "internal" || strings.Contains(fmt.Sprint(p), "db-7") {
			t.Errorf("%s: %v", method, p)
		}
	}
	l.fail("Days", 1)
	resp := s.request("GET", "/usage?format=csv", "")
	if resp.StatusCode != 500 || resp.Header.Get("Content-Type") != "application/problem+json" || resp.Header.Get("Content-Disposition") != "" {
		t.Errorf("an export that did not begin: %d, %v", resp.StatusCode, resp.Header)
	}
	s = serve(t, emptyPlace(), metered(&endless{Ledger: l, pages: 3}, usage.Quota{}))
	resp = s.request("GET", "/usage?format=jsonl", "")
	if data, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) || len(data) == 0 {
		t.Errorf("an export that was cut: %d bytes, %v", len(data), err)
	}
	until(t, "the log says why", func() bool { return strings.Contains(s.log.String(), "db-7") })
}
