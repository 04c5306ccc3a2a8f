//go:build linux

package localbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage/dockerfile"
)

// command does one command.
func (b *builder) command(ctx context.Context, c *dockerfile.Command) error {
	if b.cur == nil && c.Name != "FROM" && c.Name != "ARG" {
		return fmt.Errorf("%w: %s comes before FROM", driver.ErrInvalid, c.Name)
	}
	err := allowFlags(c)
	if err != nil {
		return err
	}
	switch c.Name {
	case "FROM":
		return b.doFrom(ctx, c)
	case "ARG":
		return b.doArg(c)
	case "RUN":
		return b.doRun(ctx, c)
	case "COPY":
		return b.doCopy(ctx, c)
	case "WORKDIR":
		return b.doWorkdir(ctx, c)
	case "ADD":
		return &driver.UnsupportedError{Setting: "Image.Commands", Reason: "ADD needs a build context, and there is none; " +
			"use RUN with a program that downloads, COPY --from, Config.Mounts, or write the files with Sandbox.FS"}
	}
	b.cur.changed = true
	return b.configure(c)
}

// allowed are the flags that a command may have here.
var allowed = map[string][]string{"FROM": {"platform"}, "RUN": {"network"}, "COPY": {"from", "chown", "chmod", "link"},
	"HEALTHCHECK": {"interval", "timeout", "start-period", "start-interval", "retries"}}

func allowFlags(c *dockerfile.Command) error {
	for _, f := range c.Flags {
		if !slices.Contains(allowed[c.Name], f.Name) && c.Name != "ADD" {
			return &driver.UnsupportedError{Setting: "Image.Commands", Reason: fmt.Sprintf("%s --%s is not possible here; leave the option out", c.Name, f.Name)}
		}
	}
	return nil
}

// lookup gives the value of a variable in a command. ENV wins over ARG.
func (b *builder) lookup(name string) (string, bool) {
	if b.cur == nil {
		if v, ok := b.global[name]; ok {
			return v, true
		}
		v, ok := platformArgs()[name]
		return v, ok
	}
	if v, ok := envValue(b.cur.config.Env, name); ok {
		return v, true
	}
	v, ok := b.cur.args[name]
	return v, ok
}

func envValue(env []string, name string) (string, bool) {
	for _, kv := range slices.Backward(env) {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v, true
		}
	}
	return "", false
}

func setEnv(env []string, name, value string) []string {
	env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
	return append(env, name+"="+value)
}

func (b *builder) doFrom(ctx context.Context, c *dockerfile.Command) error {
	if b.cur != nil { // what was before it is another stage
		if err := b.flush(ctx); err != nil {
			return err
		}
		b.cur = nil
	}
	words, err := c.Words(b.lookup)
	if err != nil {
		return fmt.Errorf("%w: %w", driver.ErrInvalid, err)
	}
	if p, ok := c.Flag("platform"); ok {
		if p, err = c.Expand(p, b.lookup); err != nil {
			return fmt.Errorf("%w: %w", driver.ErrInvalid, err)
		}
		if p != "linux/"+runtime.GOARCH && p != "" {
			return &driver.UnsupportedError{Setting: "Image.Commands", Reason: "FROM --platform=" + p + ": programs of this machine's kind run only, linux/" + runtime.GOARCH}
		}
	}
	name := ""
	switch {
	case len(words) == 3 && strings.EqualFold(words[1], "AS"):
		name = words[2]
	case len(words) != 1 || words[0] == "":
		return fmt.Errorf("%w: %s: use FROM image [AS name]", driver.ErrInvalid, c)
	}
	img := &b.b.Image
	if len(b.stages) == 0 && (img.Snapshot != "" || img.Base != "" && img.Base != words[0]) {
		return fmt.Errorf("%w: %s: leave either it or Image.Base and Image.Snapshot out", driver.ErrInvalid, c)
	}
	if s := b.stageNamed(words[0]); s != nil {
		return b.from(ctx, name, s.rec.ID)
	}
	return b.from(ctx, name, words[0])
}

// stageNamed finds an earlier stage.
func (b *builder) stageNamed(name string) *stage {
	for i := range b.stages {
		if s := &b.stages[i]; s != b.cur && s.name != "" && s.name == strings.ToLower(name) {
			return s
		}
	}
	return nil
}

// doArg declares variables. Build.Env and Build.Secrets give values, as docker
// build --build-arg does.
func (b *builder) doArg(c *dockerfile.Command) error {
	scope := b.global
	if b.cur != nil {
		scope = b.cur.args
	}
	words, err := c.Words(b.lookup)
	if err != nil {
		return fmt.Errorf("%w: %w", driver.ErrInvalid, err)
	}
	for _, w := range words {
		name, value, set := strings.Cut(w, "=")
		if v, ok := envValue(slices.Concat(b.b.Env, b.b.Secrets), name); ok {
			value, set = v, true
		} else if v, ok := b.global[name]; ok && !set {
			value, set = v, true
		} else if v, ok := platformArgs()[name]; ok && !set {
			value, set = v, true
		}
		if set {
			scope[name] = value
		}
	}
	return nil
}

