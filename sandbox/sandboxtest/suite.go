package sandboxtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Feature is something that not every driver offers.
type Feature string

// The features. Those named like a field of sandbox.Config are settings.
const (
	Name          Feature = "Name"
	Dir           Feature = "Dir"
	CPU           Feature = "CPU"
	Memory        Feature = "Memory"
	Pids          Feature = "Pids"
	Disk          Feature = "Disk"
	Timeout       Feature = "Timeout"
	IdleTimeout   Feature = "IdleTimeout"
	NoNetwork     Feature = "Network none"
	Allowlist     Feature = "Network allowlist"
	Ports         Feature = "Ports"
	Mounts        Feature = "Mounts"
	TTY           Feature = "TTY"
	Snapshots     Feature = "Snapshot"
	SnapshotDrops Feature = "DeleteSnapshot"
	Listening     Feature = "Listen"
	Dialing       Feature = "Dial"
	Watching      Feature = "Watch"
	WatchingMoves Feature = "Watch moves" // out of what is watched, and into it
	Probing       Feature = "Probe"
	ProbeEnds     Feature = "Probe end"     // with the last who waits for it
	UnknownBase   Feature = "Image unknown" // is refused
	SettingNet    Feature = "SetNetwork"
	Isolation     Feature = "Isolation"
)

// Options changes what Run does. The zero value, and nil, run everything and
// expect no particular feature.
type Options struct {
	// Supports names the features that the driver is expected to have: one
	// that is reported as unsupported or unenforced fails. Others are listed
	// at the end.
	Supports []Feature
	// Config is what every sandbox of the suite starts from, an image for one.
	// Its Tags and Timeout are overwritten where a test needs that.
	Config sandbox.Config
	// Deadline is how long one test may take; 0 means two minutes.
	Deadline time.Duration
}

// Run tests that a driver keeps every promise of packages sandbox and driver,
// one subtest for each. open opens a provider, and is called again for what
// another process would see: it opens the same place each time.
//
// Inside the sandboxes it needs sh, coreutils and /proc, and to run what is
// written to the working directory. A feature the driver refuses with
// errors.ErrUnsupported is skipped and listed at the end.
func Run(t *testing.T, open func(t *testing.T) *sandbox.Provider, opts *Options) {
	s := &suite{open: open, opts: Options{Deadline: 2 * time.Minute}, missing: map[Feature]string{}}
	if opts != nil {
		s.opts = *opts
		s.opts.Deadline = cmp.Or(opts.Deadline, 2*time.Minute)
	}
	s.run(t)
}

func (s *suite) run(t *testing.T) {
	s.provider = s.open(t)
	t.Cleanup(func() { s.sweep(t) })
	s.shared = s.create(t, nil)
	s.warm(t)
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"Provider", s.providerTests()},
		{"Life", s.lifeTests()},
		{"Config", s.configTests()},
		{"Limits", s.limitTests()},
		{"Network", s.networkTests()},
		{"Cmd", s.cmdTests()},
		{"Streams", s.streamTests()},
		{"Cancel", s.cancelTests()},
		{"TTY", s.ttyTests()},
		{"FS", s.fsTests()},
		{"Snapshot", s.snapshotTests()},
		{"Watch", s.watchTests()},
		{"Ready", s.readyTests()},
		{"SetNetwork", s.setNetworkTests()},
		{"Job", s.jobTests()},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				if s.without[test.name] == "" {
					t.Run(test.name, test.run)
				}
			}
		})
	}
	s.report(t)
}

type test struct {
	name string
	run  func(*testing.T)
}

type suite struct {
	open     func(*testing.T) *sandbox.Provider
	opts     Options
	provider *sandbox.Provider
	shared   *sandbox.Sandbox // for tests that change nothing about the sandbox

	without map[string]string // tests to leave out, and why; for the suite's own tests

	mu      sync.Mutex
	missing map[Feature]string
}

const suiteTag = "sandboxtest"

// context ends with the test, and before it would hang for ever.
func (s *suite) context(t *testing.T) context.Context {
	ctx, stop := context.WithTimeoutCause(t.Context(), s.opts.Deadline, errors.New("the suite's deadline for one test has passed"))
	t.Cleanup(stop)
	return ctx
}

// config is a copy of the suite's, changed by change.
func (s *suite) config(change func(*sandbox.Config)) *sandbox.Config {
	c := s.opts.Config
	c.Tags = maps.Clone(c.Tags)
	if c.Tags == nil {
		c.Tags = map[string]string{}
	}
	c.Tags[suiteTag] = "yes"
	c.Timeout = cmp.Or(c.Timeout, time.Hour)
	if change != nil {
		change(&c)
	}
	return &c
}

