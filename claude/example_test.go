package claude_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/broker"
	"github.com/vivarium-go/vivarium/claude/runlog"
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

// A run that goes on when this program is killed: started again, it takes over, and
// the log of the run is whole. Only a broker whose Key is given again is needed for it.
func ExampleClient_Start() {
	ctx := context.Background()
	var sb *sandbox.Sandbox // from Provider.Attach, as it may be there from before
	var opts claude.Options // the same as before
	logs, err := runlog.Open("/var/lib/example/runs")
	if err != nil {
		log.Fatal(err)
	}
	w, err := logs.Write(ctx, "run-7") // nobody else has it then
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	opts.Journal = runlog.NewJournal(ctx, w)

	client := claude.NewClient(sb, &opts)
	st, err := client.Start(ctx, "run-7", "build the release")
	if errors.Is(err, fs.ErrExist) {
		st, err = client.Adopt(ctx, "run-7")
	}
	if err != nil {
		log.Fatal(err)
	}
	_, err = st.Result()
	if errors.Is(err, claude.ErrDetached) {
		return // it goes on: Adopt it later
	}
	if err := w.Finish(ctx, runlog.End{Reason: claude.EndOf(err)}); err != nil {
		log.Fatal(err)
	}
}

// What needs an approval ends the run, and the sandbox with it. The question is kept for
// whoever has to answer it.
func ExampleOptions_defer() {
	ctx := context.Background()
	var sb *sandbox.Sandbox
	var keep func(ctx context.Context, sb *sandbox.Sandbox) error // workspace and conversation, as examples/resume does it
	st, err := claude.Query(ctx, sb, "release version 1.2", &claude.Options{
		PermissionMode: claude.PermissionBypass,
		Defer: func(_ context.Context, use *claude.ToolRequest) (bool, error) {
			return use.Tool == "Bash" && strings.Contains(string(use.Input), "git push"), nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	res, err := st.Result()
	if err != nil {
		log.Fatal(err)
	}
	if use := res.DeferredToolUse; use != nil {
		if err := keep(ctx, sb); err != nil {
			log.Fatal(err)
		}
		if err := sb.Terminate(ctx); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("conversation %s asks about %s: %s wants %s\n", res.SessionID(), use.ID, use.Name, use.Input)
	}
}

// The answer, days later, in a sandbox to which the workspace and the conversation were
// restored. Without a prompt Claude goes on with what it was about to do.
func ExampleOptions_answers() {
	ctx := context.Background()
	var sb *sandbox.Sandbox
	var conversation, use string // as kept with the question
	st, err := claude.Query(ctx, sb, "", &claude.Options{
		PermissionMode: claude.PermissionBypass,
		Resume:         conversation,
		Answers:        map[string]*claude.Permission{use: claude.Deny("not on a Friday")},
	})
	if errors.Is(err, claude.ErrNotDeferred) {
		log.Fatal("it was answered before")
	}
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	if _, err := st.Result(); err != nil {
		log.Fatal(err)
	}
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

// A picture and a document with a prompt.
func ExampleSession_Query() {
	var session *claude.Session // from Client.NewSession
	screenshot, err := os.ReadFile("screenshot.png")
	if err != nil {
		log.Fatal(err)
	}
	turn, err := session.Query(context.Background(), "what is wrong here?",
		claude.Image("image/png", screenshot),
		claude.Document("log", "text/plain", []byte("error: …")))
	if err != nil {
		log.Fatal(err)
	}
	res, err := turn.Result()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Text)
}

// The end of a turn is not the end of what it began.
func ExampleSession_WaitIdle() {
	ctx := context.Background()
	var session *claude.Session // from Client.NewSession
	turn, err := session.Query(ctx, "run the tests in the background")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := turn.Result(); err != nil {
		log.Fatal(err)
	}
	if err := session.WaitIdle(ctx); err != nil { // the tests have run, and Claude has said what came of them
		log.Fatal(err)
	}
}

// What no method is there for.
func ExampleSession_Control() {
	var session *claude.Session // from Client.NewSession
	var cost struct {
		Text string `json:"text"`
	}
	if err := session.Control(context.Background(), "get_session_cost", nil, &cost); err != nil {
		log.Fatal(err)
	}
	fmt.Println(cost.Text)
}

// An answer as a Go value.
func ExampleQueryAs() {
	type review struct {
		Verdict string   `json:"verdict" jsonschema:"approve or reject"`
		Reasons []string `json:"reasons"`
	}
	var sb *sandbox.Sandbox // from a Provider
	r, _, err := claude.QueryAs[review](context.Background(), sb, "review the last commit", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Verdict, r.Reasons)
}

// The schema of a type, and the output of a turn that followed it.
func ExampleDecodeOutput() {
	type place struct {
		City string `json:"city"`
	}
	schema, err := claude.SchemaFor[place]()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(schema.Type, schema.Required)
	msg, err := claude.Decode([]byte(`{"type":"result","subtype":"success","structured_output":{"city":"Bern"}}`))
	if err != nil {
		log.Fatal(err)
	}
	p, err := claude.DecodeOutput[place](msg.(*claude.ResultMessage))
	fmt.Println(p.City, err)
	// Output:
	// object [city]
	// Bern <nil>
}

// Somebody is asked before Claude does something, and is told what it did.
func ExampleOptions() {
	opts := &claude.Options{
		CanUseTool: func(ctx context.Context, use *claude.ToolRequest) (*claude.Permission, error) {
			fmt.Println(use.Title, string(use.Input))
			if use.Tool == "Read" {
				return claude.Allow(), nil
			}
			return claude.Deny("only reading is allowed here"), nil
		},
		Hooks: map[claude.HookEvent][]claude.Hook{
			claude.HookPostToolUse: {{Matcher: "Edit|Write", Func: func(_ context.Context, in *claude.HookInput) (*claude.HookOutput, error) {
				log.Printf("%s: %s", in.Tool, in.ToolInput)
				return nil, nil
			}}},
		},
	}
	var sb *sandbox.Sandbox // from a Provider
	st, err := claude.Query(context.Background(), sb, "tidy up", opts)
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
}

// A conversation goes on in another sandbox.
func ExampleClient_ExportSession() {
	ctx := context.Background()
	var before, after *sandbox.Sandbox // from Providers
	old := claude.NewClient(before, nil)
	sessions, err := old.ListSessions(ctx)
	if err != nil || len(sessions) == 0 {
		log.Fatal("nothing to go on with: ", err)
	}
	var archive bytes.Buffer // or a file
	if err := old.ExportSession(ctx, sessions[0].ID, &archive); err != nil {
		log.Fatal(err)
	}
	client := claude.NewClient(after, nil)
	id, err := client.ImportSession(ctx, &archive)
	if err != nil {
		log.Fatal(err)
	}
	session, err := client.Resume(ctx, id)
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
