// Command modalemu serves Modal's protocol on this machine, for clients that
// are told so by MODAL_SERVER_URL.
//
//	modalemu -listen 127.0.0.1:8787 -base host -secret aws=KEY=VALUE -proxy my-proxy
//
// It prints one line when it is ready to serve, and ends with SIGTERM or
// SIGINT, when it has ended every sandbox.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/vivarium-go/vivarium/internal/modalemu"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := followGoRun()
	if err == nil {
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// errUsage is a mistake in the flags, which package flag has told about.
var errUsage = errors.New("usage")

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opts, err := parse(args, stderr)
	if err != nil {
		return err
	}
	s, err := modalemu.Start(opts)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "modalemu: serving Modal's API on %s\n", s.URL()); err != nil {
		return errors.Join(err, s.Close())
	}
	<-ctx.Done()
	err = s.Close()
	awaitChildren()
	return err
}

func parse(args []string, stderr io.Writer) (*modalemu.Options, error) {
	given := &secrets{byName: make(map[string]map[string]string)}
	opts := &modalemu.Options{Secrets: given.byName}
	level := slog.LevelWarn
	f := flag.NewFlagSet("modalemu", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&opts.Listen, "listen", "127.0.0.1:0", "loopback `address` to listen on; port 0 picks one")
	f.StringVar(&opts.State, "state", "", "`directory` in which apps, images, secrets and volumes survive; empty: nothing does")
	f.StringVar((*string)(&opts.Base), "base", string(modalemu.SourcePull), "what an image's FROM is: pull, the image from its registry, or host, this machine's programs")
	f.Var(given, "secret", "`NAME=KEY=VALUE` of a secret that is there; repeat it for more keys and more secrets")
	f.Func("proxy", "`name` of a proxy that is there; repeat it for more", func(name string) error {
		if name == "" {
			return errors.New("a proxy needs a name")
		}
		opts.Proxies = append(opts.Proxies, name)
		return nil
	})
	f.Func("environment", "`name` of an environment that is there besides main; repeat it for more", func(name string) error {
		opts.Environments = append(opts.Environments, name)
		return nil
	})
	f.TextVar(&level, "log", level, "`level` of what is logged to stderr: debug, info, warn or error")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil, err
	case err != nil:
		return nil, errUsage
	case given.err != nil:
		return nil, given.err
	case f.NArg() > 0:
		return nil, fmt.Errorf("modalemu: unexpected argument %q", f.Arg(0))
	}
	opts.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	return opts, nil
}

// secrets is the value of -secret. A mistake is kept for later, as package flag
// would print the value with it.
type secrets struct {
	byName map[string]map[string]string
	err    error
}

func (s *secrets) String() string { return "" }

func (s *secrets) Set(text string) error {
	parts := strings.SplitN(text, "=", 3)
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" {
		s.err = errors.New("modalemu: -secret wants NAME=KEY=VALUE")
		return nil
	}
	if s.byName[parts[0]] == nil {
		s.byName[parts[0]] = make(map[string]string)
	}
	s.byName[parts[0]][parts[1]] = parts[2]
	return nil
}
