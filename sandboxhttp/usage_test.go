package sandboxhttp_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// metered counts in a ledger, and gives every account the same quota.
func metered(l usage.Ledger, q usage.Quota, more ...func(*sandboxhttp.Config)) func(*sandboxhttp.Config) {
	return func(c *sandboxhttp.Config) {
		c.Usage = l
		c.Quota = func(context.Context, string) (usage.Quota, error) { return q, nil }
		for _, change := range more {
			change(c)
		}
	}
}

// exceeds asks for something that is refused by a limit, which names it and says what to
// do. wait is whether there is a time to come back.
func (s *server) exceeds(limit usage.Limit, remedy string, wait bool, method, path, body string, headers ...string) {
	s.t.Helper()
	resp := s.request(method, path, body, headers...)
	if resp.StatusCode != http.StatusTooManyRequests {
		s.t.Fatalf("%s %s: status %d, want 429", method, path, resp.StatusCode)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	text := string(data)
	for _, want := range []string{`"code":"exhausted"`, fmt.Sprintf(`"limit":%q`, limit), remedy, fmt.Sprintf(`"retryable":%v`, wait)} {
		if !strings.Contains(text, want) {
			s.t.Errorf("%s %s: want %s in %s", method, path, want, text)
		}
	}
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	if wait != (seconds > 0) {
		s.t.Errorf("%s %s: Retry-After %q", method, path, resp.Header.Get("Retry-After"))
	}
}

func TestRequestsPerSecond(t *testing.T) {
	quota := usage.Quota{RequestsPerSecond: 1e-6, Burst: 3}
	s := serve(t, emptyPlace(), metered(nil, quota))
	s.ask(200, "GET", "/sandbox", "")
	s.refused(404, "not_found", "GET", "/nothing", "")
	s.refused(405, "method_not_allowed", "DELETE", "/sandbox", "")
	s.exceeds(usage.LimitRequestsPerSecond, "send fewer", true, "GET", "/sandbox", "")
	s.as("acme viewer").exceeds(usage.LimitRequestsPerSecond, "send fewer", true, "GET", "/nothing", "")
	if after := s.request("GET", "/sandbox", "").Header.Get("Retry-After"); after != "86400" { // as long as it is said at most
		t.Errorf("Retry-After %q", after)
	}
	for range 5 { // nobody has to log in to ask for these
		s.ask(200, "GET", "/healthz", "")
		s.ask(200, "GET", "/readyz", "")
		s.as("").refused(401, "unauthenticated", "GET", "/sandbox", "")
	}
	s.as("other").ask(200, "GET", "/sandbox", "")
}

func TestNoRequestsAtAll(t *testing.T) {
	s := serve(t, emptyPlace(), metered(nil, usage.Quota{RequestsPerSecond: -1}))
	s.exceeds(usage.LimitRequestsPerSecond, "ask those who run this server", false, "GET", "/sandbox", "")
}

// What is wrong with quotas is for the log.
func TestQuotaThatCannotBeTold(t *testing.T) {
	s := serve(t, emptyPlace(), func(c *sandboxhttp.Config) {
		c.Quota = func(context.Context, string) (usage.Quota, error) {
			return usage.Quota{}, errors.New("the plans' secret store is down")
		}
	})
	if p := s.ask(500, "GET", "/sandbox", ""); p["code"] != "internal" || strings.Contains(fmt.Sprint(p), "plans") {
		t.Errorf("%v", p)
	}
	if !strings.Contains(s.log.String(), "secret store is down") {
		t.Errorf("the log does not say why: %s", s.log)
	}
}

// places gives those that are taken, as "kind id", without the run's or transfer's own part.
func places(t *testing.T, l usage.Ledger) (list []string) {
	t.Helper()
	all, err := l.Places(t.Context(), usage.Query{AllAccounts: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		list = append(list, fmt.Sprintf("%s of %s in %s", p.Kind, p.Account, p.SandboxID))
	}
	return list
}

// used gives what was used by everybody, on whatever day.
func used(t *testing.T, l usage.Ledger) (sum usage.Amounts) {
	t.Helper()
	days, err := l.Days(t.Context(), usage.Query{AllAccounts: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range days {
		sum = sum.Add(d.Amounts)
	}
	return sum
}

// counts checks how many places there are, and how many sandboxes were made.
func counts(t *testing.T, l usage.Ledger, taken int, sandboxes int64) {
	t.Helper()
	if got := places(t, l); len(got) != taken {
		t.Errorf("places %q, want %d", got, taken)
	}
	if got := used(t, l).Sandboxes; got != sandboxes {
		t.Errorf("%d sandboxes were made, want %d", got, sandboxes)
	}
}

func TestQuotaOfSandboxesAtOnce(t *testing.T) {
	p, l := newPlace(t, talk), new(usage.Memory)
	s := serve(t, p, metered(l, usage.Quota{SandboxesAtOnce: 2}))
	first := s.create("")
	s.create("")
	for _, headers := range [][]string{nil, {"Accept", "text/event-stream"}} {
		s.exceeds(usage.LimitSandboxesAtOnce, "delete one first", true, "POST", "/sandbox", "", headers...)
	}
	counts(t, l, 2, 2)
	s.ask(200, "DELETE", first, "")
	second := s.create("")
	// One that ended by itself makes room, though nobody has looked.
	boxOf(p, map[string]any{"id": strings.TrimPrefix(second, "/sandbox/")}).end(driver.EndIdle)
	s.create("")
	counts(t, l, 2, 4)
	s.as("other").create("")
	counts(t, l, 3, 5)
}

func TestQuotaOfSandboxesPerDay(t *testing.T) {
	p, l := newPlace(t, talk), new(usage.Memory)
	s := serve(t, p, metered(l, usage.Quota{PerDay: usage.Budget{Sandboxes: 2}}))
	for range 2 {
		s.ask(200, "DELETE", s.create(""), "")
	}
	s.exceeds(usage.LimitSandboxesPerDay, "wait until 00:00 UTC", true, "POST", "/sandbox", "")
	counts(t, l, 0, 2)
	none := serve(t, p, metered(new(usage.Memory), usage.Quota{PerDay: usage.Budget{Sandboxes: -1}}))
	none.exceeds(usage.LimitSandboxesPerDay, "ask those who run this server for more", false, "POST", "/sandbox", "")
}

// Whatever becomes of a sandbox, its place is free when it is over, and not before.
func TestPlacesOfSandboxesAreReleased(t *testing.T) {
	for name, c := range map[string]struct {
		do          func(t *testing.T, p *place, s *server)
		taken, made int
	}{
		"deleted": {func(t *testing.T, _ *place, s *server) { s.ask(200, "DELETE", s.create(""), "") }, 0, 1},
		"not made": {func(t *testing.T, p *place, s *server) {
			p.fail("create", driver.ErrUnavailable)
			s.refused(502, "provider_failed", "POST", "/sandbox", "")
		}, 0, 0},
		"made but not filled": {func(t *testing.T, p *place, s *server) {
			s.refused(502, "restore_failed", "POST", "/sandbox", `{"volume_name":"w"}`)
		}, 0, 0},
		"ended by itself, and looked at": {func(t *testing.T, p *place, s *server) {
			box := s.create("")
			p.only().end(driver.EndIdle)
			s.ask(200, "GET", box, "")
		}, 0, 1},
		"ended by itself, and listed": {func(t *testing.T, p *place, s *server) {
			s.create("")
			p.only().end(driver.EndIdle)
			s.ask(200, "GET", "/sandbox", "")
		}, 0, 1},
		"lost by its place": {func(t *testing.T, p *place, s *server) {
			s.create("")
			p.mu.Lock()
			clear(p.boxes)
			p.mu.Unlock()
			s.ask(200, "GET", "/sandbox", "")
		}, 0, 1},
		"may live though it was not made": {func(t *testing.T, p *place, s *server) {
			p.fail("terminate", driver.ErrUnavailable)
			s.refused(502, "restore_failed", "POST", "/sandbox", `{"volume_name":"w"}`)
		}, 1, 0},
		"lives": {func(t *testing.T, p *place, s *server) {
			box := s.create("")
			p.fail("terminate", driver.ErrUnavailable)
			s.refused(502, "provider_failed", "DELETE", box, "")
		}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p, l := newPlace(t, talk), new(usage.Memory)
			c.do(t, p, serve(t, p, metered(l, usage.Quota{}, volumesIn(unlisted{new(storagetest.Memory)}))))
			counts(t, l, c.taken, int64(c.made))
		})
	}
}

// brittle is a store and a ledger that fail as a test says.
type brittle struct {
	sandboxhttp.Store
	usage.Ledger
	mu    sync.Mutex
	fault map[string]int // by method: so many calls fail
}

func newBrittle() *brittle {
	return &brittle{Store: new(sandboxhttp.MemoryStore), Ledger: new(usage.Memory), fault: map[string]int{}}
}

var errBrittle = errors.New("the disk of db-7 is full")

func (b *brittle) fail(method string, times int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault[method] = times
}

func (b *brittle) check(method string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fault[method] == 0 {
		return nil
	}
	b.fault[method]--
	return errBrittle
}

func (b *brittle) unless(method string, do func() error) error {
	if err := b.check(method); err != nil {
		return err
	}
	return do()
}

func (b *brittle) SaveSandbox(ctx context.Context, rec *sandboxhttp.Sandbox) error {
	return b.unless("SaveSandbox", func() error { return b.Store.SaveSandbox(ctx, rec) })
}

func (b *brittle) SaveRun(ctx context.Context, rec *sandboxhttp.Run) error {
	return b.unless("SaveRun", func() error { return b.Store.SaveRun(ctx, rec) })
}

// Reserve fails after it was done, as that may be.
func (b *brittle) Reserve(ctx context.Context, r usage.Reservation) (usage.Place, error) {
	place, err := b.Ledger.Reserve(ctx, r)
	return place, cmp.Or(b.check("Reserve"), err)
}

func (b *brittle) Release(ctx context.Context, account string, kind usage.Kind, id string) error {
	return b.unless("Release", func() error { return b.Ledger.Release(ctx, account, kind, id) })
}

func (b *brittle) Add(ctx context.Context, e usage.Entry) error {
	return b.unless("Add", func() error { return b.Ledger.Add(ctx, e) })
}

func (b *brittle) Places(ctx context.Context, q usage.Query) (list []usage.Place, err error) {
	err = b.unless("Places", func() error { list, err = b.Ledger.Places(ctx, q); return err })
	return list, err
}

func (b *brittle) Days(ctx context.Context, q usage.Query) (list []usage.Day, err error) {
	err = b.unless("Days", func() error { list, err = b.Ledger.Days(ctx, q); return err })
	return list, err
}

func TestSandboxThatCannotBeCountedOrRecorded(t *testing.T) {
	for _, method := range []string{"Reserve", "SaveSandbox"} {
		p, l := newPlace(t, talk), newBrittle()
		s := serve(t, p, metered(l, usage.Quota{}, func(c *sandboxhttp.Config) { c.Store = l }))
		l.fail(method, 2) // the second time after a look at what has ended
		if p := s.ask(500, "POST", "/sandbox", ""); strings.Contains(fmt.Sprint(p), "db-7") {
			t.Errorf("%v", p)
		}
		counts(t, l.Ledger, 0, 0)
		l.fail(method, 0)
		s.ask(200, "DELETE", s.create(""), "")
		counts(t, l.Ledger, 0, 1)
	}
}

// The ledger is told in the end.
func TestLedgerThatFailsForAWhile(t *testing.T) {
	p, l := newPlace(t, talk), newBrittle()
	s := serve(t, p, metered(l, usage.Quota{}))
	l.fail("Add", 2)
	l.fail("Release", 2)
	box := s.create("")
	until(t, "it is counted", func() bool { return used(t, l.Ledger).Sandboxes == 1 })
	s.ask(200, "DELETE", box, "")
	until(t, "its place is free", func() bool { return len(places(t, l.Ledger)) == 0 })
	// One that never works again does not hold up the end.
	l.fail("Add", 1<<30)
	s.create("")
	s.close()
	if !strings.Contains(s.log.String(), "the ledger was not told") || !strings.Contains(s.log.String(), "db-7") {
		t.Errorf("the log: %s", s.log)
	}
}

// A sandbox counts on the day it was made, whenever that is said.
func TestDayOfASandbox(t *testing.T) {
	p, l, store := newPlace(t, talk), new(usage.Memory), new(sandboxhttp.MemoryStore)
	made := time.Now().Add(-48 * time.Hour)
	leftBox(t, p, store, "sb-1", sandboxhttp.StateRunning, "", true, made)
	s := serve(t, p, metered(l, usage.Quota{}, durable(store, nil)))
	s.ask(200, "DELETE", "/sandbox/sb-1", "")
	days, err := l.Days(t.Context(), usage.Query{Account: "acme"})
	if err != nil || len(days) != 1 || !days[0].Date.Equal(usage.DayOf(made)) {
		t.Errorf("days %v, %v", days, err)
	}
}

// A ledger that begins anew with the server knows what lives, which was made before.
func TestSandboxesOfBeforeHavePlaces(t *testing.T) {
	for name, store := range map[string]sandboxhttp.Store{"records": new(sandboxhttp.MemoryStore), "tags": nil} {
		t.Run(name, func(t *testing.T) {
			p, quota := newPlace(t, talk), usage.Quota{SandboxesAtOnce: 1}
			first := serve(t, p, metered(nil, quota, durable(store, nil)))
			box := first.create("")
			first.close()
			l := new(usage.Memory)
			s := serve(t, p, metered(l, quota, durable(store, nil)))
			s.exceeds(usage.LimitSandboxesAtOnce, "delete one first", true, "POST", "/sandbox", "")
			counts(t, l, 1, 1)
			s.ask(200, "DELETE", box, "")
			counts(t, l, 0, 1)
			s.create("")
		})
	}
}
