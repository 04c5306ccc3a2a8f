package sandboxhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// living says how sandboxes live.
func living(p *place, o pool.Options) func(*sandboxhttp.Config) {
	return func(c *sandboxhttp.Config) {
		o.Store = &p.pools
		c.Pool = &o
	}
}

// told keeps the pool's events.
type told struct {
	mu   sync.Mutex
	list []string
}

func (d *told) notify(_ context.Context, e pool.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, strings.TrimSpace(fmt.Sprint(e.Kind, " ", e.Reason)))
}

func (d *told) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.list, ", ")
}

// A sandbox in which a run goes on is in use. One that is not ends, saved, and that is
// announced.
func TestIdleSandboxEnds(t *testing.T) {
	const idle = 500 * time.Millisecond
	cli, bucket, said := newPaced(), new(storagetest.Memory), new(told)
	p := newPlace(t, cli.play)
	s := serve(t, p, join(volumesIn(bucket), living(p, pool.Options{Idle: idle, Notify: said.notify})))
	box := s.create(`{"volume_name":"w"}`)
	begun := time.Now()
	f := s.prompt(box, "go")
	f.must()
	put(t, p, box, "a.txt", "a")
	until(t, "an idle one would have ended", func() bool { return time.Since(begun) > 3*idle })
	if got := s.ask(200, "GET", box, ""); got["state"] != "running" || got["ending"] != nil {
		t.Errorf("while a run goes on: %v", got)
	}
	close(cli.gate)
	if end := f.end(); end["end"] != "completed" {
		t.Errorf("the run ended as %v", end)
	}
	got := s.becomes(box, "ended")
	if got["end"] != "idle" || got["version"] == nil || p.alive() != 0 {
		t.Errorf("%v, %d alive", got, p.alive())
	}
	if said := said.String(); !strings.HasSuffix(said, "warning idle, ended idle") {
		t.Errorf("said: %s", said)
	}
	again := s.create(`{"volume_name":"w"}`)
	if got := have(t, p, again, "a.txt"); got != "a" {
		t.Errorf("a.txt is %q", got)
	}
	v := s.ask(200, "GET", again+"/versions", "")["versions"].([]any)[0].(map[string]any)
	if v["note"] != "the sandbox came to its end: idle" {
		t.Errorf("the version is %v", v)
	}
}

// join makes one change of several.
func join(changes ...func(*sandboxhttp.Config)) func(*sandboxhttp.Config) {
	return func(c *sandboxhttp.Config) {
		for _, change := range changes {
			change(c)
		}
	}
}

func TestEndThatIsCloseIsShown(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, living(p, pool.Options{Grace: time.Hour}))
	box := s.create(`{"idle_timeout_seconds":7200}`)
	list, err := p.pools.Records(t.Context(), pool.Query{Pool: "pool", Live: true})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d records, %v", len(list), err)
	}
	r := list[0] // as after an hour
	r.ActiveAt = r.ActiveAt.Add(-time.Hour - time.Minute)
	end := r.ActiveAt.Add(2 * time.Hour)
	r.Warnings = map[sandbox.End]pool.Warning{sandbox.EndIdle: {End: end, At: time.Now().UTC()}}
	if err := p.pools.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	got, _ := s.ask(200, "GET", box, "")["ending"].(map[string]any)
	if listed := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any)[0].(map[string]any)["ending"]; !reflect.DeepEqual(listed, any(got)) {
		t.Errorf("listed with %v", listed)
	}
	if got["reason"] != "idle" || got["at"] != end.Format(time.RFC3339Nano) {
		t.Errorf("ending %v, want idle at %v", got, end)
	}
	s.prompt(box, "1").end()
	if got := s.ask(200, "GET", box, ""); got["ending"] != nil {
		t.Errorf("after use: %v", got)
	}
}

