package pool_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// provider stands for localbox.Open or modalbox.Open.
func provider() *sandbox.Provider { return new(place).provider() }

func Example() {
	ctx := context.Background()
	p, err := pool.Open(ctx, &pool.Options{
		Provider: provider(),
		Idle:     30 * time.Minute,
		Save: func(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
			fmt.Println("save the workspace of", r.Owner) // such as storage.Volume.Sync
			return nil
		},
		Notify: func(ctx context.Context, e pool.Event) {
			fmt.Println("tell", e.Record.Owner, "of", e.Kind, e.Reason) // by e-mail, or in a chat
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()

	s, err := p.Create(ctx, "acme", &pool.Config{ID: "review-1", Sandbox: &sandbox.Config{Memory: 1 << 30}})
	if err != nil {
		log.Fatal(err)
	}
	_, release, err := s.Use(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("run a turn; the sandbox is not idle meanwhile")
	release()

	_, err = p.Get(ctx, "globex", "review-1")
	fmt.Println("another's is not found:", errors.Is(err, sandbox.ErrNotFound))
	if err := s.Terminate(ctx, nil); err != nil {
		log.Fatal(err)
	}
	// Output:
	// run a turn; the sandbox is not idle meanwhile
	// another's is not found: true
	// save the workspace of acme
	// tell acme of ended cancelled
}

// On Modal a sandbox lives for 24 hours. A longer lifetime is given to several, one after
// the other, of which each gets the workspace of the one before.
func ExampleOptions_rollover() {
	opts := &pool.Options{
		Provider: provider(),
		Cap:      24 * time.Hour,
		Lifetime: 7 * 24 * time.Hour,
		Save:     func(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error { return nil }, // storage.Volume.Sync
		Fill:     func(ctx context.Context, r *pool.Record, sb *sandbox.Sandbox) error { return nil }, // storage.Volume.Init
		Configure: func(ctx context.Context, r *pool.Record, c *sandbox.Config) error {
			c.Secrets["TOKEN"] = sandbox.NewSecret("of " + r.Owner) // records hold no secrets
			return nil
		},
	}
	p, err := pool.Open(context.Background(), opts)
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	// Output:
}

func ExampleSpare() {
	ctx := context.Background()
	image := sandbox.Image{Base: "node:24", Commands: []string{"RUN npm install --global typescript"}}
	p, err := pool.Open(ctx, &pool.Options{
		Provider: provider(),
		Spares:   []pool.Spare{{Config: &sandbox.Config{Image: image}, N: 3}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()

	// One of the three, if they are ready, and else one that is made.
	s, err := p.Create(ctx, "acme", &pool.Config{Sandbox: &sandbox.Config{Image: image, Timeout: time.Hour}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.HasPrefix(s.ID(), "sb-"))
	// Output: true
}

func ExampleSandbox_Terminate() {
	ctx := context.Background()
	p, err := pool.Open(ctx, &pool.Options{
		Provider: provider(),
		Save: func(context.Context, *pool.Record, *sandbox.Sandbox) error {
			return fmt.Errorf("the bucket is gone: %w", sandbox.ErrNotFound)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	s, err := p.Create(ctx, "acme", nil)
	if err != nil {
		log.Fatal(err)
	}
	var unsaved *pool.SaveError
	if err := s.Terminate(ctx, nil); errors.As(err, &unsaved) {
		fmt.Println("kept, because", unsaved.Err)
	}
	if err := s.Terminate(ctx, &pool.TerminateOptions{Unsaved: true}); err != nil {
		log.Fatal(err)
	}
	r, err := s.Record(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.State, r.End)
	// Output:
	// kept, because the bucket is gone: not found
	// terminated cancelled
}
