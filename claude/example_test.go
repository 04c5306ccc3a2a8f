package claude_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/broker"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// One prompt in a sandbox that reaches the model and nothing else. The key
// stays here.
func ExampleQuery() {
	ctx := context.Background()
	cli, err := claude.Locate(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	provider, err := localbox.Open(nil)
	if err != nil {
		log.Fatal(err)
	}
	sb, err := provider.Create(ctx, &sandbox.Config{Mounts: cli.Mounts(), Timeout: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	defer sb.Terminate(ctx)
	model, err := broker.New(&broker.Options{Key: broker.APIKey(os.Getenv("ANTHROPIC_API_KEY"))})
	if err != nil {
		log.Fatal(err)
	}

	st, err := claude.Query(ctx, sb, "write a haiku about Go into haiku.txt", &claude.Options{
		PermissionMode: claude.PermissionBypass,
		Partial:        true,
		Endpoint:       claude.Endpoint{Handler: model},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	for words, err := range st.Text() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(words)
	}
	res, err := st.Result()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("\n%d turns, $%.4f\n", res.Turns, res.CostUSD)
}

// What Claude does, as it does it.
func ExampleStream_Messages() {
	var st *claude.Stream // from Query or Session.Query
	for msg, err := range st.Messages() {
		if err != nil {
			log.Fatal(err)
		}
		switch msg := msg.(type) {
		case *claude.AssistantMessage:
			for _, block := range msg.Content() {
				switch block.Type {
				case claude.BlockText:
					fmt.Println(block.Text)
				case claude.BlockToolUse:
					fmt.Printf("%s %s\n", block.Name, block.Input)
				}
			}
		case *claude.ResultMessage:
			fmt.Println("done")
		}
	}
}

// Several turns over one process, and the conversation taken up again later.
func ExampleClient_NewSession() {
	ctx := context.Background()
	var sb *sandbox.Sandbox // from a Provider
	client := claude.NewClient(sb, &claude.Options{PermissionMode: claude.PermissionAcceptEdits})
	session, err := client.NewSession(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, prompt := range []string{"find the failing test", "now fix it"} {
		turn, err := session.Query(ctx, prompt)
		if err != nil {
			log.Fatal(err)
		}
		res, err := turn.Result()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(res.Text)
	}
	id := session.ID()
	if err := session.Close(); err != nil {
		log.Fatal(err)
	}
	session, err = client.Resume(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
}

// A turn that failed says why, and what it cost.
func ExampleResultError() {
	var st *claude.Stream // from Query or Session.Query
	_, err := st.Result()
	var failed *claude.ResultError
	switch {
	case err == nil:
		fmt.Println("done")
	case errors.As(err, &failed) && failed.Temporary():
		fmt.Println("try again later:", failed.Kind)
	case errors.As(err, &failed):
		fmt.Printf("failed after $%.2f: %v\n", failed.Result.CostUSD, failed)
	default:
		fmt.Println("nobody knows what was done:", err)
	}
}

// A line that was kept is read like one that comes from a stream.
func ExampleDecode() {
	msg, err := claude.Decode([]byte(`{"message":{"content":[{"type":"text","text":"Hello"}]},"session_id":"s-1","type":"assistant"}`))
	if err != nil {
		log.Fatal(err)
	}
	if said, ok := msg.(*claude.AssistantMessage); ok {
		fmt.Println(said.SessionID(), said.Content().Text())
	}
	// Output: s-1 Hello
}

// Every ending has one word, for events and metrics.
func ExampleEndOf() {
	fmt.Println(claude.EndOf(nil))
	fmt.Println(claude.EndOf(&claude.ResultError{Kind: claude.KindMaxTurns, Result: &claude.ResultMessage{}}))
	fmt.Println(claude.EndOf(&claude.EndError{Err: context.Canceled}))
	// Output:
	// completed
	// budget
	// cancelled
}