// At the end of a sandbox's lifetime what runs in it is stopped, and then it is saved.
func TestLifetimeEndsRuns(t *testing.T) {
	cli, bucket := newPaced(), new(storagetest.Memory)
	p := newPlace(t, cli.play)
	s := serve(t, p, join(volumesIn(bucket), living(p, pool.Options{Grace: -1})))
	box := s.create(`{"volume_name":"w","timeout_seconds":1}`)
	put(t, p, box, "a.txt", "a")
	end := s.prompt(box, "go").end()
	if end["end"] != "lifetime" || end["error"] != "the sandbox came to its end: lifetime" {
		t.Errorf("the run ended as %v", end)
	}
	if got := s.becomes(box, "ended"); got["end"] != "lifetime" || got["version"] == nil {
		t.Errorf("%v", got)
	}
	if got := s.ask(200, "DELETE", box, ""); got["version"] == nil {
		t.Errorf("deleted: %v", got)
	}
}

// Before the longest that a place lets a sandbox live, another takes over under the same
// id, with the files and what the request brought.
func TestSuccessorTakesOver(t *testing.T) {
	p, said := newPlace(t, talk), new(told)
	s := serve(t, p, join(volumesIn(new(storagetest.Memory)), func(c *sandboxhttp.Config) {
		c.Sandbox = &sandbox.Config{Secrets: map[string]sandbox.Secret{"BASE": sandbox.NewSecret("1")}}
	}, living(p, pool.Options{Cap: 24 * time.Hour, Interval: 100 * time.Millisecond, Notify: said.notify})))
	box := s.create(`{"volume_name":"w","env":{"KEY":"value"},"tags":{"team":"a"}}`)
	put(t, p, box, "a.txt", "a")
	first := boxOf(p, map[string]any{"id": strings.TrimPrefix(box, "/sandbox/")})
	expire(t, p, 50*time.Minute)
	until(t, "another has taken over", func() bool { return strings.Contains(said.String(), "rolled_over") && p.alive() == 1 })
	next := boxOf(p, map[string]any{"id": strings.TrimPrefix(box, "/sandbox/")})
	if first == next || fmt.Sprint([]string(next.cfg.Secrets)) != "[BASE=1 KEY=value]" || next.cfg.Tags["team"] != "a" {
		t.Errorf("it was made of %+v", next.cfg)
	}
	if got := have(t, p, box, "a.txt"); got != "a" {
		t.Errorf("a.txt is %q", got)
	}
	if end := s.prompt(box, "1").end(); end["end"] != "completed" {
		t.Errorf("a run in it ended as %v", end)
	}
	if got := s.ask(200, "GET", box, ""); got["state"] != "running" || got["tags"].(map[string]any)["team"] != "a" {
		t.Errorf("%v", got)
	}
	s.ask(200, "DELETE", box, "")
	if p.alive() != 0 {
		t.Errorf("%d alive", p.alive())
	}
}

// expire has the one sandbox's place end it so soon.
func expire(t *testing.T, p *place, in time.Duration) {
	t.Helper()
	for {
		list, err := p.pools.Records(t.Context(), pool.Query{Pool: "pool", Live: true})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d records, %v", len(list), err)
		}
		list[0].Box.ExpiresAt = time.Now().Add(in).UTC()
		err = p.pools.Save(t.Context(), list[0])
		if err == nil {
			return
		}
		if !errors.Is(err, pool.ErrConflict) {
			t.Fatal(err)
		}
	}
}

// A successor that cannot wait cuts off what runs, which says so.
func TestSuccessorThatCannotWait(t *testing.T) {
	cli, said := newPaced(), new(told)
	p := newPlace(t, cli.play)
	s := serve(t, p, join(volumesIn(new(storagetest.Memory)), living(p, pool.Options{Cap: 24 * time.Hour, Interval: 100 * time.Millisecond, Notify: said.notify})))
	box := s.create(`{"volume_name":"w"}`)
	f := s.prompt(box, "go")
	f.must()
	expire(t, p, 20*time.Minute)
	if end := f.end(); end["end"] != "lifetime" || !strings.HasPrefix(end["error"].(string), "another sandbox took over") {
		t.Errorf("the run ended as %v", end)
	}
	close(cli.gate)
	if end := s.prompt(box, "1").end(); end["end"] != "completed" {
		t.Errorf("the next ended as %v", end)
	}
	if got := s.ask(200, "GET", box, ""); got["state"] != "running" {
		t.Errorf("%v, %s", got, said)
	}
}

