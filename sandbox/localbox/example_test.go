package localbox_test

import (
	"context"
	"errors"
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

// Whatever runs in a sandbox, somebody who only knows its id can end it.
func ExampleTerminate() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	p, err := localbox.Open(&localbox.Options{Dir: dir, AllowUnisolated: true})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sb, err := p.Create(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer sb.Close()
	if err := localbox.Terminate(ctx, p, sb.ID()); err != nil {
		log.Fatal(err)
	}
	_, err = p.Attach(ctx, sb.ID())
	fmt.Println(errors.Is(err, sandbox.ErrEnded))
	// Output: true
}