// configure does the commands that change settings only.
func (b *builder) configure(c *dockerfile.Command) (err error) {
	cfg := &b.cur.config
	switch c.Name {
	case "ENV":
		err = b.doEnv(c)
	case "LABEL":
		err = b.label(c)
	case "MAINTAINER":
		cfg.Labels = withLabel(cfg.Labels, "maintainer", c.Rest)
	case "USER":
		cfg.User, err = b.one(c)
	case "STOPSIGNAL":
		cfg.StopSignal, err = b.one(c)
	case "EXPOSE":
		cfg.Ports, err = b.more(c, cfg.Ports)
	case "VOLUME":
		cfg.Volumes, err = b.more(c, cfg.Volumes)
	case "HEALTHCHECK":
		cfg.Health = strings.TrimPrefix(c.String(), "HEALTHCHECK ")
	case "ONBUILD":
		err = onBuild(cfg, c)
	case "SHELL":
		if cfg.Shell = c.JSON; len(c.JSON) == 0 {
			err = fmt.Errorf(`use a list such as ["/bin/sh", "-c"]`)
		}
	case "CMD":
		cfg.Command, b.cur.hasCMD = b.argv(c), true
	case "ENTRYPOINT":
		cfg.Entrypoint = b.argv(c)
		if !b.cur.hasCMD {
			cfg.Command = nil
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", driver.ErrInvalid, c, err)
	}
	return nil
}

func (b *builder) doEnv(c *dockerfile.Command) error {
	pairs, err := c.Pairs(b.lookup)
	for _, kv := range pairs {
		b.cur.config.Env = setEnv(b.cur.config.Env, kv[0], kv[1])
	}
	return err
}

func (b *builder) label(c *dockerfile.Command) error {
	pairs, err := c.Pairs(b.lookup)
	for _, kv := range pairs {
		b.cur.config.Labels = withLabel(b.cur.config.Labels, kv[0], kv[1])
	}
	return err
}

func withLabel(labels map[string]string, k, v string) map[string]string {
	if labels == nil {
		labels = make(map[string]string)
	}
	labels[k] = v
	return labels
}

// one is the only word of a command.
func (b *builder) one(c *dockerfile.Command) (string, error) {
	words, err := c.Words(b.lookup)
	if err == nil && (len(words) != 1 || words[0] == "") {
		err = fmt.Errorf("it needs one argument")
	}
	if err != nil {
		return "", err
	}
	return words[0], nil
}

func (b *builder) more(c *dockerfile.Command, list []string) ([]string, error) {
	words, err := c.Words(b.lookup)
	for _, w := range words {
		if !slices.Contains(list, w) {
			list = append(list, w)
		}
	}
	return list, err
}

func onBuild(cfg *ociimage.Config, c *dockerfile.Command) error {
	inner, err := dockerfile.Parse(c.Rest)
	if err != nil {
		return err
	}
	if len(inner) != 1 || slices.Contains([]string{"ONBUILD", "FROM", "MAINTAINER"}, inner[0].Name) {
		return fmt.Errorf("it takes one command, and not that")
	}
	cfg.OnBuild = append(cfg.OnBuild, c.Rest)
	return nil
}

// argv is the command of CMD and ENTRYPOINT.
func (b *builder) argv(c *dockerfile.Command) []string {
	if c.JSON != nil {
		return c.JSON
	}
	return append(b.shell(), c.Rest)
}

func (b *builder) shell() []string {
	if s := b.cur.config.Shell; len(s) > 0 {
		return slices.Clone(s)
	}
	return []string{"/bin/sh", "-c"}
}

// flush makes an image of the settings that have changed.
func (b *builder) flush(ctx context.Context) error {
	if !b.cur.changed {
		return nil
	}
	text, err := json.Marshal(b.cur.config)
	if err != nil {
		return err
	}
	return b.step(ctx, "Settings", []string{"config", string(text)}, func(string) (*ociimage.Record, error) {
		rec := b.cur.rec.Clone()
		rec.ID, rec.Config = "", b.cur.config
		return rec, nil
	})
}

// doWorkdir sets the directory and makes it.
func (b *builder) doWorkdir(ctx context.Context, c *dockerfile.Command) error {
	dir, err := b.one(c)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", driver.ErrInvalid, c, err)
	}
	dir = path.Clean(path.Join("/", b.cur.config.Dir, dir))
	if words, _ := c.Words(b.lookup); path.IsAbs(words[0]) {
		dir = path.Clean(words[0])
	}
	if b.cur.config.Dir != dir {
		b.cur.config.Dir, b.cur.changed = dir, true
	}
	view := ociimage.NewView(b.store.Root(b.cur.rec))
	if view.IsDir(dir) {
		return nil
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	real, err := view.Resolve(dir)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", driver.ErrInvalid, c, err)
	}
	return b.step(ctx, c.String(), []string{"mkdir", real}, func(string) (*ociimage.Record, error) {
		return b.addLayer(ctx, func(w io.Writer) error { return ociimage.WriteDir(w, real) })
	})
}

// addLayer makes an image of the current one and an archive.
func (b *builder) addLayer(ctx context.Context, write func(io.Writer) error) (*ociimage.Record, error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := write(w)
		w.CloseWithError(err)
		done <- err
	}()
	id, err := b.store.AddLayer(ctx, b.store.Root(b.cur.rec), r)
	r.Close()
	if werr := <-done; werr != nil && ctx.Err() == nil && err != nil {
		return nil, werr
	}
	if err != nil {
		return nil, err
	}
	return b.store.Lookup(id)
}