// A successor is of no use to a sandbox without a volume: that ends.
func TestLongestLifeWithoutAVolume(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, join(volumesIn(new(storagetest.Memory)), living(p, pool.Options{Cap: 24 * time.Hour, Lifetime: 100 * time.Hour})))
	life := func(box string) time.Duration {
		list, err := p.pools.Records(t.Context(), pool.Query{Pool: "pool", ID: strings.TrimPrefix(box, "/sandbox/")})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d records, %v", len(list), err)
		}
		return list[0].ExpiresAt.Sub(list[0].CreatedAt)
	}
	most := 24*time.Hour - 5*time.Minute - 31*time.Minute
	if got := life(s.create("")); got != most {
		t.Errorf("it lives %v, want %v", got, most)
	}
	if got := life(s.create(`{"volume_name":"w"}`)); got != 100*time.Hour {
		t.Errorf("with a volume it lives %v", got)
	}
	if got := life(s.create(`{"timeout_seconds":60}`)); got != time.Minute {
		t.Errorf("a short one lives %v", got)
	}
	if got := s.refused(422, "validation_failed", "POST", "/sandbox", `{"timeout_seconds":86400}`); fmt.Sprint(got) != "[timeout_seconds]" {
		t.Errorf("fields %v", got)
	}
}

// A spare is what a request gets that asks for nothing else; what is only in records it may
// ask for.
func TestSpares(t *testing.T) {
	p := newPlace(t, talk)
	s := serve(t, p, join(volumesIn(new(storagetest.Memory)), func(c *sandboxhttp.Config) {
		c.Sandbox = &sandbox.Config{Env: map[string]string{"A": "1"}, Secrets: map[string]sandbox.Secret{"BASE": sandbox.NewSecret("1")}}
	}, living(p, pool.Options{Spares: []pool.Spare{{N: 1}}})))
	ready := func() *pool.Record {
		var spare *pool.Record
		until(t, "a spare is ready", func() bool {
			list, err := p.pools.Records(t.Context(), pool.Query{Pool: "pool", Live: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list {
				if r.Spare != "" && r.State == pool.StateRunning && r.Lease.Holder == "" {
					spare = r
				}
			}
			return spare != nil
		})
		return spare
	}
	for body, claims := range map[string]bool{
		`{"name":"mine","tags":{"team":"a"},"timeout_seconds":600,"volume_name":"w"}`: true,
		`{"env":{"KEY":"value"}}`: false, `{"cpu":2}`: false, `{}`: true,
	} {
		spare := ready()
		box := s.create(body)
		list, err := p.pools.Records(t.Context(), pool.Query{Pool: "pool", ID: strings.TrimPrefix(box, "/sandbox/")})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d records, %v", len(list), err)
		}
		if got := list[0].Box.ID == spare.Box.ID; got != claims {
			t.Errorf("%s: given the spare: %v", body, got)
		}
		if end := s.prompt(box, "1").end(); end["end"] != "completed" {
			t.Errorf("a run ended as %v", end)
		}
		p.mu.Lock()
		secrets := fmt.Sprint([]string(p.boxes[list[0].Box.ID].cfg.Secrets))
		p.mu.Unlock()
		if !strings.Contains(secrets, "BASE=1") {
			t.Errorf("%s: secrets %s", body, secrets)
		}
		s.ask(200, "DELETE", box, "")
	}
}

// Records that outlive the server need a pool that does.
func TestPoolThatForgets(t *testing.T) {
	_, err := sandboxhttp.New(&sandboxhttp.Config{Provider: emptyPlace().provider(), Auth: byHeader, Store: new(sandboxhttp.MemoryStore)})
	if err == nil || !strings.Contains(err.Error(), "Config.Pool.Store") {
		t.Errorf("%v", err)
	}
	_, err = sandboxhttp.New(&sandboxhttp.Config{Provider: emptyPlace().provider(), Auth: byHeader, Pool: &pool.Options{Idle: -1}})
	if err == nil || !strings.Contains(err.Error(), "Options.Idle") {
		t.Errorf("%v", err)
	}
}

// A run that another server looks after is followed to its end while its sandbox is saved,
// and ends as the sandbox does.
func TestRunOfASandboxThatIsBeingSaved(t *testing.T) {
	cli, store := newPaced(), new(sandboxhttp.MemoryStore)
	p := newPlace(t, cli.play)
	s := serve(t, p, durable(store, nil))
	box := s.create("")
	f := s.prompt(box, "go")
	f.must()
	s.shutdown()

	list, err := p.pools.Records(t.Context(), pool.Query{Pool: "pool", Live: true})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d records, %v", len(list), err)
	}
	r := list[0] // as another server has it, which saves
	r.State, r.End, r.Stop = pool.StateStopping, sandbox.EndLifetime, &pool.Stop{Until: time.Now().Add(time.Hour)}
	r.Lease = pool.Lease{Holder: "another", Until: time.Now().Add(time.Hour)}
	if err := p.pools.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	next := serve(t, p, durable(store, nil))
	follow := next.follow("GET", f.run(box)+"/events", "")
	follow.must()
	cli.gate <- struct{}{}
	if e := follow.must(); !strings.Contains(e.data, "line 2") {
		t.Errorf("while it is saved: %+v", e)
	}
	p.only().end(driver.EndLifetime)
	r.State, r.EndedAt = pool.StateTerminated, time.Now().UTC()
	if err := p.pools.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if end := follow.end(); end["end"] != "lifetime" {
		t.Errorf("the run ended as %v", end)
	}
}

