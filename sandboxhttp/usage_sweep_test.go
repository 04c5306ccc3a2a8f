package sandboxhttp_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// aged is a ledger whose places were all taken an hour ago.
type aged struct{ usage.Ledger }

func (a aged) Reserve(ctx context.Context, r usage.Reservation) (usage.Place, error) {
	r.Time = time.Now().Add(-time.Hour)
	return a.Ledger.Reserve(ctx, r)
}

// leave takes a place that nobody frees, some time ago.
func leave(t *testing.T, l usage.Ledger, kind usage.Kind, id, sandbox string, ago time.Duration) {
	t.Helper()
	_, err := l.Reserve(t.Context(), usage.Reservation{Account: "acme", Kind: kind, ID: id, SandboxID: sandbox, Time: time.Now().Add(-ago)})
	if err != nil {
		t.Fatal(err)
	}
}

// ids gives those of the places that are taken.
func ids(t *testing.T, l usage.Ledger) (list []string) {
	t.Helper()
	all, err := l.Places(t.Context(), usage.Query{AllAccounts: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		list = append(list, p.ID)
	}
	slices.Sort(list)
	return list
}

// The places of what went on when a server was killed, and is over, are freed by the next;
// those of what lives are not.
func TestPlacesThatAKilledServerLeaves(t *testing.T) {
	cli := newPaced()
	p, l, store := newPlace(t, cli.play), new(usage.Memory), new(sandboxhttp.MemoryStore)
	keep := metered(aged{l}, usage.Quota{}, durable(store, nil))
	first := serve(t, p, keep)
	lives, ended := first.create(""), first.create("")
	f := first.prompt(lives, "go")
	f.must()
	first.ask(200, "DELETE", ended, "")
	first.shutdown()

	box, over := strings.TrimPrefix(lives, "/sandbox/"), strings.TrimPrefix(ended, "/sandbox/")
	leave(t, l, usage.KindSandbox, over, over, time.Hour)
	leave(t, l, usage.KindSandbox, "sb-never", "sb-never", time.Hour)
	leave(t, l, usage.KindSandbox, "sb-unrecorded", "sb-unrecorded", time.Hour)
	leave(t, l, usage.KindSandbox, "sb-new", "sb-new", time.Minute)
	leave(t, l, usage.KindRun, "run-never", box, time.Hour)
	leave(t, l, usage.KindRun, "run-new", box, time.Minute)
	leave(t, l, usage.KindRun, "run-ended", box, time.Hour)
	leave(t, l, usage.KindSave, "save-given-up", box, time.Hour)
	leave(t, l, usage.KindRestore, "restore-goes-on", box, 20*time.Minute)
	leave(t, l, "index", "somebody-else's", box, time.Hour)
	rec := &sandboxhttp.Run{ID: "run-ended", SandboxID: box, Account: "acme", State: sandboxhttp.StateEnded, StartedAt: time.Now()}
	if err := store.SaveRun(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	tags := map[string]string{"vivarium.id": "sb-unrecorded", "vivarium.account": "acme", pool.TagPool: "pool", pool.TagBox: "key-1"}
	if _, err := p.Create(t.Context(), &driver.Config{Name: "key-1", Tags: tags, Timeout: time.Hour}); err != nil {
		t.Fatal(err)
	}

	s := serve(t, p, keep)
	want := []string{"restore-goes-on", strings.TrimPrefix(f.run(lives), lives+"/runs/"), "run-new", box, "sb-new", "sb-unrecorded", "somebody-else's"}
	slices.Sort(want)
	until(t, "what is gone is freed", func() bool { return len(ids(t, l)) <= len(want) })
	if got := ids(t, l); !slices.Equal(got, want) {
		t.Errorf("places\n%q, want\n%q", got, want)
	}
	close(cli.gate)
	s.follow("GET", f.run(lives)+"/events", "").end()
	if got := used(t, l); got.Runs != 1 || got.Sandboxes != 3 { // with the one that was adopted
		t.Errorf("used %+v", got)
	}
}

// A sandbox that was made and ended counts, although its server was killed before it could
// say either.
func TestSandboxThatNobodyCounted(t *testing.T) {
	p, l, store := newPlace(t, talk), new(usage.Memory), new(sandboxhttp.MemoryStore)
	leave(t, l, usage.KindSandbox, "sb-1", "sb-1", time.Hour)
	rec := &sandboxhttp.Sandbox{ID: "sb-1", Account: "acme", State: sandboxhttp.StateEnded, ProviderID: "place-1", CreatedAt: time.Now()}
	if err := store.SaveSandbox(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	serve(t, p, metered(l, usage.Quota{}, durable(store, nil)))
	until(t, "its place is free", func() bool { return len(ids(t, l)) == 0 })
	counts(t, l, 0, 1)
}

// What was being made when the server was killed counts if it was made. Another server may
// be making it, so where nothing is seen of it its place stays for a while.
func TestPlacesOfCreationsOfAServerThatIsGone(t *testing.T) {
	p, l, store := newPlace(t, talk), new(usage.Memory), new(sandboxhttp.MemoryStore)
	for id, volume := range map[string]string{"sb-made": "", "sb-full": "w", "sb-none": ""} {
		leave(t, l, usage.KindSandbox, id, id, time.Minute)
		leftBox(t, p, store, id, sandboxhttp.StateCreating, volume, id != "sb-none", time.Now())
	}
	leave(t, l, usage.KindSandbox, "sb-new", "sb-new", time.Minute)
	rec := &sandboxhttp.Sandbox{ID: "sb-new", Account: "acme", State: sandboxhttp.StateCreating, CreatedAt: time.Now()}
	if err := store.SaveSandbox(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	s := serve(t, p, metered(l, usage.Quota{}, durable(store, nil), volumesIn(new(storagetest.Memory))))
	s.becomes("sb-made", "running")
	s.becomes("sb-full", "running")
	s.becomes("sb-none", "ended")
	if got := ids(t, l); !slices.Equal(got, []string{"sb-full", "sb-made", "sb-new"}) {
		t.Errorf("places %q", got)
	}
	counts(t, l, 3, 2)
	s.ask(200, "DELETE", "/sandbox/sb-full", "")
	s.ask(200, "DELETE", "/sandbox/sb-made", "")
	counts(t, l, 1, 2)
}

// A server without records frees what it can be certain of, when an account has no room.
func TestPlacesWithoutAStore(t *testing.T) {
	p, l := newPlace(t, talk), new(usage.Memory)
	quota := usage.Quota{SandboxesAtOnce: 2, RunsAtOnce: 1}
	first := serve(t, p, metered(aged{l}, quota))
	theirs := first.create("")
	box := strings.TrimPrefix(theirs, "/sandbox/")
	leave(t, l, usage.KindSandbox, "sb-gone", "sb-gone", time.Hour)
	leave(t, l, usage.KindRun, "run-of-theirs", box, time.Hour)

	s := serve(t, p, metered(aged{l}, quota))
	mine := s.create("") // in the place of sb-gone
	s.exceeds(usage.LimitSandboxesAtOnce, "delete one first", true, "POST", "/sandbox", "")
	s.exceeds(usage.LimitRunsAtOnce, "wait for one to end", true, "POST", mine+"/claude", `{"prompt":"1"}`)
	first.ask(200, "DELETE", theirs, "")
	if end := s.prompt(mine, "1").end(); end["end"] != "completed" {
		t.Errorf("end %v", end)
	}
	if got := ids(t, l); len(got) != 1 || "/sandbox/"+got[0] != mine {
		t.Errorf("places %q", got)
	}
}

// A sandbox whose record was lost has its place until it is looked for.
func TestPlaceOfALostRecord(t *testing.T) {
	p, l := newPlace(t, talk), new(usage.Memory)
	leave(t, l, usage.KindSandbox, "sb-lost", "sb-lost", time.Hour)
	tags := map[string]string{"vivarium.id": "sb-lost", "vivarium.account": "acme", pool.TagPool: "pool", pool.TagBox: "key-1"}
	if _, err := p.Create(t.Context(), &driver.Config{Name: "key-1", Tags: tags, Timeout: time.Hour}); err != nil {
		t.Fatal(err)
	}
	p.fail("list", driver.ErrUnavailable)
	s := serve(t, p, metered(l, usage.Quota{SandboxesAtOnce: 1}, durable(new(sandboxhttp.MemoryStore), nil)))
	until(t, "the log says so", func() bool { return strings.Contains(s.log.String(), "cannot free all places") })
	if got := ids(t, l); len(got) != 1 {
		t.Errorf("places %q", got)
	}
	p.fail("list", nil)
	s.exceeds(usage.LimitSandboxesAtOnce, "delete one first", true, "POST", "/sandbox", "")
	s.ask(200, "DELETE", "/sandbox/sb-lost", "")
	counts(t, l, 0, 1)
}

// deafPool is a pool's store that tells nothing of single sandboxes.
type deafPool struct{ pool.Store }

func (s deafPool) Records(ctx context.Context, q pool.Query) ([]*pool.Record, error) {
	if q.ID != "" {
		return nil, errors.New("db-7 does not answer")
	}
	return s.Store.Records(ctx, q)
}

// What cannot be told whether it is gone stays, and is said in the log.
func TestSweepThatFails(t *testing.T) {
	p, l := newPlace(t, talk), newBrittle()
	leave(t, l.Ledger, usage.KindSandbox, "sb-unknown", "sb-unknown", time.Hour)
	deaf := func(c *sandboxhttp.Config) { c.Pool = &pool.Options{Store: deafPool{&p.pools}} }
	s := serve(t, p, metered(l, usage.Quota{SandboxesAtOnce: 1}, durable(new(sandboxhttp.MemoryStore), nil), deaf))
	until(t, "the log says so", func() bool { return strings.Contains(s.log.String(), "cannot free all places") })
	s.exceeds(usage.LimitSandboxesAtOnce, "delete one first", true, "POST", "/sandbox", "")
	if !strings.Contains(s.log.String(), "cannot tell of all places") {
		t.Errorf("the log: %s", s.log)
	}
	l.fail("Places", 1)
	other := serve(t, p, metered(l, usage.Quota{}, durable(new(sandboxhttp.MemoryStore), nil)))
	until(t, "the log says so", func() bool { return strings.Contains(other.log.String(), "db-7") })
	if got := fmt.Sprint(ids(t, l.Ledger)); got != "[sb-unknown]" {
		t.Errorf("places %s", got)
	}
}
