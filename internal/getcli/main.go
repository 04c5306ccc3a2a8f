// Command getcli finds the Claude Code CLI, or installs the pinned one into the
// user's cache, and prints its path. CI uses it; programs call claude.Locate.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/vivarium-go/vivarium/claude"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	cli, err := claude.Locate(ctx, &claude.LocateOptions{
		Progress: func(line string) { fmt.Fprintln(os.Stderr, line) },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "getcli:", err)
		os.Exit(1) //nolint:gocritic // the process ends; there is nothing to stop
	}
	fmt.Println(cli.Path)
}
