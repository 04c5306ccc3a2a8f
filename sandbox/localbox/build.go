//go:build linux

package localbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/ociimage/dockerfile"
)

// builder carries one build.
type builder struct {
	p      *provider
	store  *ociimage.Store
	b      *driver.Build
	log    io.Writer // without secrets; never nil
	holds  []*os.File
	global map[string]string // the values of ARG before the first FROM
	stages []stage
	cur    *stage
}

// stage is what follows one FROM.
type stage struct {
	name    string
	rec     *ociimage.Record // what is there already
	config  ociimage.Config  // rec's, and what commands since have changed in it
	changed bool
	args    map[string]string
	hasCMD  bool // CMD was in this stage
}

// build makes an image, or finds it.
func (p *provider) build(ctx context.Context, b *driver.Build) (*ociimage.Record, *ociimage.Store, error) {
	if p.plain {
		return nil, nil, &driver.UnsupportedError{Setting: "Image", Reason: "plain processes have this machine's files"}
	}
	store, err := p.images()
	if err != nil {
		return nil, nil, err
	}
	commands, err := dockerfile.Parse(strings.Join(b.Image.Commands, "\n"))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: Image.Commands: %w", driver.ErrInvalid, err)
	}
	log := newRedactor(b.Log, b.Secrets)
	defer log.Flush()
	run := &builder{p: p, store: store, b: b, log: log, global: make(map[string]string)}
	defer run.letGo()
	rec, err := run.run(ctx, commands)
	return rec, store, err
}

func (b *builder) letGo() {
	for _, f := range b.holds {
		f.Close()
	}
}

