package sandboxhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// paced plays lines as a test lets it, and counts how often the CLI was started.
type paced struct {
	gate   chan struct{}
	starts atomic.Int32
}

func newPaced() *paced { return &paced{gate: make(chan struct{})} }

// play says "line N" for each value of the gate, and succeeds when that is closed.
func (p *paced) play(pl *player) {
	p.starts.Add(1)
	for i := 1; ; i++ {
		pl.say(fmt.Sprint("line ", i))
		select {
		case _, more := <-p.gate:
			if !more {
				pl.succeed()
				return
			}
		case <-pl.interrupted:
			pl.stopped()
			return
		case <-pl.ctx.Done():
			return
		}
	}
}

// durable keeps records, and with logs also what was written.
func durable(store sandboxhttp.Store, logs runlog.Store) func(*sandboxhttp.Config) {
	return func(c *sandboxhttp.Config) { c.Store, c.Logs = store, logs }
}

// withAndWithoutLogs runs a test with logs and without.
func withAndWithoutLogs(t *testing.T, test func(t *testing.T, logs runlog.Store)) {
	t.Run("with logs", func(t *testing.T) {
		logs, err := runlog.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		test(t, logs)
	})
	t.Run("without logs", func(t *testing.T) { test(t, nil) })
}

// shutdown lets go of all that goes on.
func (s *server) shutdown() {
	s.t.Helper()
	if err := s.handler.Shutdown(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// A run goes on while no server is there, and the next one shows all of it, once.
func TestRunsOutliveTheServer(t *testing.T) {
	withAndWithoutLogs(t, func(t *testing.T, logs runlog.Store) {
		cli := newPaced()
		p, keep := newPlace(t, cli.play), durable(new(sandboxhttp.MemoryStore), logs)
		first := serve(t, p, keep)
		box := first.create("")
		f := first.prompt(box, "go")
		run := f.run(box)
		seen := f.must()
		first.shutdown()
		if e, err := f.next(); err != nil || e.name != "reconnect" {
			t.Fatalf("the stream of a server that ends: %+v, %v", e, err)
		}
		if e, err := f.next(); err != io.EOF {
			t.Fatalf("after that: %+v, %v", e, err)
		}
		cli.gate <- struct{}{} // nobody is there

		s := serve(t, p, keep)
		g := s.follow("GET", run+"/events", "", "Last-Event-ID", fmt.Sprint(seen.id))
		if e := g.must(); e.id != seen.id+1 || !strings.Contains(e.data, "line 2") {
			t.Errorf("the first after the last that was seen: %+v", e)
		}
		if got := s.ask(200, "GET", run, ""); got["state"] != "running" || got["session_id"] == nil {
			t.Errorf("the run is %v", got)
		}
		close(cli.gate)
		if end := g.end(); end["end"] != "completed" {
			t.Errorf("end %v", end)
		}
		for _, s := range []*server{s, serve(t, p, keep)} {
			events := s.follow("GET", run+"/events", "").all()
			if last := events[len(events)-1]; last.name != "end" || last.id != 5 || logs != nil && len(events) != 4 {
				t.Errorf("all of it: %v", events)
			}
		}
		if n := cli.starts.Load(); n != 1 {
			t.Errorf("the CLI was started %d times", n)
		}
		if left := p.only().jobs(); len(left) > 0 {
			t.Errorf("left in the sandbox: %q", left)
		}
	})
}

// A run whose record was written, and then its server killed, is begun by the next.
func TestRunThatWasNotBegun(t *testing.T) {
	for request, want := range map[string]string{`{"prompt":"2","model":"m"}`: "completed", "": "unknown"} {
		p, store := newPlace(t, talk), new(sandboxhttp.MemoryStore)
		box := serve(t, p, durable(store, nil)).create("")
		rec := &sandboxhttp.Run{
			ID: "run-1", SandboxID: strings.TrimPrefix(box, "/sandbox/"), Account: "acme", Prompt: "2",
			State: sandboxhttp.StateRunning, Request: request,
		}
		if err := store.SaveRun(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		s := serve(t, p, durable(store, nil))
		if end := s.follow("GET", box+"/runs/run-1/events", "").end(); end["end"] != want {
			t.Errorf("with the request %q: %v", request, end)
		}
	}
}

// A run comes to its end at the next server also when nobody asks for it.
func TestRunThatNobodyAsksFor(t *testing.T) {
	cli, store := newPaced(), new(sandboxhttp.MemoryStore)
	p := newPlace(t, cli.play)
	first := serve(t, p, durable(store, nil))
	box := first.create("")
	f := first.prompt(box, "go")
	f.must()
	first.shutdown()
	close(cli.gate)
	serve(t, p, durable(store, nil))
	until(t, "its end is recorded", func() bool {
		rec, err := store.Run(t.Context(), "acme", strings.TrimPrefix(box, "/sandbox/"), strings.TrimPrefix(f.run(box), box+"/runs/"))
		return err == nil && rec.State == sandboxhttp.StateEnded && rec.End == "completed"
	})
}

// The second of two servers with the same records and logs shows what the first one
// looks after, interrupts it, and goes on with it when the first one is gone.
func TestTwoServers(t *testing.T) {
	dir, cli := t.TempDir(), newPaced()
	open := func() runlog.Store { // as two processes have them
		logs, err := runlog.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return logs
	}
	p, store := newPlace(t, cli.play), new(sandboxhttp.MemoryStore)
	first, second := serve(t, p, durable(store, open())), serve(t, p, durable(store, open()))
	box := first.create("")
	f := first.prompt(box, "go")
	f.must()
	run := f.run(box)
	var feeds []*feed
	for range 3 {
		feeds = append(feeds, second.follow("GET", run+"/events", ""))
	}
	for _, g := range feeds {
		if e := g.must(); !strings.Contains(e.data, "line 1") {
			t.Errorf("%+v", e)
		}
	}
	if got := second.ask(200, "GET", run, ""); got["state"] != "running" {
		t.Errorf("at the second: %v", got)
	}
	cli.gate <- struct{}{}
	f.must()
	for _, g := range feeds {
		if e := g.must(); !strings.Contains(e.data, "line 2") {
			t.Errorf("%+v", e)
		}
	}
	second.refused(503, "elsewhere", "POST", run+"/interrupt", "")
	second.refused(503, "elsewhere", "POST", run+"/answer", `{"question":"q","allow":true}`)
	first.shutdown()
	until(t, "the second looks after it", func() bool {
		return second.request("POST", run+"/interrupt", "").StatusCode == http.StatusAccepted
	})
	for _, g := range feeds {
		if end := g.end(); end["end"] != "cancelled" {
			t.Errorf("end %v", end)
		}
	}
	if n := cli.starts.Load(); n != 1 {
		t.Errorf("the CLI was started %d times", n)
	}
}

// No server restores files that a run of another one works with.
func TestNoRestoreDuringARunElsewhere(t *testing.T) {
	logs, cli := new(runlog.Memory), newPaced()
	p, store, volumes := newPlace(t, cli.play), new(sandboxhttp.MemoryStore), volumesIn(new(storagetest.Memory))
	keep := func(c *sandboxhttp.Config) { durable(store, logs)(c); volumes(c) }
	first, second := serve(t, p, keep), serve(t, p, keep)
	box := first.create(`{"volume_name":"w"}`)
	version := fmt.Sprintf(`{"version":%q}`, second.ask(201, "POST", box+"/sync", "")["id"])
	f := first.prompt(box, "go")
	f.must()
	second.refused(409, "run_in_progress", "POST", box+"/restore", version)
	close(cli.gate)
	f.all()
	second.ask(200, "POST", box+"/restore", version)
}

// Who sends a prompt again with its key, because the server was gone, gets the same run.
func TestSameKeyAfterARestart(t *testing.T) {
	withAndWithoutLogs(t, func(t *testing.T, logs runlog.Store) {
		cli := newPaced()
		p, keep := newPlace(t, cli.play), durable(new(sandboxhttp.MemoryStore), logs)
		first := serve(t, p, keep)
		box := first.create("")
		f := first.prompt(box, "go", "Idempotency-Key", "k")
		f.must()
		first.shutdown()
		s := serve(t, p, keep)
		g := s.prompt(box, "go", "Idempotency-Key", "k")
		if g.run(box) != f.run(box) {
			t.Errorf("the runs are %s and %s", f.run(box), g.run(box))
		}
		s.refused(422, "idempotency_mismatch", "POST", box+"/claude", `{"prompt":"other"}`, "Idempotency-Key", "k")
		close(cli.gate)
		if end := g.end(); end["end"] != "completed" || cli.starts.Load() != 1 {
			t.Errorf("end %v, started %d times", end, cli.starts.Load())
		}
	})
}

// What is no longer in memory comes from the log: there is no gap.
func TestNoGapWithLogs(t *testing.T) {
	const n = 5000
	logs, err := runlog.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, newPlace(t, talk), func(c *sandboxhttp.Config) {
		durable(new(sandboxhttp.MemoryStore), logs)(c)
		c.Limits.RunBytes, c.Limits.EventBytes = 64<<10, 1
	})
	box := s.create("")
	f := s.prompt(box, fmt.Sprint(n))
	f.close()
	until(t, "the run's end", func() bool { return s.ask(200, "GET", f.run(box), "")["state"] == "ended" })
	for _, after := range []int{0, 3, n} {
		g := s.follow("GET", fmt.Sprintf("%s/events?after=%d", f.run(box), after), "")
		for id := after + 1; id <= n+3; id++ {
			if e, err := g.next(); err != nil || e.id != id {
				t.Fatalf("after %d: event %d, %v, want %d", after, e.id, err, id)
			}
		}
	}
	s.ask(200, "DELETE", box, "")
}

// unreadableLogs cannot be read as long as there is a fault.
type unreadableLogs struct {
	runlog.Store
	fault atomic.Pointer[error]
}

func (u *unreadableLogs) Read(ctx context.Context, run string, from int64) iter.Seq2[runlog.Line, error] {
	fault := u.fault.Load()
	if fault == nil {
		return u.Store.Read(ctx, run, from)
	}
	return func(yield func(runlog.Line, error) bool) {
		for line, err := range u.Store.Read(ctx, run, from) {
			if line.N == from+1 {
				yield(runlog.Line{}, *fault)
				return
			}
			if !yield(line, err) {
				return
			}
		}
	}
}

// A log that cannot be read for a while costs nobody an event, and one that is damaged
// is said to be.
func TestLogsThatCannotBeRead(t *testing.T) {
	logs := &unreadableLogs{Store: new(runlog.Memory)}
	s := serve(t, newPlace(t, talk), func(c *sandboxhttp.Config) {
		durable(new(sandboxhttp.MemoryStore), logs)(c)
		c.Limits.EventBytes = 1
	})
	box := s.create("")
	f := s.prompt(box, "5")
	f.all()
	s.prompt(box, "1").all() // now the first is not in memory any more
	for want, fault := range map[string]error{"reconnect": syscall.ECONNREFUSED, "gap": fmt.Errorf("line 3: %w", runlog.ErrCorrupt)} {
		logs.fault.Store(&fault)
		g := s.follow("GET", f.run(box)+"/events", "", "Last-Event-ID", "1")
		first, err := g.next()
		second, secondErr := g.next()
		if err := errors.Join(err, secondErr); err != nil || first.id != 2 || second.name != want {
			t.Errorf("%v: %+v, %+v, %v", fault, first, second, err)
		}
	}
	logs.fault.Store(nil)
	g := s.follow("GET", f.run(box)+"/events", "", "Last-Event-ID", "2")
	if e, err := g.next(); err != nil || e.id != 3 || g.end()["end"] != "completed" {
		t.Errorf("then %+v, %v", e, err)
	}
}

// forgetfulStore saves the first run and says that it did not. When that is removed, it
// looks whether another server could take it over.
type forgetfulStore struct {
	sandboxhttp.Store
	logs  runlog.Store
	saved atomic.Bool
	taken error
}

func (f *forgetfulStore) SaveRun(ctx context.Context, r *sandboxhttp.Run) error {
	err := f.Store.SaveRun(ctx, r)
	if err == nil && !f.saved.Swap(true) {
		err = errors.New("the connection was lost")
	}
	return err
}

func (f *forgetfulStore) DeleteRun(ctx context.Context, account, box, id string) error {
	w, err := f.logs.Write(ctx, id)
	if f.taken = err; err == nil {
		_ = w.Close()
	}
	return f.Store.DeleteRun(ctx, account, box, id)
}

// A run whose record is there although saving it failed is removed before anybody else
// may take it over, and is begun by the next request.
func TestRunThatWasSavedUnnoticed(t *testing.T) {
	cli, logs := newPaced(), new(runlog.Memory)
	store := &forgetfulStore{Store: new(sandboxhttp.MemoryStore), logs: logs}
	s := serve(t, newPlace(t, cli.play), durable(store, logs))
	box := s.create("")
	s.refused(500, "internal", "POST", box+"/claude", `{"prompt":"go"}`, "Idempotency-Key", "k")
	if !errors.Is(store.taken, runlog.ErrBusy) {
		t.Errorf("while it was removed, its lease was to be had: %v", store.taken)
	}
	if list := s.ask(200, "GET", box+"/runs", "")["runs"].([]any); len(list) != 0 {
		t.Errorf("there are runs: %v", list)
	}
	close(cli.gate)
	if end := s.prompt(box, "go", "Idempotency-Key", "k").end(); end["end"] != "completed" || cli.starts.Load() != 1 {
		t.Errorf("end %v, started %d times", end, cli.starts.Load())
	}
}

// Shutdown without records waits for the runs, and with records does not: its context's
// end changes nothing about them.
func TestShutdownLetsGoAtOnce(t *testing.T) {
	cli := newPaced()
	p, keep := newPlace(t, cli.play), durable(new(sandboxhttp.MemoryStore), nil)
	s := serve(t, p, keep)
	box := s.create("")
	f := s.prompt(box, "go")
	f.must()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.handler.Shutdown(ctx) // may say that the context had ended
	if got := s.ask(200, "GET", f.run(box), ""); got["state"] != "running" {
		t.Errorf("the run is %v", got)
	}
	s.refused(503, "shutting_down", "GET", f.run(box)+"/events", "")
	close(cli.gate)
	if end := serve(t, p, keep).follow("GET", f.run(box)+"/events", "").end(); end["end"] != "completed" {
		t.Errorf("end %v", end)
	}
}

// failingLogs take nothing as long as they are broken; each failure uses a Writer up.
type failingLogs struct {
	runlog.Store
	broken atomic.Bool
	failed atomic.Int32
}

func (f *failingLogs) Write(ctx context.Context, run string) (runlog.Writer, error) {
	w, err := f.Store.Write(ctx, run)
	if err != nil {
		return nil, err
	}
	return &failingLog{Writer: w, logs: f}, nil
}

type failingLog struct {
	runlog.Writer
	logs *failingLogs
	used bool
}

func (f *failingLog) fail() error {
	if f.used = f.used || f.logs.broken.Load(); f.used {
		f.logs.failed.Add(1)
		return syscall.ENOSPC
	}
	return nil
}

// Append may have taken the lines all the same.
func (f *failingLog) Append(ctx context.Context, lines [][]byte) error {
	if f.logs.failed.Load()%2 == 0 && !f.used {
		if err := f.Writer.Append(ctx, lines); err != nil {
			return err
		}
		return f.fail()
	}
	if err := f.fail(); err != nil {
		return err
	}
	return f.Writer.Append(ctx, lines)
}

func (f *failingLog) Finish(ctx context.Context, end runlog.End) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.Writer.Finish(ctx, end)
}

// failingStore saves no run that has ended, as long as it is broken.
type failingStore struct {
	sandboxhttp.Store
	broken atomic.Bool
	failed atomic.Int32
}

func (f *failingStore) SaveRun(ctx context.Context, r *sandboxhttp.Run) error {
	if f.broken.Load() && r.State == sandboxhttp.StateEnded {
		f.failed.Add(1)
		return errors.New("the database is down")
	}
	return f.Store.SaveRun(ctx, r)
}

// A log that fails, with a full disk for one, keeps nothing from followers, and has
// every line once when it works again. So has the record the end.
func TestLogsAndRecordsThatFail(t *testing.T) {
	cli, logs, store := newPaced(), &failingLogs{Store: new(runlog.Memory)}, &failingStore{Store: new(sandboxhttp.MemoryStore)}
	s := serve(t, newPlace(t, cli.play), durable(store, logs))
	box := s.create("")
	f := s.prompt(box, "go")
	f.must()
	logs.broken.Store(true)
	for i := range 3 {
		cli.gate <- struct{}{}
		if e := f.must(); e.id != i+3 {
			t.Fatalf("event %+v of a run whose log fails", e)
		}
	}
	until(t, "failures", func() bool { return logs.failed.Load() > 2 })
	store.broken.Store(true)
	close(cli.gate)
	if e := f.must(); !strings.Contains(e.data, "success") {
		t.Errorf("the result came as %+v", e)
	}
	logs.broken.Store(false)
	until(t, "failures of the store", func() bool { return store.failed.Load() > 1 })
	if got := s.ask(200, "GET", f.run(box), ""); got["state"] != "running" {
		t.Errorf("a run whose end is not recorded: %v", got)
	}
	store.broken.Store(false)
	if end := f.end(); end["end"] != "completed" {
		t.Errorf("end %v", end)
	}
	shown := s.follow("GET", f.run(box)+"/events", "")
	n := int64(0)
	for line, err := range logs.Read(t.Context(), strings.TrimPrefix(f.run(box), box+"/runs/"), 1) {
		e, next := shown.next()
		if err := errors.Join(err, next); err != nil || e.data+"\n" != string(line.Data) || int64(e.id) != line.N {
			t.Fatalf("line %d is %q in the log, and was shown as %+v, %v", line.N, line.Data, e, err)
		}
		n++
	}
	if e := shown.must(); e.name != "end" || n != 6 || cli.starts.Load() != 1 {
		t.Errorf("%d lines, then %+v; the CLI was started %d times", n, e, cli.starts.Load())
	}
}
