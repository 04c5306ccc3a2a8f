package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
)

// keeping is the program that is the CLI in the sandboxes. A server removes the job of a
// run that has ended: so it keeps two of the job's files, under names of its own, and
// notes that it was started.
const keeping = `#!/bin/sh
job=$(readlink /proc/$$/fd/1)
job=${job%/out}
kept=` + keptDir + `/${job##*/}
mkdir -p "$kept"
echo started >>"$kept/starts"
ln "$job/out" "$job/exit" "$kept/" || exit 70
exec ` + claude.CLITarget + ` "$@"
`

const (
	keptDir    = "/tmp/kept"
	keepingCLI = "/opt/torture/claude"
)

// mounts gives what is in every sandbox: the CLI, and what keeps.
func mounts(t *testing.T, cli *claude.CLI) []sandbox.Mount {
	t.Helper()
	script := filepath.Join(t.TempDir(), "claude")
	if err := os.WriteFile(script, []byte(keeping), 0o755); err != nil {
		t.Fatal(err)
	}
	return append(cli.Mounts(), sandbox.Mount{Source: script, Target: keepingCLI})
}

// box is a sandbox, from its creation to its deletion.
type box struct {
	*torture
	name string
	runs []*run
	id   string
	sb   *sandbox.Sandbox // for looking into
}

// run is a run of it, and all that is known of it in the end.
type run struct {
	b         *box
	key, body string
	file      string // what it writes
	asks      bool   // whether it may run a command
	path      string
	followers [2]follower
	journal   string
}

func (t *torture) newBox(i int) *box { return &box{torture: t, name: fmt.Sprint("box-", i)} }

// addRun adds a run that runs commands, each of which leaves a line in a file.
func (b *box) addRun(i int) {
	r := &run{b: b, key: fmt.Sprint("run-", i), file: fmt.Sprint("done-", i), asks: i%3 == 1}
	var prompt strings.Builder
	for step := range steps {
		fmt.Fprintf(&prompt, "run: echo %d >>%s\n", step, r.file)
	}
	body := map[string]string{"prompt": prompt.String()}
	if r.asks {
		body["permission_mode"] = "default"
	}
	data, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	r.body = string(data)
	b.runs = append(b.runs, r)
}

// live makes the sandbox, has its runs run, looks at what they have left, and deletes it.
func (b *box) live(ctx context.Context) (err error) {
	if b.id, err = b.c.create(ctx, b.name); err != nil {
		return fmt.Errorf("%s: %w", b.name, err)
	}
	if b.sb, err = b.find(ctx); err != nil {
		return fmt.Errorf("%s was made: %w", b.id, err)
	}
	defer b.sb.Close()
	b.progress.Add(boxLines)
	var all errgroup.Group
	for _, r := range b.runs {
		all.Go(func() error { return r.live(ctx) })
	}
	if err := all.Wait(); err != nil {
		return err
	}
	for _, r := range b.runs {
		if err := r.look(ctx); err != nil {
			return err
		}
	}
	if err := b.c.ask(ctx, &request{method: http.MethodDelete, path: "/sandbox/" + b.id}, nil); err != nil {
		return fmt.Errorf("delete %s: %w", b.id, err)
	}
	b.progress.Add(boxLines)
	switch _, err := b.find(ctx); {
	case err == nil:
		return fmt.Errorf("%s was deleted and is there", b.id)
	case !errors.Is(err, sandbox.ErrNotFound) && !errors.Is(err, sandbox.ErrEnded):
		return err
	}
	return nil
}

// find attaches to the sandbox.
func (b *box) find(ctx context.Context) (*sandbox.Sandbox, error) {
	for info, err := range b.p.List(ctx, &sandbox.ListOptions{Tags: map[string]string{"vivarium.id": b.id}}) {
		if err != nil {
			return nil, err
		}
		return b.p.Attach(ctx, info.ID)
	}
	return nil, sandbox.ErrNotFound
}

// live begins the run and follows it to its end.
func (r *run) live(ctx context.Context) error {
	id, err := r.b.c.prompt(ctx, "/sandbox/"+r.b.id, r.key, r.body)
	if err != nil {
		return fmt.Errorf("begin %s: %w", r.key, err)
	}
	r.path = "/sandbox/" + r.b.id + "/runs/" + id
	var all errgroup.Group
	for i := range r.followers {
		f := &r.followers[i]
		f.c, f.path, f.newLine, f.ended = r.b.c, r.path+"/events", func() {}, func() error { return r.exited(ctx) }
		if i == 0 {
			f.newLine = func() { r.b.progress.Add(1) }
		}
		all.Go(func() error { return f.follow(ctx) })
	}
	if r.asks {
		all.Go(func() error { return r.b.c.approve(ctx, r.path) })
	}
	return all.Wait()
}

// kept reads what the run's program has kept.
func (r *run) kept(ctx context.Context, name string) (string, error) {
	data, err := r.b.sb.FSAt(ctx, keptDir).ReadFile(path.Join(path.Base(r.path), name))
	return string(data), err
}

// exited wants the record of the job's exit.
func (r *run) exited(ctx context.Context) error {
	exit, err := r.kept(ctx, "exit")
	if err == nil && !strings.HasPrefix(exit, "0 end 0 end\n") {
		err = fmt.Errorf("the job's record of its exit is %q", strings.TrimSpace(exit))
	}
	return err
}

// look looks at what the run has left in its sandbox, which is there for a moment more.
func (r *run) look(ctx context.Context) (err error) {
	t := r.b.torture
	if r.journal, err = r.kept(ctx, "out"); err != nil {
		return err
	}
	t.same(r.key+", the first follower", r.followers[0].got.String(), r.journal)
	t.same(r.key+", the second follower", r.followers[1].got.String(), r.journal)
	starts, err := r.kept(ctx, "starts")
	if err != nil {
		return err
	}
	t.same(r.key+", starts of the CLI", starts, "started\n")
	var want strings.Builder
	for step := range steps {
		fmt.Fprintln(&want, step)
	}
	did, err := r.b.sb.FS(ctx).ReadFile(r.file)
	if err != nil {
		return err
	}
	t.same(r.key+", what Claude did", string(did), want.String())
	// The key of a run that has ended still is that run's.
	again, err := r.b.c.prompt(ctx, "/sandbox/"+r.b.id, r.key, r.body)
	if err != nil {
		return err
	}
	t.same(r.key+", its id", again+"\n", path.Base(r.path)+"\n")
	return r.b.oneEach(ctx)
}

// oneEach wants as many runs as were begun.
func (b *box) oneEach(ctx context.Context) error {
	var list struct{ Runs []record }
	if err := b.c.ask(ctx, &request{method: http.MethodGet, path: "/sandbox/" + b.id + "/runs"}, &list); err != nil {
		return err
	}
	var got, want strings.Builder
	for _, r := range list.Runs {
		fmt.Fprintln(&got, r.ID)
	}
	for _, r := range b.runs {
		fmt.Fprintln(&want, path.Base(r.path))
	}
	b.sameSet(b.name+", its runs", got.String(), want.String())
	return nil
}
