package localbox_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// A sandbox for one command.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	// With nil, the state is below the user's cache directory, and a machine
	// that cannot isolate is an error.
	p, err := localbox.Open(&localbox.Options{Dir: dir, AllowUnisolated: true})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sb, err := p.Create(ctx, &sandbox.Config{Timeout: 10 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	defer sb.Close()
	out, err := sb.Command(ctx, "sh", "-c", "echo hello from process $$ | sed s/[0-9]*$/N/").Output()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(out))
	if err := sb.Terminate(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: hello from process N
}
