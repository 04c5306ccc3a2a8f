package usage_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// A run, from its beginning to its bill.
func Example() {
	ctx := context.Background()
	var ledger usage.Ledger = new(usage.Memory) // or that of sqlstore
	quota := usage.Quota{RunsAtOnce: 1, PerDay: usage.Budget{Cost: 5 * usage.Dollar}}
	noon := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC) // the zero time is the present

	place, err := ledger.Reserve(ctx, usage.Reservation{
		Account: "acme", Kind: usage.KindRun, ID: "run-1", SandboxID: "sb-1", Time: noon,
		Quota: quota, Hold: usage.Budget{Cost: 8 * usage.Dollar},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the run may cost", place.Held.Cost) // give it to the run as its budget

	_, err = ledger.Reserve(ctx, usage.Reservation{Account: "acme", Kind: usage.KindRun, ID: "run-2", Time: noon, Quota: quota})
	var exceeded *usage.ExceededError
	if errors.As(err, &exceeded) {
		fmt.Println("refused:", exceeded)
	}

	err = ledger.Add(ctx, usage.Entry{
		Account: "acme", Kind: usage.KindRun, ID: "run-1", SandboxID: "sb-1", RunID: "run-1", Time: noon,
		Amounts: usage.Amounts{Runs: 1, ClaudeTime: 95 * time.Second, Cost: usage.Dollars(0.42)},
	})
	if err == nil {
		err = ledger.Release(ctx, "acme", usage.KindRun, "run-1")
	}
	if err != nil {
		log.Fatal(err)
	}
	if err := usage.ExportEntries(ctx, os.Stdout, ledger, usage.JSONLines, usage.Query{Account: "acme"}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// the run may cost $5.00
	// refused: an account may have 1 runs at once, and has 1: wait for one to end, or interrupt it
	// {"time":"2026-03-04T12:00:00Z","account":"acme","id":"run-1","kind":"run","sandbox_id":"sb-1","run_id":"run-1","sandboxes":0,"runs":1,"claude_seconds":95,"cost_usd":0.42,"input_tokens":0,"output_tokens":0,"cache_read_tokens":0,"cache_write_tokens":0,"bytes_in":0,"bytes_out":0}
}

// A month's bill.
func ExampleExportDays() {
	ctx := context.Background()
	ledger := new(usage.Memory)
	for i, account := range []string{"globex", "acme", "acme"} {
		err := ledger.Add(ctx, usage.Entry{
			Account: account, Kind: usage.KindRun, ID: fmt.Sprint("run-", i), Time: time.Date(2026, 3, 4, i, 0, 0, 0, time.UTC),
			Amounts: usage.Amounts{Runs: 1, ClaudeTime: 1500 * time.Millisecond, Cost: usage.Dollars(0.25), OutputTokens: 100},
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	march := usage.Query{
		AllAccounts: true,
		From:        time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC),
	}
	if err := usage.ExportDays(ctx, os.Stdout, ledger, usage.CSV, march); err != nil {
		log.Fatal(err)
	}
	// Output:
	// date,account,sandboxes,runs,claude_seconds,cost_usd,input_tokens,output_tokens,cache_read_tokens,cache_write_tokens,bytes_in,bytes_out
	// 2026-03-04,acme,0,2,3,0.5,0,200,0,0,0,0
	// 2026-03-04,globex,0,1,1.5,0.25,0,100,0,0,0,0
}

// What a server does when it starts: the places of runs that ended while it was down are
// freed.
func ExampleReleaseGone() {
	ctx := context.Background()
	ledger := new(usage.Memory)
	for _, id := range []string{"run-1", "run-2"} {
		r := usage.Reservation{Account: "acme", Kind: usage.KindRun, ID: id, Time: time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)}
		if _, err := ledger.Reserve(ctx, r); err != nil {
			log.Fatal(err)
		}
	}
	goesOn := map[string]bool{"run-2": true} // as the records say
	old := usage.Query{AllAccounts: true, To: time.Now().Add(-10 * time.Minute)}
	n, err := usage.ReleaseGone(ctx, ledger, old, func(_ context.Context, p usage.Place) (bool, error) {
		return !goesOn[p.ID], nil
	})
	fmt.Println(n, err)
	// Output: 1 <nil>
}

func ExampleRate() {
	var rate usage.Rate
	quota := usage.Quota{RequestsPerSecond: 0.01, Burst: 2}
	for range 3 {
		err := rate.Allow("acme", quota)
		var exceeded *usage.ExceededError
		if errors.As(err, &exceeded) {
			fmt.Println("come back in", exceeded.RetryAfter.Round(10*time.Second))
		}
	}
	// Output: come back in 1m40s
}