// A hook that panics ends what it was called for, and no more.
func TestHooksThatPanic(t *testing.T) {
	p := newPlace(t, talk)
	panics := "Configure"
	boom := func(name string) {
		if panics == name {
			panic(name)
		}
	}
	s := serve(t, p, living(p, pool.Options{
		Configure: func(context.Context, *pool.Record, *sandbox.Config) error { boom("Configure"); return nil },
		Notify:    func(context.Context, pool.Event) { boom("Notify") },
	}))
	s.refused(502, "provider_failed", "POST", "/sandbox", "")
	panics = "Notify"
	box := s.create("")
	s.ask(200, "DELETE", box, "")
	if got := s.ask(200, "GET", box, ""); got["state"] != "ended" || !strings.Contains(s.log.String(), "Notify panicked") {
		t.Errorf("%v, the log: %s", got, s.log)
	}
}

// A run that no server has begun in a sandbox which is being saved is not begun any more.
func TestRunThatComesTooLate(t *testing.T) {
	cli, store := newPaced(), new(sandboxhttp.MemoryStore)
	p := newPlace(t, cli.play)
	s := serve(t, p, durable(store, nil))
	box := s.create("")
	s.shutdown()
	list, err := p.pools.Records(t.Context(), pool.Query{Pool: "pool", Live: true})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d records, %v", len(list), err)
	}
	r := list[0]
	r.State, r.End, r.Stop = pool.StateStopping, sandbox.EndIdle, &pool.Stop{Until: time.Now().Add(time.Hour)}
	r.Lease = pool.Lease{Holder: "another", Until: time.Now().Add(time.Hour)}
	if err := p.pools.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	rec := &sandboxhttp.Run{
		ID: "run-late", SandboxID: strings.TrimPrefix(box, "/sandbox/"), Account: "acme", Prompt: "go", Request: `{"prompt":"go"}`,
		State: sandboxhttp.StateRunning, StartedAt: time.Now(),
	}
	if err := store.SaveRun(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	next := serve(t, p, durable(store, nil))
	if end := next.follow("GET", box+"/runs/run-late/events", "").end(); end["end"] != "idle" || cli.starts.Load() != 0 {
		t.Errorf("it ended as %v, begun %d times", end, cli.starts.Load())
	}
}

