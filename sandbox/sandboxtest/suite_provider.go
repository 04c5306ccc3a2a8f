package sandboxtest

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) providerTests() []test {
	return []test{
		{"CreateFromNilConfig", s.testCreateNil},
		{"CreateRefusesBadConfig", s.testCreateInvalid},
		{"CreateCancelledLeavesNothing", s.testCreateCancelled},
		{"CreateManyAtOnce", s.testCreateConcurrent},
		{"NameIsInUseUntilTheEnd", s.testName},
		{"NameGoesToOneOfMany", s.testNameRace},
		{"AttachFromAnotherProvider", s.testAttach},
		{"AttachUnknown", s.testAttachUnknown},
		{"AttachEnded", s.testAttachEnded},
		{"ListByTags", s.testList},
		{"ListEnded", s.testListEnded},
		{"ListStopsEarly", s.testListStops},
		{"ListCancelled", s.testListCancelled},
		{"CloseLeavesSandboxes", s.testProviderClose},
	}
}

func (s *suite) testCreateNil(t *testing.T) {
	if s.opts.Config.Image.Base != "" {
		t.Skip("the suite was given an image: nil would not use it")
	}
	sb, err := s.provider.Create(s.context(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.endWith(t, sb)
	equal(t, "output", s.sh(t, sb, "echo hello"), "hello")
}

func (s *suite) testCreateInvalid(t *testing.T) {
	_, err := s.provider.Create(s.context(t), &sandbox.Config{Name: "no spaces", Memory: -1})
	isErr(t, "create", err, sandbox.ErrInvalid)
}

func (s *suite) testCreateCancelled(t *testing.T) {
	tags := map[string]string{suiteTag: "yes", "test": "cancelled"}
	ctx, cancel := context.WithCancel(s.context(t))
	cancel()
	_, err := s.provider.Create(ctx, s.config(func(c *sandbox.Config) { c.Tags = tags }))
	isErr(t, "create", err, context.Canceled)
	if ids := s.list(t, s.provider, &sandbox.ListOptions{Tags: tags}); len(ids) > 0 {
		t.Errorf("left behind: %v", ids)
	}
}

func (s *suite) testCreateConcurrent(t *testing.T) {
	const n = 8
	ids := make(chan string, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			sb, err := s.provider.Create(s.context(t), s.config(nil))
			if err != nil {
				t.Errorf("create: %v", err)
				return
			}
			s.endWith(t, sb)
			ids <- sb.ID()
		})
	}
	wg.Wait()
	close(ids)
	seen := map[string]bool{}
	for id := range ids {
		if seen[id] {
			t.Errorf("id %s was given twice", id)
		}
		seen[id] = true
	}
}

func (s *suite) testName(t *testing.T) {
	named := func(c *sandbox.Config) { c.Name = "sandboxtest-name" }
	sb := s.createWith(t, Name, named)
	_, err := s.provider.Create(s.context(t), s.config(named))
	isErr(t, "create with a name in use", err, sandbox.ErrNameInUse)
	found, err := s.second(t).AttachName(s.context(t), "sandboxtest-name")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "id found by name", found.ID(), sb.ID())
	info, err := found.Info(s.context(t))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "Info.Name", info.Name, "sandboxtest-name")
	if err := found.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	_, err = s.provider.AttachName(s.context(t), "sandboxtest-name")
	isErr(t, "attach to the name of an ended sandbox", err, sandbox.ErrNotFound)
	s.createWith(t, Name, named)
	_, err = s.provider.AttachName(s.context(t), "sandboxtest-nobody")
	isErr(t, "attach to an unknown name", err, sandbox.ErrNotFound)
}

func (s *suite) testNameRace(t *testing.T) {
	named := func(c *sandbox.Config) { c.Name = "sandboxtest-race" }
	first := s.createWith(t, Name, named) // skips where names are not supported
	if err := first.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	providers := []*sandbox.Provider{s.provider, s.second(t)}
	var mu sync.Mutex
	won := 0
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			sb, err := providers[i%2].Create(s.context(t), s.config(named))
			if err != nil {
				isErr(t, "create by a loser", err, sandbox.ErrNameInUse)
				return
			}
			s.endWith(t, sb)
			mu.Lock()
			won++
			mu.Unlock()
		})
	}
	wg.Wait()
	equal(t, "creations that got the name", won, 1)
}