// create makes a sandbox that ends with the test.
func (s *suite) create(t *testing.T, change func(*sandbox.Config)) *sandbox.Sandbox {
	t.Helper()
	sb, err := s.provider.Create(s.context(t), s.config(change))
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	s.endWith(t, sb)
	return sb
}

// createWith is create for a setting that the driver may refuse.
func (s *suite) createWith(t *testing.T, setting Feature, change func(*sandbox.Config)) *sandbox.Sandbox {
	t.Helper()
	sb, err := s.provider.Create(s.context(t), s.config(change))
	if errors.Is(err, errors.ErrUnsupported) {
		field, _, _ := strings.Cut(string(setting), " ")
		if !strings.Contains(err.Error(), field) {
			t.Errorf("the refusal does not name the setting %s: %v", field, err)
		}
		s.lacks(t, setting, err.Error())
	}
	if err != nil {
		t.Fatalf("create with %s: %v", setting, err)
	}
	s.endWith(t, sb)
	info, err := sb.Info(s.context(t))
	if err != nil {
		t.Fatal(err)
	}
	if reason, not := info.Unenforced[string(setting)]; not {
		s.lacks(t, setting, "not enforced: "+reason)
	}
	return sb
}

func (s *suite) endWith(t *testing.T, sb *sandbox.Sandbox) {
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), s.opts.Deadline)
		defer stop()
		if err := errors.Join(sb.Terminate(ctx), sb.Close()); err != nil {
			t.Errorf("clean up %s: %v", sb.ID(), err)
		}
	})
}

// lacks skips the test of a feature that is not there, or fails it where the
// feature is expected.
func (s *suite) lacks(t *testing.T, f Feature, reason string) {
	t.Helper()
	if slices.Contains(s.opts.Supports, f) {
		t.Fatalf("%s is expected to be supported: %s", f, reason)
	}
	s.mu.Lock()
	s.missing[f] = reason
	s.mu.Unlock()
	t.Skipf("not supported by this driver: %s: %s", f, reason)
}

// needs fails the test on an error, and skips it on errors.ErrUnsupported.
func (s *suite) needs(t *testing.T, f Feature, err error) {
	t.Helper()
	if errors.Is(err, errors.ErrUnsupported) {
		s.lacks(t, f, err.Error())
	}
	if err != nil {
		t.Fatalf("%s: %v", f, err)
	}
}

func (s *suite) report(t *testing.T) {
	if len(s.missing) == 0 {
		return
	}
	var list strings.Builder
	for _, f := range slices.Sorted(maps.Keys(s.missing)) {
		fmt.Fprintf(&list, "\n  %s: %s", f, s.missing[f])
	}
	t.Logf("not supported by this driver:%s", list.String())
}

// sweep fails when a sandbox of the suite is left, and ends it.
func (s *suite) sweep(t *testing.T) {
	ctx, stop := context.WithTimeout(context.Background(), s.opts.Deadline)
	defer stop()
	for info, err := range s.provider.List(ctx, &sandbox.ListOptions{Tags: map[string]string{suiteTag: "yes"}}) {
		if err != nil {
			t.Errorf("list what is left: %v", err)
			break
		}
		t.Errorf("sandbox %s is left over", info.ID)
		if sb, err := s.provider.Attach(ctx, info.ID); err == nil {
			_ = sb.Terminate(ctx)
		}
	}
	if err := s.provider.Close(); err != nil {
		t.Errorf("close the provider: %v", err)
	}
}

// second opens the same place again, as another process would.
func (s *suite) second(t *testing.T) *sandbox.Provider {
	t.Helper()
	p := s.open(t)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close the second provider: %v", err)
		}
	})
	return p
}

// sh runs a script that must succeed and returns what it printed.
func (s *suite) sh(t *testing.T, sb *sandbox.Sandbox, script string, args ...string) string {
	t.Helper()
	cmd := sb.Command(s.context(t), "sh", append([]string{"-c", script, "sh"}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sh -c %q: %v\n%s", script, err, stderrOf(err))
	}
	return string(bytes.TrimRight(out, "\n"))
}

func stderrOf(err error) []byte {
	if ee, ok := errors.AsType[*sandbox.ExitError](err); ok {
		return ee.Stderr
	}
	return nil
}

// dir makes an empty directory for one test in the shared sandbox and returns
// its absolute path and its files.
func (s *suite) dir(t *testing.T) (string, *sandbox.FS) {
	t.Helper()
	name := "t-" + strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '-'
		}
		return r
	}, t.Name())
	fsys := s.shared.FS(s.context(t))
	if err := fsys.MkdirAll(name, 0o755); err != nil {
		t.Fatal(err)
	}
	path := strings.TrimSuffix(s.shared.Dir(), "/") + "/" + name
	return path, s.shared.FSAt(s.context(t), path)
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func isErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want one that matches %q", what, err, want)
	}
}
