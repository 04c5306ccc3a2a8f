package usage_test

import (
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// Every refusal says which limit it was and what to do.
func TestExceededText(t *testing.T) {
	used := usage.Amounts{Sandboxes: 5, ClaudeTime: 90 * time.Minute, Cost: 4500 * usage.Dollar / 1000, InputTokens: 1000, OutputTokens: 500, BytesIn: 700, BytesOut: 800}
	noon := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	for want, r := range map[string]usage.Reservation{
		"an account may have 2 sandboxes at once, and has 3: delete one first": {
			Kind: usage.KindSandbox, Quota: usage.Quota{SandboxesAtOnce: 2}},
		"an account may have 0 runs at once, and has 3: wait for one to end, or interrupt it": {
			Kind: usage.KindRun, Quota: usage.Quota{RunsAtOnce: -1}},
		"an account may use 5 sandboxes a day (used: 5 sandboxes): wait until 00:00 UTC, or ask those who run this server for more": {
			Kind: usage.KindSandbox, Quota: usage.Quota{PerDay: usage.Budget{Sandboxes: 5}}},
		"an account may use 1h0m0s of Claude a day (used: 1h30m0s of Claude): wait until 00:00 UTC, or ask those who run this server for more": {
			Kind: usage.KindRun, Quota: usage.Quota{PerDay: usage.Budget{ClaudeTime: time.Hour}}},
		"an account may use $5.00 a day (used: $4.50, held by what goes on: $0.25, needed: $0.30): wait for that to end": {
			Kind: usage.KindRun, Least: usage.Budget{Cost: usage.Dollars(0.3)}, Quota: usage.Quota{PerDay: usage.Budget{Cost: 5 * usage.Dollar}}},
		"an account may use 2000 tokens a day (used: 1500 tokens, needed: 501 tokens): wait until 00:00 UTC, or ask those who run this server for more": {
			Kind: usage.KindRun, Least: usage.Budget{Tokens: 501}, Quota: usage.Quota{PerDay: usage.Budget{Tokens: 2000}}},
		"an account may use 1000 bytes of uploads a day (used: 700 bytes of uploads, needed: 1001 bytes of uploads): ask those who run this server for more": {
			Kind: usage.KindSave, Least: usage.Budget{BytesIn: 1001}, Quota: usage.Quota{PerDay: usage.Budget{BytesIn: 1000}}},
		"an account may use 0 bytes of downloads a day (used: 800 bytes of downloads): ask those who run this server for more": {
			Kind: usage.KindRestore, Quota: usage.Quota{PerDay: usage.Budget{BytesOut: -1}}},
	} {
		r.Account, r.ID, r.Time = "acme", "id", noon
		r, err := r.Checked()
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Grant(usage.State{AtOnce: 3, Used: used, Held: usage.Budget{Cost: usage.Dollars(0.25)}})
		if err == nil || err.Error() != want {
			t.Errorf("%v\n%s, wanted", err, want)
		}
	}
}
