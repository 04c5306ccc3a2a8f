package usage_test

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// aLedger has what exports must get right.
func aLedger(t testing.TB) *usage.Memory {
	t.Helper()
	l, start := new(usage.Memory), time.Date(2026, 3, 4, 5, 6, 7, 120_000_000, time.UTC)
	for _, e := range []usage.Entry{
		{Account: "acme", ID: "run-1", Kind: usage.KindRun, SandboxID: "sb-1", RunID: "run-1", Time: start, Amounts: usage.Amounts{
			Runs: 1, ClaudeTime: 12500 * time.Millisecond, Cost: usage.Dollars(0.0315), InputTokens: 10, OutputTokens: 20, CacheReadTokens: 30, CacheWriteTokens: 40}},
		{Account: "acme", ID: "save-1", Kind: usage.KindSave, SandboxID: "sb-1", Time: start.Add(time.Hour), Amounts: usage.Amounts{BytesIn: 4096, BytesOut: 17}},
		{Account: "=\"odd\",\nname", ID: "sb-2", Kind: usage.KindSandbox, SandboxID: "sb-2", Time: start.AddDate(0, 0, 1), Amounts: usage.Amounts{Sandboxes: 1}},
	} {
		if err := l.Add(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestExport(t *testing.T) {
	l, all := aLedger(t), usage.Query{AllAccounts: true}
	const amounts = "sandboxes,runs,claude_seconds,cost_usd,input_tokens,output_tokens,cache_read_tokens,cache_write_tokens,bytes_in,bytes_out\n"
	for _, c := range []struct {
		format  usage.Format
		entries bool
		q       usage.Query
		want    string
	}{
		{usage.CSV, false, all, "date,account," + amounts +
			"2026-03-04,acme,0,1,12.5,0.0315,10,20,30,40,4096,17\n" +
			"2026-03-05,\"=\"\"odd\"\",\nname\",1,0,0,0,0,0,0,0,0,0\n"},
		{usage.JSONLines, false, usage.Query{Account: "acme"}, `{"date":"2026-03-04","account":"acme","sandboxes":0,"runs":1,"claude_seconds":12.5,` +
			`"cost_usd":0.0315,"input_tokens":10,"output_tokens":20,"cache_read_tokens":30,"cache_write_tokens":40,"bytes_in":4096,"bytes_out":17}` + "\n"},
		{usage.CSV, true, usage.Query{Account: "acme"}, "time,account,id,kind,sandbox_id,run_id," + amounts +
			"2026-03-04T05:06:07.12Z,acme,run-1,run,sb-1,run-1,0,1,12.5,0.0315,10,20,30,40,0,0\n" +
			"2026-03-04T06:06:07.12Z,acme,save-1,save,sb-1,,0,0,0,0,0,0,0,0,4096,17\n"},
		{usage.JSONLines, true, usage.Query{AllAccounts: true, From: time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC)}, `{"time":"2026-03-05T05:06:07.12Z",` +
			`"account":"=\"odd\",\nname","id":"sb-2","kind":"sandbox","sandbox_id":"sb-2","run_id":"","sandboxes":1,"runs":0,"claude_seconds":0,` +
			`"cost_usd":0,"input_tokens":0,"output_tokens":0,"cache_read_tokens":0,"cache_write_tokens":0,"bytes_in":0,"bytes_out":0}` + "\n"},
		{usage.CSV, true, usage.Query{Account: "nobody"}, "time,account,id,kind,sandbox_id,run_id," + amounts},
		{usage.JSONLines, false, usage.Query{}, ""},
	} {
		export := usage.ExportDays
		if c.entries {
			export = usage.ExportEntries
		}
		var got bytes.Buffer
		if err := export(t.Context(), &got, l, c.format, c.q); err != nil || got.String() != c.want {
			t.Errorf("%s of %+v: %v\n%s", c.format, c.q, err, cmp.Diff(c.want, got.String()))
		}
	}
	if err := usage.ExportDays(t.Context(), io.Discard, l, "xml", all); !errors.Is(err, usage.ErrInvalid) || !strings.Contains(err.Error(), "csv") {
		t.Errorf("another format: %v", err)
	}
}

// A ledger of many pages is exported whole, in order and once; a limit is one of the whole.
func TestExportPages(t *testing.T) {
	l, many := new(usage.Memory), 2500
	for i := range many {
		e := usage.Entry{Account: "acme", ID: fmt.Sprintf("run-%04d", i), Kind: usage.KindRun, Time: time.Unix(int64(i/7), 0)}
		if err := l.Add(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	for limit, want := range map[int]int{0: many, 1: 1, 1000: 1000, 1001: 1001, 2500: many, 9000: many} {
		var out bytes.Buffer
		if err := usage.ExportEntries(t.Context(), &out, l, usage.JSONLines, usage.Query{Account: "acme", Limit: limit}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for scan := bufio.NewScanner(&out); scan.Scan(); n++ {
			var e usage.Entry
			if err := json.Unmarshal(scan.Bytes(), &e); err != nil || e.ID != fmt.Sprintf("run-%04d", n) {
				t.Fatalf("line %d is %s, %v", n, scan.Text(), err)
			}
		}
		if n != want {
			t.Errorf("limit %d: %d lines, want %d", limit, n, want)
		}
	}
}

type fullDisk struct{}

var errFull = errors.New("the disk is full")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestExportFails(t *testing.T) {
	for _, format := range []usage.Format{usage.CSV, usage.JSONLines} {
		if err := usage.ExportEntries(t.Context(), fullDisk{}, aLedger(t), format, usage.Query{AllAccounts: true}); !errors.Is(err, errFull) {
			t.Errorf("%s: %v", format, err)
		}
	}
}

// fullEntry has another value in every field that is exported.
func fullEntry() usage.Entry {
	e := usage.Entry{Account: "acme", ID: "id", Kind: "kind", SandboxID: "sb", RunID: "run", Time: time.Unix(1, 2).UTC()}
	numbers := reflect.ValueOf(&e.Amounts).Elem()
	for i := range numbers.NumField() {
		numbers.Field(i).SetInt(int64(i+1) * 1_000_001)
	}
	return e
}

// Everything but an entry's place is read as it was written.
func TestJSON(t *testing.T) {
	e := fullEntry()
	d := usage.Day{Date: usage.DayOf(e.Time), Account: "acme", Amounts: e.Amounts}
	b := e.Amounts.Budget()
	for _, v := range []any{&e, &d, &e.Amounts, &b} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		again := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		if err := json.Unmarshal(text, again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v, again); diff != "" {
			t.Errorf("%s was read as another:\n%s", text, diff)
		}
	}
}

// CSV has every number that JSON has.
func TestCSV(t *testing.T) {
	l, e := new(usage.Memory), fullEntry()
	if err := l.Add(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := usage.ExportDays(t.Context(), &out, l, usage.CSV, usage.Query{Account: "acme"}); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(lines) != 2 {
		t.Fatal(lines, err)
	}
	text, err := json.Marshal(usage.Day{Date: usage.DayOf(e.Time), Account: "acme", Amounts: e.Amounts})
	if err != nil {
		t.Fatal(err)
	}
	for i, column := range lines[0] {
		if !slices.Contains(strings.FieldsFunc(string(text), func(r rune) bool { return strings.ContainsRune(`{}",:`, r) }), lines[1][i]) {
			t.Errorf("column %s is %s, which is not in %s", column, lines[1][i], text)
		}
	}
}

// A limit that there is not is not in the JSON, where it would read as one of nothing.
func TestQuotaJSON(t *testing.T) {
	for want, q := range map[string]usage.Quota{
		`{}`: {},
		`{"sandboxes_at_once":20,"per_day":{"claude_seconds":5400,"cost_usd":12.5},"requests_per_second":0.5}`: {
			SandboxesAtOnce: 20, PerDay: usage.Budget{ClaudeTime: 90 * time.Minute, Cost: usage.Dollars(12.5)}, RequestsPerSecond: 0.5,
		},
	} {
		text, err := json.Marshal(q)
		var again usage.Quota
		if err != nil || string(text) != want || json.Unmarshal(text, &again) != nil || again != q {
			t.Errorf("%+v was written as %s, %v, and read as %+v", q, text, err, again)
		}
	}
}

// FuzzJSON wants whatever is taken for an entry or a day to be written as what is taken
// for the same.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"date":"2026-03-04","time":"2026-03-04T05:06:07.12Z","account":"acme","claude_seconds":12.5,"cost_usd":0.0315,"bytes_in":1}`))
	f.Add([]byte(`{"date":"2026-03-04","claude_seconds":1e9}`))
	f.Add([]byte(`{"date":"9999-12-31","cost_usd":-9223372036854.775808}`))
	f.Add([]byte(`{"date":null,"cost_usd":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		again(t, data, new(usage.Day), new(usage.Day))
		again(t, data, new(usage.Entry), new(usage.Entry))
		again(t, data, new(usage.Budget), new(usage.Budget))
	})
}

func again(t *testing.T, data []byte, first, second any) {
	t.Helper()
	if json.Unmarshal(data, first) != nil {
		return
	}
	text, err := json.Marshal(first)
	if err == nil {
		err = json.Unmarshal(text, second)
	}
	if diff := cmp.Diff(first, second); err != nil || diff != "" {
		t.Errorf("%s was written as %s: %v\n%s", data, text, err, diff)
	}
}
