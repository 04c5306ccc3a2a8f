package usage

import (
	"encoding/json"
	"fmt"
	"time"
)

// seconds is a time that is a number of seconds in JSON.
type seconds time.Duration

func (s seconds) MarshalJSON() ([]byte, error) { return []byte(decimal(int64(s), secondDigits)), nil }

func (s *seconds) UnmarshalJSON(data []byte) error {
	n, err := parseDecimal(string(data), secondDigits)
	if err == nil {
		*s = seconds(n)
	}
	return err
}

// amountsJSON is Amounts with the names of columns.
type amountsJSON struct {
	Sandboxes        int64    `json:"sandboxes"`
	Runs             int64    `json:"runs"`
	ClaudeTime       seconds  `json:"claude_seconds"`
	Cost             MicroUSD `json:"cost_usd"`
	InputTokens      int64    `json:"input_tokens"`
	OutputTokens     int64    `json:"output_tokens"`
	CacheReadTokens  int64    `json:"cache_read_tokens"`
	CacheWriteTokens int64    `json:"cache_write_tokens"`
	BytesIn          int64    `json:"bytes_in"`
	BytesOut         int64    `json:"bytes_out"`
}

func (a Amounts) json() amountsJSON {
	return amountsJSON{a.Sandboxes, a.Runs, seconds(a.ClaudeTime), a.Cost,
		a.InputTokens, a.OutputTokens, a.CacheReadTokens, a.CacheWriteTokens, a.BytesIn, a.BytesOut}
}

func (j amountsJSON) amounts() Amounts {
	return Amounts{j.Sandboxes, j.Runs, time.Duration(j.ClaudeTime), j.Cost,
		j.InputTokens, j.OutputTokens, j.CacheReadTokens, j.CacheWriteTokens, j.BytesIn, j.BytesOut}
}

// MarshalJSON writes an object with the columns of [ExportDays] from sandboxes on.
func (a Amounts) MarshalJSON() ([]byte, error) { return json.Marshal(a.json()) }

// UnmarshalJSON reads what MarshalJSON writes.
func (a *Amounts) UnmarshalJSON(data []byte) error {
	j := a.json()
	err := json.Unmarshal(data, &j)
	if err == nil {
		*a = j.amounts()
	}
	return err
}

type dayJSON struct {
	Date    string `json:"date"`
	Account string `json:"account"`
	amountsJSON
}

// MarshalJSON writes an object with the columns of [ExportDays].
func (d Day) MarshalJSON() ([]byte, error) {
	return json.Marshal(dayJSON{d.Date.Format(time.DateOnly), d.Account, d.Amounts.json()})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (d *Day) UnmarshalJSON(data []byte) error {
	var j dayJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	date, err := time.Parse(time.DateOnly, j.Date)
	if err != nil {
		return fmt.Errorf("%w: date %.40q", ErrInvalid, j.Date)
	}
	*d = Day{date, j.Account, j.amounts()}
	return nil
}

type entryJSON struct {
	Time      time.Time `json:"time"`
	Account   string    `json:"account"`
	ID        string    `json:"id"`
	Kind      Kind      `json:"kind"`
	SandboxID string    `json:"sandbox_id"`
	RunID     string    `json:"run_id"`
	amountsJSON
}

// MarshalJSON writes an object with the columns of [ExportEntries]. The place is not
// among them.
func (e Entry) MarshalJSON() ([]byte, error) {
	return json.Marshal(entryJSON{e.Time.UTC(), e.Account, e.ID, e.Kind, e.SandboxID, e.RunID, e.Amounts.json()})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *Entry) UnmarshalJSON(data []byte) error {
	var j entryJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*e = Entry{Time: j.Time.UTC(), Account: j.Account, ID: j.ID, Kind: j.Kind, SandboxID: j.SandboxID, RunID: j.RunID, Amounts: j.amounts()}
	return nil
}

// budgetJSON is Budget with the names of columns.
type budgetJSON struct {
	Sandboxes  int64    `json:"sandboxes,omitzero"`
	ClaudeTime seconds  `json:"claude_seconds,omitzero"`
	Cost       MicroUSD `json:"cost_usd,omitzero"`
	Tokens     int64    `json:"tokens,omitzero"`
	BytesIn    int64    `json:"bytes_in,omitzero"`
	BytesOut   int64    `json:"bytes_out,omitzero"`
}

// MarshalJSON writes an object with time in seconds and money in dollars. Fields that are
// zero are left out.
func (b Budget) MarshalJSON() ([]byte, error) {
	return json.Marshal(budgetJSON{b.Sandboxes, seconds(b.ClaudeTime), b.Cost, b.Tokens, b.BytesIn, b.BytesOut})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (b *Budget) UnmarshalJSON(data []byte) error {
	j := budgetJSON{b.Sandboxes, seconds(b.ClaudeTime), b.Cost, b.Tokens, b.BytesIn, b.BytesOut}
	err := json.Unmarshal(data, &j)
	if err == nil {
		*b = Budget{j.Sandboxes, time.Duration(j.ClaudeTime), j.Cost, j.Tokens, j.BytesIn, j.BytesOut}
	}
	return err
}
