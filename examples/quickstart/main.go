// Command quickstart runs Claude once, in a sandbox that cannot touch this
// machine, and shows what it does and what it changed:
//
//	go run ./examples/quickstart "make a file hello.txt"
//
// With ANTHROPIC_API_KEY set the prompt goes to the real model, and the key
// stays outside of the sandbox. Without it a scripted stand-in answers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/examples/internal/model"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

const usage = `usage: quickstart [-dir DIR] PROMPT

Runs Claude on PROMPT in a sandbox and lists the files it changed.

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// run writes Claude's words to stdout, and what goes on around them to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "", "where sandboxes keep their state (default: in the user's cache directory)")
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	prompt := strings.Join(flags.Args(), " ")
	if prompt == "" {
		flags.Usage()
		return flag.ErrHelp
	}
	api, err := model.Open(os.Getenv)
	if err != nil {
		return err
	}
	if api.Notice != "" {
		fmt.Fprintln(stderr, api.Notice)
	}
	cli, err := claude.Locate(ctx, &claude.LocateOptions{
		Progress: func(line string) { fmt.Fprintln(stderr, line) },
	})
	if err != nil {
		return err
	}
	p, err := localbox.Open(&localbox.Options{Dir: *dir})
	if err != nil {
		return err
	}
	defer p.Close()
	sb, err := p.Create(ctx, &sandbox.Config{Mounts: cli.Mounts(), Timeout: time.Hour})
	if err != nil {
		return err
	}
	defer func() {
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer stop()
		err = errors.Join(err, sb.Terminate(ctx))
	}()
	return prompted(ctx, sb, prompt, api.Endpoint, stdout, stderr)
}

// prompted runs the prompt and lists what it changed, also where it failed.
func prompted(ctx context.Context, sb *sandbox.Sandbox, prompt string, api claude.Endpoint, stdout, stderr io.Writer) error {
	before, err := listing(sb.FS(ctx))
	if err != nil {
		return err
	}
	runErr := stream(ctx, sb, prompt, api, stdout, stderr)
	after, err := listing(sb.FS(context.WithoutCancel(ctx)))
	if err != nil {
		return errors.Join(runErr, err)
	}
	fmt.Fprintln(stderr)
	for _, line := range changes(before, after) {
		fmt.Fprintln(stdout, line)
	}
	return runErr
}

// stream shows Claude's words as they come, and one line for each tool it uses.
func stream(ctx context.Context, sb *sandbox.Sandbox, prompt string, api claude.Endpoint, stdout, stderr io.Writer) error {
	st, err := claude.Query(ctx, sb, prompt, &claude.Options{
		Endpoint: api,
		Partial:  true,
		// The sandbox is the limit: Claude may do in it what it likes.
		PermissionMode: claude.PermissionBypass,
	})
	if err != nil {
		return err
	}
	defer st.Close()
	for msg, err := range st.Messages() {
		if err != nil {
			return err
		}
		switch msg := msg.(type) {
		case *claude.StreamEvent:
			fmt.Fprint(stdout, msg.Text)
		case *claude.AssistantMessage:
			showTools(stdout, stderr, msg.Content())
		case *claude.UserMessage:
			showFailures(stderr, msg.Content())
		}
	}
	res, err := st.Result()
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "\n%d turns, %s, $%.4f\n", res.Turns, res.Duration.Round(time.Millisecond), res.CostUSD)
	return nil
}

func showTools(stdout, stderr io.Writer, content claude.Content) {
	for _, block := range content {
		switch block.Type {
		case claude.BlockText:
			fmt.Fprintln(stdout) // its words came as stream events
		case claude.BlockToolUse:
			fmt.Fprintf(stderr, "* %s %s\n", block.Name, shorten(string(block.Input)))
		}
	}
}

func showFailures(stderr io.Writer, content claude.Content) {
	for _, block := range content.ToolResults() {
		if block.IsError {
			fmt.Fprintf(stderr, "  failed: %s\n", shorten(block.Content.Text()))
		}
	}
}

const shown = 160 // characters of a tool's input or result

func shorten(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > shown {
		s = string(r[:shown]) + "…"
	}
	return s
}
