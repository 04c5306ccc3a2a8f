package vivarium_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

// agent is README's program; TestReadme compares them, and TestAgent runs it.
func agent(ctx context.Context, prompt string, model claude.Endpoint) error {
	p, err := localbox.Open(nil) // sandboxes on this machine
	if err != nil {
		return err
	}
	defer p.Close()
	cli, err := claude.Locate(ctx, nil) // Claude Code, installed if need be
	if err != nil {
		return err
	}
	sb, err := p.Create(ctx, &sandbox.Config{Mounts: cli.Mounts(), Timeout: time.Hour})
	if err != nil {
		return err
	}
	defer sb.Terminate(context.WithoutCancel(ctx))

	st, err := claude.Query(ctx, sb, prompt, &claude.Options{
		Endpoint:       model, // a broker.Broker holds the key out here
		PermissionMode: claude.PermissionBypass,
	})
	if err != nil {
		return err
	}
	defer st.Close()
	for words, err := range st.Text() {
		if err != nil {
			return err
		}
		fmt.Print(words)
	}
	res, err := st.Result()
	if err != nil {
		return err
	}
	fmt.Printf("\n%d turns, $%.4f\n", res.Turns, res.CostUSD)
	return nil
}

func TestAgent(t *testing.T) {
	cli := clitest.CLI(t)
	sandboxtest.New(t, nil) // skips where there is no isolation
	clitest.OnPath(t, cli)
	model := claude.Endpoint{Handler: claudetest.NewHandler(claudetest.Prompted(), nil)}
	if err := agent(t.Context(), "run: echo it works", model); err != nil {
		t.Fatal(err)
	}
}
