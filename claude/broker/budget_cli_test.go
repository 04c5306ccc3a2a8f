package broker_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/broker"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// realBox is a sandbox without a network that has the real CLI in it.
func realBox(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	cli := clitest.CLI(t)
	dir, err := os.MkdirTemp("", "broker-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p, err := localbox.Open(&localbox.Options{Dir: dir})
	if err != nil {
		t.Skipf("needs isolated sandboxes: %v", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	sb, err := p.Create(ctx, &sandbox.Config{Mounts: cli.Mounts(), Timeout: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(sb.Terminate(ctx), sb.Close()); err != nil {
			t.Errorf("terminate: %v", err)
		}
	})
	return sb
}

// realRun asks the real CLI in a sandbox something, with as many retries as it
// makes by itself, through a broker to a scripted model.
func realRun(t *testing.T, b *broker.Broker, opts broker.TokenOptions) (*claude.ResultMessage, error) {
	t.Helper()
	st, err := claude.Query(t.Context(), realBox(t), "tell me", &claude.Options{
		Endpoint: claude.Endpoint{Handler: b.With(opts)}, PermissionMode: claude.PermissionBypass,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	return st.Result()
}

func realBroker(t *testing.T, script claudetest.Script, observe func(broker.Event)) (*broker.Broker, *claudetest.Server) {
	t.Helper()
	clitest.CLI(t)
	model := claudetest.Start(t, script)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	b, err := broker.New(&broker.Options{Upstream: model.URL, Key: broker.APIKey(theKey), Transport: transport, Observe: observe})
	if err != nil {
		t.Fatal(err)
	}
	return b, model
}

// What the broker counts is what the CLI says that it used, and what it cost.
func TestRealCosts(t *testing.T) {
	var told events
	tokens := claudetest.Tokens(claudetest.Usage{InputTokens: 123, OutputTokens: 456, CacheReadInputTokens: 7890, CacheCreationInputTokens: 1000, CacheCreation1hInputTokens: 400, WebSearchRequests: 1})
	b, _ := realBroker(t, claudetest.Sequence(
		claudetest.Join(tokens, claudetest.Tool("Bash", map[string]any{"command": "true", "description": "nothing"})),
		claudetest.Join(tokens, claudetest.Text("done")),
	), told.add)
	account := broker.NewAccount("acme", nil)
	res, err := realRun(t, b, broker.TokenOptions{Account: account})
	if err != nil {
		t.Fatal(err)
	}
	got := account.Usage()
	want := broker.Usage{Requests: 2, Input: 246, Output: 912, CacheRead: 15780, CacheWrite5m: 1200, CacheWrite1h: 800, WebSearches: 2, Cost: broker.Dollars(res.CostUSD)}
	if got != want {
		t.Errorf("counted %+v, the CLI says %+v", got, want)
	}
	told.mu.Lock()
	defer told.mu.Unlock()
	var sum broker.Usage
	for _, e := range told.all {
		sum = sum.Add(e.Usage)
	}
	if sum != got || len(told.all) != 2 {
		t.Errorf("%d events add up to %+v", len(told.all), sum)
	}
}

// The CLI ends at once where a budget is used up, and says why.
func TestRealBudgets(t *testing.T) {
	dear := claudetest.Tokens(claudetest.Usage{InputTokens: 100_000, OutputTokens: 1})
	call := claudetest.Tool("Bash", map[string]any{"command": "true", "description": "nothing"})
	for name, test := range map[string]struct {
		script  claudetest.Script
		limits  broker.Limits
		outcome broker.Outcome
		asked   int // the model
	}{
		"between two turns": {claudetest.Join(dear, call), broker.Limits{Tokens: 100_001}, broker.OutcomeRefused, 1},
		"within a stream": {claudetest.Join(claudetest.Text("once "), dear, claudetest.Text(strings.Repeat("upon a time ", 1000)), claudetest.Text("x")),
			broker.Limits{Tokens: 2000}, broker.OutcomeBudget, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			outcomes := map[broker.Outcome]int{}
			b, model := realBroker(t, test.script, func(e broker.Event) {
				mu.Lock()
				defer mu.Unlock()
				outcomes[e.Outcome]++
			})
			_, err := realRun(t, b, broker.TokenOptions{Limits: test.limits})
			if err == nil || !strings.Contains(err.Error(), "of this run is used up") {
				t.Errorf("got %v, want what the broker says", err)
			}
			if n := len(model.Requests(claudetest.Main)); n != test.asked {
				t.Errorf("the model was asked %d times, want %d", n, test.asked)
			}
			mu.Lock()
			defer mu.Unlock()
			if outcomes[test.outcome] != 1 || outcomes[broker.OutcomeRefused] != 1 {
				t.Errorf("outcomes %v", outcomes)
			}
		})
	}
}

// A run that is cut off from outside ends soon, however patient the model is.
func TestRealRevoke(t *testing.T) {
	var gate claudetest.Gate
	b, _ := realBroker(t, claudetest.Join(claudetest.Text("one"), gate.Wait), nil)
	account := broker.NewAccount("acme", nil)
	go func() {
		<-gate.Reached()
		account.Revoke()
	}()
	sb := realBox(t)
	st, err := claude.Query(t.Context(), sb, "tell me", &claude.Options{
		Endpoint: claude.Endpoint{Handler: b.With(broker.TokenOptions{Account: account})}, PermissionMode: claude.PermissionBypass,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	if _, err := st.Result(); err == nil {
		t.Error("the run succeeded")
	}
}