func (s *suite) testAttach(t *testing.T) {
	sb, err := s.provider.Create(s.context(t), s.config(func(c *sandbox.Config) { c.Env = map[string]string{"FROM": "the first"} }))
	if err != nil {
		t.Fatal(err)
	}
	if err := sb.FS(s.context(t)).WriteFile("note", []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := sb.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := s.second(t).Attach(s.context(t), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	s.endWith(t, other)
	equal(t, "id", other.ID(), sb.ID())
	equal(t, "dir", other.Dir(), sb.Dir())
	equal(t, "what the first wrote", s.sh(t, other, `cat note; echo " $FROM"`), "hello the first")
}

func (s *suite) testAttachUnknown(t *testing.T) {
	for _, id := range []string{"sb-0123456789abcdefghjk", "", ".", "..", "../..", "/", "a/b", "a\x00b", "ä", strings.Repeat("x", 5000)} {
		_, err := s.provider.Attach(s.context(t), id)
		if !errors.Is(err, sandbox.ErrNotFound) && !errors.Is(err, sandbox.ErrInvalid) {
			t.Errorf("attach to %.20q: got error %v, want ErrNotFound or ErrInvalid", id, err)
		}
	}
}

func (s *suite) testAttachEnded(t *testing.T) {
	sb := s.create(t, nil)
	if err := sb.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*sandbox.Provider{s.provider, s.second(t)} {
		_, err := p.Attach(s.context(t), sb.ID())
		isErr(t, "attach", err, sandbox.ErrEnded)
	}
}

// list gives the ids of what matches, and fails when one comes twice.
func (s *suite) list(t *testing.T, p *sandbox.Provider, opts *sandbox.ListOptions) map[string]*sandbox.Info {
	t.Helper()
	found := map[string]*sandbox.Info{}
	for info, err := range p.List(s.context(t), opts) {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		if found[info.ID] != nil {
			t.Errorf("%s is listed twice", info.ID)
		}
		found[info.ID] = info
	}
	return found
}

func (s *suite) testList(t *testing.T) {
	tagged := func(kind string) func(*sandbox.Config) {
		return func(c *sandbox.Config) { c.Tags["kind"], c.Tags["odd"] = kind, `a "b" = {c}, ü` }
	}
	a, b := s.create(t, tagged("a")), s.create(t, tagged("b"))
	for _, p := range []*sandbox.Provider{s.provider, s.second(t)} {
		all := s.list(t, p, nil)
		if all[a.ID()] == nil || all[b.ID()] == nil {
			t.Errorf("list of all: %v", all)
		}
		found := s.list(t, p, &sandbox.ListOptions{Tags: map[string]string{"kind": "a", suiteTag: "yes"}})
		if len(found) != 1 || found[a.ID()] == nil {
			t.Fatalf("list by tags: %v", found)
		}
		want := map[string]string{"kind": "a", suiteTag: "yes", "odd": `a "b" = {c}, ü`}
		for k, v := range s.opts.Config.Tags {
			want[k] = v
		}
		if got := found[a.ID()].Tags; !maps.Equal(got, want) {
			t.Errorf("tags: got %v, want %v", got, want)
		}
		found = s.list(t, p, &sandbox.ListOptions{Tags: map[string]string{"kind": "neither"}})
		equal(t, "matches of a tag nobody has", len(found), 0)
	}
}

func (s *suite) testListEnded(t *testing.T) {
	sb := s.create(t, nil)
	if err := sb.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	if s.list(t, s.provider, nil)[sb.ID()] != nil {
		t.Error("an ended sandbox is listed as running")
	}
	// It may be forgotten already; if it is not, it has to be told as ended.
	if info := s.list(t, s.provider, &sandbox.ListOptions{Ended: true})[sb.ID()]; info != nil {
		equal(t, "state", info.State, sandbox.StateEnded)
	}
}

func (s *suite) testListStops(t *testing.T) {
	s.create(t, nil)
	list := s.provider.List(s.context(t), nil)
	for range 2 { // it can be ranged over again
		n := 0
		for _, err := range list {
			if err != nil {
				t.Fatal(err)
			}
			n++
			break
		}
		equal(t, "seen before break", n, 1)
	}
}

func (s *suite) testListCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(s.context(t))
	cancel()
	var last error
	for _, err := range s.provider.List(ctx, nil) {
		last = err
	}
	isErr(t, "last of a cancelled list", last, context.Canceled)
}

func (s *suite) testProviderClose(t *testing.T) {
	p := s.open(t)
	sb, err := p.Create(s.context(t), s.config(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sb.Close(), p.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
	again, err := s.provider.Attach(s.context(t), sb.ID())
	if err != nil {
		t.Fatalf("attach after its provider was closed: %v", err)
	}
	s.endWith(t, again)
	equal(t, "output", s.sh(t, again, "echo on"), "on")
}
