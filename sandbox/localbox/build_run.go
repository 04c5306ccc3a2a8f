//go:build linux

package localbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage/dockerfile"
)

// buildName is what the names of sandboxes begin with in which a RUN runs.
const buildName = "vivarium-build-"

// runLifetime bounds one RUN when the context of the build does not.
const runLifetime = 6 * time.Hour

// doRun runs a command in a sandbox and keeps what it has changed.
func (b *builder) doRun(ctx context.Context, c *dockerfile.Command) error {
	if err := b.flush(ctx); err != nil {
		return err
	}
	mode := driver.NetworkFull
	switch n, _ := c.Flag("network"); n {
	case "", "default":
	case "none":
		mode = driver.NetworkNone
	default:
		return &driver.UnsupportedError{Setting: "Image.Commands", Reason: "RUN --network=" + n + ": a sandbox never gets this machine's network; leave the option out"}
	}
	argv, script := b.runArgs(c)
	env := b.runEnv()
	parts := slices.Concat([]string{"run", fmt.Sprint(mode), script}, argv, []string{"with"}, env)
	return b.step(ctx, c.String(), parts, func(key string) (*ociimage.Record, error) {
		r := &runStep{b: b, argv: argv, script: script, env: env}
		return r.do(ctx, &driver.Config{
			Name:    buildName + key,
			Image:   driver.Image{Snapshot: b.cur.rec.ID},
			Dir:     b.runDir(),
			Memory:  buildLimit(b.p.image.opts.BuildMemory),
			Disk:    buildLimit(b.p.image.opts.BuildDisk),
			Pids:    4096,
			Timeout: runLifetime,
			Network: driver.Network{Mode: mode},
		})
	})
}

func (b *builder) runDir() string {
	if dir := b.cur.config.Dir; dir != "" {
		return dir
	}
	return "/"
}

// runArgs is what a RUN runs; script, if there is one, is a program that has to
// be put where argv ends.
func (b *builder) runArgs(c *dockerfile.Command) (argv []string, script string) {
	if c.JSON != nil {
		return c.JSON, ""
	}
	text := c.Rest
	if len(c.Heredocs) == 1 && dockerfile.IsHeredoc(strings.TrimSpace(c.Rest)) {
		body := c.Heredocs[0].Text
		if strings.HasPrefix(body, "#!") {
			return nil, body
		}
		return append(b.shell(), body), ""
	}
	for _, h := range c.Heredocs {
		text += "\n" + h.Text + h.Name
	}
	return append(b.shell(), text), ""
}

// runEnv is what a RUN has in its environment beside the image's.
func (b *builder) runEnv() []string {
	var env []string
	for name, value := range b.cur.args {
		if _, ok := envValue(b.cur.config.Env, name); !ok {
			env = append(env, name+"="+value)
		}
	}
	slices.Sort(env)
	return slices.Concat(env, b.b.Env, b.b.Secrets)
}

// runStep is one RUN.
type runStep struct {
	b         *builder
	argv, env []string
	script    string
}

func (r *runStep) do(ctx context.Context, cfg *driver.Config) (rec *ociimage.Record, err error) {
	box, err := r.create(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonPatience)
		defer cancel()
		err = errors.Join(err, box.Terminate(end), box.Close())
	}()
	if r.script != "" {
		if err := r.putScript(ctx, box); err != nil {
			return nil, err
		}
	}
	if err := r.run(ctx, box); err != nil {
		return nil, err
	}
	if r.script != "" {
		if err := box.Files().Remove(ctx, r.argv[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	s, ok := box.(driver.Snapshotter)
	if !ok {
		return nil, &driver.UnsupportedError{Setting: "Image.Commands"}
	}
	id, err := s.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return r.b.store.Lookup(id)
}

// create makes the sandbox. One that has its name already belongs to a build that
// died: while it lives it has the lock that this one has now.
func (r *runStep) create(ctx context.Context, cfg *driver.Config) (driver.Sandbox, error) {
	p := r.b.p
	box, err := p.Create(ctx, cfg)
	if !errors.Is(err, driver.ErrNameInUse) {
		return box, err
	}
	id, err := p.Lookup(ctx, cfg.Name)
	if err == nil {
		err = p.Terminate(ctx, id)
	}
	if err != nil && !errors.Is(err, driver.ErrNotFound) {
		return nil, err
	}
	return p.Create(ctx, cfg)
}

// putScript writes the program that the command holds.
func (r *runStep) putScript(ctx context.Context, box driver.Sandbox) error {
	const name = "/tmp/vivarium-run"
	f, err := box.Files().OpenFile(ctx, name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, r.script)
	r.argv = []string{name}
	return errors.Join(err, f.Close())
}

// outputPatience is how long the output of a command may be open after its end:
// something that it has started may hold it.
const outputPatience = 2 * time.Second

// run runs the command to its end.
func (r *runStep) run(ctx context.Context, box driver.Sandbox) error {
	proc, err := box.Start(ctx, &driver.Exec{Args: r.argv, Env: r.env, Dir: r.b.runDir(), Stdout: true, Merge: true})
	if err != nil {
		return err
	}
	out := newTail(r.b.log, r.b.b.Secrets)
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(out, proc.Stdout()) // it ends with the command, or with Close
	}()
	exit, err := proc.Wait(ctx)
	timer := time.NewTimer(outputPatience)
	defer timer.Stop()
	select {
	case <-copied:
	case <-timer.C:
	case <-ctx.Done():
	}
	proc.Stdout().Close()
	<-copied
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return describeExit(exit, out.String())
}

// describeExit is the error of a command that failed.
func describeExit(exit driver.Exit, tail string) error {
	var how string
	switch {
	case exit.OOM:
		how = "out of memory (ImageOptions.BuildMemory)"
	case exit.Signal != 0:
		how = "ended by signal: " + exit.Signal.String()
	case exit.Code != 0:
		how = fmt.Sprintf("exit status %d", exit.Code)
	default:
		return nil
	}
	if tail = strings.TrimRight(tail, "\n"); tail != "" {
		how += "\n" + tail
	}
	return errors.New(how)
}
