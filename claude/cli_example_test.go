package claude_test

import (
	"context"
	"fmt"
	"log"

	"github.com/vivarium-go/vivarium/claude"
)

// Finding the CLI, and installing it where there is none, takes no settings.
func ExampleLocate() {
	cli, err := claude.Locate(context.Background(), &claude.LocateOptions{
		Progress: func(line string) { log.Print(line) },
	})
	if err != nil {
		log.Fatal(err)
	}
	source, target := cli.Mount()
	fmt.Printf("Claude Code %s: %s, in sandboxes %s\n", cli.Version, source, target)
}
