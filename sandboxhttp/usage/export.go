package usage

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Format is how a ledger is written.
type Format string

// The formats.
const (
	// CSV is as RFC 4180 says, but with lines that end in LF, and with a line of the
	// columns' names first.
	CSV Format = "csv"
	// JSONLines is an object a line, with the names of the columns.
	JSONLines Format = "jsonl"
)

// ExportDays writes what accounts used, a line for each day and account, in the order of
// [Ledger.Days]. The columns are
//
//	date                2026-03-04, in UTC
//	account
//	sandboxes           made
//	runs                ended
//	claude_seconds      with up to nine decimals
//	cost_usd            dollars, with up to six decimals
//	input_tokens, output_tokens, cache_read_tokens, cache_write_tokens
//	bytes_in, bytes_out uploaded to and downloaded from buckets
//
// Numbers are exact, so sums of them are. More columns may come to be, behind these. Texts
// are as they are: a spreadsheet takes one that begins with "=" for a formula. In JSON a
// byte that is not UTF-8 becomes U+FFFD. After an error a part may be written.
func ExportDays(ctx context.Context, w io.Writer, l Ledger, f Format, q Query) error {
	out, err := newExport(w, f, "date", "account")
	if err != nil {
		return err
	}
	return out.finish(pages(ctx, q, l.Days, func(d Day) error {
		return out.line(d, d.Amounts, d.Date.Format(time.DateOnly), d.Account)
	}))
}

// ExportEntries writes what was used, a line for each entry, in the order of
// [Ledger.Entries]. The columns are time (2026-03-04T05:06:07.123456Z), account, id, kind,
// sandbox_id and run_id, and then those of [ExportDays] from sandboxes on, with what is
// said there. The lines of a day add up to those of ExportDays.
func ExportEntries(ctx context.Context, w io.Writer, l Ledger, f Format, q Query) error {
	out, err := newExport(w, f, "time", "account", "id", "kind", "sandbox_id", "run_id")
	if err != nil {
		return err
	}
	return out.finish(pages(ctx, q, l.Entries, func(e Entry) error {
		return out.line(e, e.Amounts, e.Time.Format(time.RFC3339Nano), e.Account, e.ID, string(e.Kind), e.SandboxID, e.RunID)
	}))
}

// columns are the names of Amounts' fields.
var columns = []string{"sandboxes", "runs", "claude_seconds", "cost_usd",
	"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "bytes_in", "bytes_out"}

// export writes lines in one of the formats.
type export struct {
	buf  *bufio.Writer
	csv  *csv.Writer // nil for JSON
	json *json.Encoder
}

func newExport(w io.Writer, f Format, names ...string) (*export, error) {
	buf := bufio.NewWriter(w)
	switch f {
	case CSV:
		out := &export{buf: buf, csv: csv.NewWriter(buf)}
		return out, out.csv.Write(append(names, columns...))
	case JSONLines:
		return &export{buf: buf, json: json.NewEncoder(buf)}, nil
	}
	return nil, fmt.Errorf("%w: format %q; use %q or %q", ErrInvalid, f, CSV, JSONLines)
}

// line writes v, which is these names and amounts.
func (x *export) line(v any, a Amounts, names ...string) error {
	if x.csv == nil {
		return x.json.Encode(v)
	}
	for i, field := range a.each() {
		text := strconv.FormatInt(*field, 10)
		switch columns[i] {
		case "claude_seconds":
			text = decimal(*field, secondDigits)
		case "cost_usd":
			text = decimal(*field, moneyDigits)
		}
		names = append(names, text)
	}
	return x.csv.Write(names)
}

func (x *export) finish(err error) error {
	if x.csv != nil && err == nil {
		x.csv.Flush()
		err = x.csv.Error()
	}
	if err != nil {
		return err
	}
	return x.buf.Flush()
}