// What Admit takes away or adds stays so, also in a successor.
func TestAdmitHasTheLastWord(t *testing.T) {
	p, said := newPlace(t, talk), new(told)
	s := serve(t, p, join(volumesIn(new(storagetest.Memory)), func(c *sandboxhttp.Config) {
		c.Sandbox = &sandbox.Config{
			Secrets: map[string]sandbox.Secret{"DEPLOY": sandbox.NewSecret("1"), "BASE": sandbox.NewSecret("1")},
			Buckets: []sandbox.BucketMount{{Bucket: "all", Target: "/all", Credentials: map[string]sandbox.Secret{"ID": sandbox.NewSecret("all")}}},
		}
		c.Admit = func(_ context.Context, _ *sandboxhttp.Principal, c *sandbox.Config) error {
			delete(c.Secrets, "DEPLOY")
			c.Secrets["MORE"] = sandbox.NewSecret("2")
			c.Tags["team"] = "b"
			c.Buckets = []sandbox.BucketMount{
				{Bucket: "all", Target: "/all", Prefix: "acme/", Credentials: map[string]sandbox.Secret{"ID": sandbox.NewSecret("acme")}},
			}
			return nil
		}
	}, living(p, pool.Options{Cap: 24 * time.Hour, Interval: 100 * time.Millisecond, Notify: said.notify})))
	box := s.create(`{"volume_name":"w","tags":{"team":"a"}}`)
	check := func(when string) {
		cfg := boxOf(p, map[string]any{"id": strings.TrimPrefix(box, "/sandbox/")}).cfg
		if got := fmt.Sprint([]string(cfg.Secrets), cfg.Tags["team"], cfg.Buckets[0].Prefix, []string(cfg.Buckets[0].Credentials)); got != "[BASE=1 MORE=2]bacme/[ID=acme]" {
			t.Errorf("%s: made with %s", when, got)
		}
	}
	check("at first")
	expire(t, p, 50*time.Minute)
	until(t, "another has taken over", func() bool { return strings.Contains(said.String(), "rolled_over") && p.alive() == 1 })
	check("the successor")
}

// What a quota does not allow any more is saved all the same before a planned end.
func TestQuotaDoesNotLoseAWorkspace(t *testing.T) {
	p, l := newPlace(t, talk), new(usage.Memory)
	s := serve(t, p, join(metered(l, usage.Quota{PerDay: usage.Budget{BytesIn: 1}}), volumesIn(new(storagetest.Memory)),
		living(p, pool.Options{Idle: 500 * time.Millisecond, Grace: -1})))
	box := s.create(`{"volume_name":"w"}`)
	put(t, p, box, "a.txt", "a")
	s.ask(201, "POST", box+"/sync", "")
	s.exceeds(usage.LimitBytesInPerDay, "wait until 00:00 UTC", true, "POST", box+"/sync", "")
	put(t, p, box, "b.txt", "b")
	if got := s.becomes(box, "ended"); got["end"] != "idle" {
		t.Errorf("%v", got)
	}
	if got := len(s.versions(box, "?limit=10")); got != 2 {
		t.Errorf("%d versions", got)
	}
	if got := places(t, l); len(got) != 0 {
		t.Errorf("places %q", got)
	}
}

// Nothing is begun in a sandbox that is being saved before its end.
func TestPromptDuringAnEnd(t *testing.T) {
	bucket := newMute(t, "put")
	p := newPlace(t, talk)
	s := serve(t, p, join(volumesIn(bucket), living(p, pool.Options{Grace: -1})))
	box := s.create(`{"volume_name":"w","timeout_seconds":1}`)
	put(t, p, box, "a.txt", "a")
	<-bucket.asked
	s.refused(409, "sandbox_ended", "POST", box+"/claude", `{"prompt":"go"}`)
	s.refused(409, "sandbox_ended", "POST", box+"/sync", "")
	s.ask(200, "DELETE", box+"?sync=false", "")
	if got := s.ask(200, "GET", box, ""); got["state"] != "ended" || p.alive() != 0 {
		t.Errorf("%v, %d alive", got, p.alive())
	}
}

