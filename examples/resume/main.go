// Command resume works with Claude in one sandbox, keeps the files and the
// conversation, ends that sandbox, and goes on in another:
//
//	go run ./examples/resume
//
// What is kept is two volumes in a directory, the workspace and Claude's own record
// of the conversation. They could as well be in S3, and the second sandbox on
// another machine, or on Modal:
//
//	go run ./examples/resume -second modal
//
// With ANTHROPIC_API_KEY set the prompts go to the real model, and the key stays
// outside of the sandboxes. Without it a scripted stand-in answers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/examples/internal/model"
	"github.com/vivarium-go/vivarium/examples/internal/place"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/dirbucket"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "resume:", err)
		os.Exit(1)
	}
}

// settings are the command line's.
type settings struct{ dir, first, second, image, work, question string }

func parse(args []string, stderr io.Writer) (*settings, error) {
	s := &settings{}
	flags := flag.NewFlagSet("resume", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.dir, "dir", "", "`DIR` for the volumes and this machine's sandboxes (default: vivarium/resume in the user's cache directory)")
	flags.StringVar(&s.first, "first", "local", "where the first sandbox runs: `local or modal`")
	flags.StringVar(&s.second, "second", "local", "where the second one runs: `local or modal`")
	flags.StringVar(&s.image, "image", "", "on Modal, an `IMAGE` that has Claude Code, and node or python3 (default: node:22-slim, in which Modal installs it)")
	flags.StringVar(&s.work, "work", "write plan.md: measure twice, cut once", "the `PROMPT` for the first sandbox")
	flags.StringVar(&s.question, "question", "What did I ask you to do?", "the `PROMPT` for the second one, in the same conversation")
	if err := flags.Parse(args); err != nil {
		return nil, flag.ErrHelp
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if s.dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("there is no cache directory for this user; give -dir DIR: %w", err)
		}
		s.dir = filepath.Join(cache, "vivarium", "resume")
	}
	return s, nil
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) (err error) {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	api, err := model.OpenOr(getenv, recalling())
	if err != nil {
		return err
	}
	if api.Notice != "" {
		fmt.Fprintln(stderr, api.Notice)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "volumes"), 0o700); err != nil {
		return err
	}
	bucket, err := dirbucket.Open(filepath.Join(s.dir, "volumes"), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	w := &work{
		kept: kept{
			workspace: storage.NewVolume(bucket, "workspace", nil),
			session:   storage.NewVolume(bucket, "session", nil),
		},
		api: api.Endpoint, stdout: stdout,
	}
	at := place.Options{Dir: filepath.Join(s.dir, "sandboxes"), Image: s.image, Getenv: getenv, Progress: stderr}
	if err := inSandbox(ctx, s.first, &at, func(sb *sandbox.Sandbox) error { return w.begin(ctx, sb, s.work) }); err != nil {
		return fmt.Errorf("first sandbox: %w", err)
	}
	fmt.Fprintf(stdout, "\nThat sandbox is gone, with all that was in it. Another one, %s:\n", s.second)
	if err := inSandbox(ctx, s.second, &at, func(sb *sandbox.Sandbox) error { return w.goOn(ctx, sb, s.question) }); err != nil {
		return fmt.Errorf("second sandbox: %w", err)
	}
	return nil
}

// inSandbox does fn with a sandbox that it makes, and ends it.
func inSandbox(ctx context.Context, driver string, opts *place.Options, fn func(*sandbox.Sandbox) error) (err error) {
	at, err := place.Open(ctx, driver, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	config := *at.Sandbox
	config.Timeout = time.Hour
	sb, err := at.Provider.Create(ctx, &config)
	if err != nil {
		return err
	}
	defer func() {
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer stop()
		err = errors.Join(err, sb.Terminate(ctx), sb.Close())
	}()
	return fn(sb)
}

// work is what goes on from one sandbox to the next.
type work struct {
	kept
	api       claude.Endpoint
	sessionID string
	stdout    io.Writer
}

// begin restores what an earlier call of this program kept, lets Claude work, and keeps
// the files and the conversation.
func (w *work) begin(ctx context.Context, sb *sandbox.Sandbox, prompt string) error {
	if err := w.init(ctx, sb); err != nil {
		return err
	}
	if err := w.ask(ctx, sb, prompt); err != nil {
		return err
	}
	v, err := w.sync(ctx, sb)
	if err != nil {
		return err
	}
	fmt.Fprintf(w.stdout, "\nKept: the workspace as version %s (files: %d, bytes: %d), and conversation %s.\n", v.ID, v.Files, v.Size, w.sessionID)
	return nil
}

// goOn brings files and conversation back, and asks Claude about them.
func (w *work) goOn(ctx context.Context, sb *sandbox.Sandbox, question string) error {
	if err := w.init(ctx, sb); err != nil {
		return err
	}
	if err := w.ask(ctx, sb, question); err != nil {
		return err
	}
	fmt.Fprintln(w.stdout, "\nIts files:")
	return fs.WalkDir(sb.FS(ctx), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			fmt.Fprintln(w.stdout, " ", name)
		}
		return err
	})
}

// ask prompts Claude, in the conversation if there is one, and shows what it says.
func (w *work) ask(ctx context.Context, sb *sandbox.Sandbox, prompt string) error {
	fmt.Fprintf(w.stdout, "\n> %s\n\n", prompt)
	st, err := claude.Query(ctx, sb, prompt, &claude.Options{
		Endpoint: w.api,
		Resume:   w.sessionID,
		// The sandbox is the limit: Claude may do in it what it likes.
		PermissionMode: claude.PermissionBypass,
	})
	if err != nil {
		return err
	}
	defer st.Close()
	for text, err := range st.Text() {
		if err != nil {
			return err
		}
		fmt.Fprint(w.stdout, text)
	}
	fmt.Fprintln(w.stdout)
	result, err := st.Result()
	if err != nil {
		return err
	}
	w.sessionID = result.SessionID()
	return nil
}