func (b *builder) logf(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

func (b *builder) run(ctx context.Context, commands []dockerfile.Command) (*ociimage.Record, error) {
	if !startsFrom(commands) {
		if err := b.begin(ctx); err != nil {
			return nil, err
		}
	}
	for i := range commands {
		if err := b.command(ctx, &commands[i]); err != nil {
			return nil, err
		}
	}
	if b.cur == nil {
		return nil, fmt.Errorf("%w: Image.Commands: there is no FROM", driver.ErrInvalid)
	}
	if err := b.flush(ctx); err != nil {
		return nil, err
	}
	return b.named(ctx)
}

// named gives the result an id of its own, which somebody may keep and delete: the
// steps on the way belong to every build that has them.
func (b *builder) named(ctx context.Context) (*ociimage.Record, error) {
	rec := b.cur.rec
	if !rec.Step {
		return rec, nil
	}
	key := b.store.Key("named", rec.ID)
	lock, err := b.store.Lock(ctx, "named-"+key)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if old, err := b.store.Find(key); !errors.Is(err, driver.ErrNotFound) {
		return old, err
	}
	end := rec.Clone()
	end.ID, end.Step, end.Parent = "", false, rec.ID
	if err := b.store.Put(ctx, end); err != nil {
		return nil, err
	}
	return end, b.store.SetKey(ctx, key, end.ID)
}

// startsFrom reports whether the commands name their base themselves.
func startsFrom(commands []dockerfile.Command) bool {
	for _, c := range commands {
		if c.Name != "ARG" {
			return c.Name == "FROM"
		}
	}
	return false
}

// begin starts with what the image names as its base.
func (b *builder) begin(ctx context.Context) error {
	img := &b.b.Image
	switch {
	case img.Snapshot != "" && !ociimage.IsID(img.Snapshot):
		return &driver.UnsupportedError{Setting: "Image.Commands",
			Reason: "a snapshot of a sandbox without an image cannot be built on; create the sandbox with Image.Base " + HostRoot}
	case img.Snapshot != "":
		return b.from(ctx, "", img.Snapshot)
	case isMachine(img.Base):
		return b.from(ctx, "", HostRoot)
	}
	return b.from(ctx, "", img.Base)
}

// from begins a stage.
func (b *builder) from(ctx context.Context, name, base string) error {
	rec, err := b.image(ctx, base)
	if err != nil {
		return err
	}
	b.stages = append(b.stages, stage{name: strings.ToLower(name), args: make(map[string]string)})
	b.cur = &b.stages[len(b.stages)-1]
	b.use(rec)
	triggers := b.cur.config.OnBuild
	if len(triggers) == 0 || len(b.b.Image.Commands) == 0 {
		return nil
	}
	b.cur.config.OnBuild, b.cur.changed = nil, true
	commands, err := dockerfile.Parse(strings.Join(triggers, "\n"))
	if err != nil {
		return fmt.Errorf("%w: ONBUILD of %s: %w", driver.ErrInvalid, base, err)
	}
	for i := range commands {
		if err := b.command(ctx, &commands[i]); err != nil {
			return fmt.Errorf("ONBUILD of %s: %w", base, err)
		}
	}
	return nil
}

// use goes on from an image that is held.
func (b *builder) use(rec *ociimage.Record) {
	b.cur.rec, b.cur.config, b.cur.changed = rec, rec.Clone().Config, false
}

// hold keeps an image until the build has ended.
func (b *builder) hold(rec *ociimage.Record) error {
	f, err := ociimage.Hold(b.store.Root(rec))
	if err == nil {
		b.holds = append(b.holds, f)
	}
	return err
}

// image finds what FROM and COPY --from name, and holds it.
func (b *builder) image(ctx context.Context, ref string) (*ociimage.Record, error) {
	if id, ok := b.b.Images[ref]; ok {
		ref = id
	}
	rec, err := b.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	return rec, b.hold(rec)
}

func (b *builder) find(ctx context.Context, ref string) (*ociimage.Record, error) {
	switch {
	case ociimage.IsID(ref):
		return b.store.Lookup(ref)
	case ref == HostRoot || ref == "host":
		return b.bare(ctx, "host", &ociimage.Record{Host: true})
	case ref == "scratch":
		return b.bare(ctx, "scratch", &ociimage.Record{})
	}
	return b.store.Pull(ctx, &ociimage.Source{Ref: ref, Login: b.login(ref), Force: b.b.Force, Log: b.log})
}

// bare finds an image without layers, or makes it.
func (b *builder) bare(ctx context.Context, what string, rec *ociimage.Record) (*ociimage.Record, error) {
	key := b.store.Key("bare", what)
	lock, err := b.store.Lock(ctx, "bare-"+key)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if old, err := b.store.Find(key); !errors.Is(err, driver.ErrNotFound) {
		return old, err
	}
	if err := b.store.Put(ctx, rec); err != nil {
		return nil, err
	}
	return rec, b.store.SetKey(ctx, key, rec.ID)
}

// login is how to log in where ref is: credentials go to the registry of the
// base only.
func (b *builder) login(ref string) *driver.Registry {
	base := b.b.Image.Base
	if b.b.Image.Registry == nil || base == "" || base == ref {
		return b.b.Image.Registry
	}
	theirs, err1 := name.ParseReference(base)
	mine, err2 := name.ParseReference(ref)
	if err1 != nil || err2 != nil || theirs.Context().RegistryStr() != mine.Context().RegistryStr() {
		return nil
	}
	return b.b.Image.Registry
}

// step makes the image that a command makes of what is there, unless it was made
// before. Of the key, what tells it apart must be all of parts.
func (b *builder) step(ctx context.Context, what string, parts []string, do func(key string) (*ociimage.Record, error)) error {
	key := b.store.Key(append([]string{"step", b.cur.rec.ID}, parts...)...)[:40]
	lock, err := b.store.Lock(ctx, "build-"+key)
	if err != nil {
		return err
	}
	defer lock.Close()
	if !b.b.Force {
		old, err := b.store.Find(key)
		if err == nil {
			err = b.hold(old)
		}
		if err == nil {
			b.logf("%s: as before", what)
			b.use(old)
			return nil
		}
		if !errors.Is(err, driver.ErrNotFound) {
			return err
		}
	}
	b.logf("%s", what)
	rec, err := do(key)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	rec.Step, rec.Parent = true, b.cur.rec.ID
	if err := b.store.Put(ctx, rec); err != nil {
		return err
	}
	if err := b.hold(rec); err != nil {
		return err
	}
	b.use(rec)
	return b.store.SetKey(ctx, key, rec.ID)
}

// platformArgs are the variables that a build has by itself.
func platformArgs() map[string]string {
	list := map[string]string{}
	for _, where := range []string{"TARGET", "BUILD"} {
		list[where+"PLATFORM"], list[where+"OS"], list[where+"ARCH"], list[where+"VARIANT"] = "linux/"+runtime.GOARCH, "linux", runtime.GOARCH, ""
	}
	return list
}