// A sandbox whose record was lost, and which the pool has, is found and saved.
func TestRecordThatIsLost(t *testing.T) {
	p, bucket := newPlace(t, talk), new(storagetest.Memory)
	with := join(volumesIn(bucket), living(p, pool.Options{}))
	first := serve(t, p, with)
	box := first.create(`{"volume_name":"w","name":"mine","tags":{"team":"a"}}`)
	put(t, p, box, "a.txt", "a")
	first.close()
	s := serve(t, p, with)
	list := s.ask(200, "GET", "/sandbox", "")["sandboxes"].([]any)
	if len(list) != 1 || idOf(list[0]) != strings.TrimPrefix(box, "/sandbox/") || list[0].(map[string]any)["name"] != "mine" {
		t.Fatalf("list %v", list)
	}
	if got := s.ask(200, "DELETE", box, ""); got["version"] == nil {
		t.Errorf("deleted: %v", got)
	}
}

// A successor that cannot be made now is not a reason to stop what runs, or to save half of
// a version.
func TestSuccessorThatCannotBeMade(t *testing.T) {
	cap := pool.Options{Cap: 24 * time.Hour, Interval: 100 * time.Millisecond}
	t.Run("environment not known", func(t *testing.T) {
		cli, store := newPaced(), new(sandboxhttp.MemoryStore)
		p := newPlace(t, cli.play)
		with := join(volumesIn(new(storagetest.Memory)), durable(store, nil), living(p, cap))
		first := serve(t, p, with)
		box := first.create(`{"volume_name":"w","env":{"KEY":"value"}}`)
		first.shutdown()
		s := serve(t, p, with)
		f := s.prompt(box, "go")
		f.must()
		expire(t, p, 20*time.Minute)
		until(t, "it was tried", func() bool { return strings.Contains(s.log.String(), "no longer has the sandbox's own secrets") })
		close(cli.gate)
		if end := f.end(); end["end"] != "completed" {
			t.Errorf("the run ended as %v", end)
		}
		if got := s.versions(box, "?limit=10"); len(got) != 0 {
			t.Errorf("versions %v", got)
		}
	})
	t.Run("environment not known, and no time left", func(t *testing.T) {
		store := new(sandboxhttp.MemoryStore)
		p := newPlace(t, talk)
		with := join(volumesIn(new(storagetest.Memory)), durable(store, nil), living(p, cap))
		first := serve(t, p, with)
		box := first.create(`{"volume_name":"w","env":{"KEY":"value"}}`)
		put(t, p, box, "a.txt", "a")
		first.shutdown()
		s := serve(t, p, with)
		expire(t, p, 5*time.Minute)
		until(t, "it is saved", func() bool { return len(s.versions(box, "?limit=10")) > 0 })
		until(t, "it was tried", func() bool { return strings.Contains(s.log.String(), "no longer has the sandbox's own secrets") })
		if p.mu.Lock(); p.created != 1 {
			t.Errorf("%d were made", p.created)
		}
		p.mu.Unlock()
	})
	t.Run("being restored", func(t *testing.T) {
		bucket := &halting{Bucket: new(storagetest.Memory), asked: make(chan struct{}), gate: make(chan struct{})}
		p := newPlace(t, talk)
		s := serve(t, p, join(volumesIn(bucket), living(p, cap)))
		box := s.create(`{"volume_name":"w"}`)
		put(t, p, box, "a.txt", "a")
		version := s.ask(201, "POST", box+"/sync", "")["id"].(string)
		put(t, p, box, "a.txt", "b")
		bucket.halts.Store(true)
		done := make(chan int, 1)
		go func() { done <- s.request("POST", box+"/restore", fmt.Sprintf(`{"version":%q}`, version)).StatusCode }()
		<-bucket.asked
		expire(t, p, 20*time.Minute)
		until(t, "it was tried", func() bool { return strings.Contains(s.log.String(), "a version is being restored") })
		bucket.halts.Store(false)
		close(bucket.gate)
		if status := <-done; status != http.StatusOK {
			t.Errorf("status %d", status)
		}
		if got := have(t, p, box, "a.txt"); got != "a" {
			t.Errorf("a.txt is %q", got)
		}
	})
}

// halting is a bucket whose objects are not to be had while it halts.
type halting struct {
	storage.Bucket
	halts       atomic.Bool
	once        sync.Once
	asked, gate chan struct{}
}

func (h *halting) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if h.halts.Load() {
		h.once.Do(func() { close(h.asked) })
		<-h.gate
	}
	return h.Bucket.Get(ctx, key, offset, length)
}
