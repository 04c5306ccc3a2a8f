package torture

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/claudetest"
	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/claude/runlog/pglog"
	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/internal/pgtest"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

var (
	runs     = flag.Int("runs", 3, "how many agents")
	kills    = flag.Int("kills", 4, "how often the server is killed")
	restarts = flag.Int("restarts", 1, "how often the database crashes")
)

// steps is how many commands an agent runs.
const steps = 8

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverDir); dir != "" {
		if err := serve(context.Background(), dir, os.Getenv(serverURL), strings.Fields(os.Getenv(serverBoxes))); err != nil {
			fmt.Fprintln(os.Stderr, "server:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(pgtest.Main(m))
}

// The environment of a server.
const (
	serverDir   = "TORTURE_DIR"
	serverURL   = "TORTURE_DATABASE"
	serverBoxes = "TORTURE_BOXES"
)

// serve does what a server does that may be killed at any time: it sees to it that each
// run comes to its end, and ends itself when all have.
func serve(ctx context.Context, dir, url string, boxes []string) error {
	p, err := localbox.Open(&localbox.Options{Dir: dir})
	if err != nil {
		return err
	}
	logs, done, err := openLogs(ctx, url)
	if err != nil {
		return err
	}
	defer done()
	var all sync.WaitGroup
	for i, id := range boxes {
		all.Go(func() {
			for drive(ctx, p, logs, id, runName(i)) != nil { // whatever it is, it is tried again
				pause(ctx)
			}
		})
	}
	all.Wait()
	return nil
}

func pause(ctx context.Context) {
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func runName(i int) string { return fmt.Sprintf("run-%d", i) }

// drive brings a run to its end, or as far as it can.
func drive(ctx context.Context, p *sandbox.Provider, logs runlog.Store, id, run string) error {
	w, err := logs.Write(ctx, run)
	if err != nil {
		return err
	}
	defer w.Close()
	if w.Info().End != nil {
		return nil
	}
	sb, err := p.Attach(ctx, id)
	if err != nil {
		return err
	}
	defer sb.Close()
	journal := runlog.NewJournal(ctx, w)
	client := claude.NewClient(sb, &claude.Options{
		PermissionMode: claude.PermissionBypass, Journal: journal,
		Endpoint: claude.Endpoint{Handler: claudetest.NewHandler(claudetest.Prompted(), nil)},
	})
	var prompt strings.Builder
	for i := range steps {
		fmt.Fprintf(&prompt, "run: echo %d >>done\n", i)
	}
	st, err := client.Start(ctx, run, prompt.String())
	if errors.Is(err, fs.ErrExist) {
		st, err = client.Adopt(ctx, run)
	}
	if err != nil {
		return err
	}
	defer st.Detach()
	if _, err = st.Result(); errors.Is(err, claude.ErrDetached) {
		return err
	}
	end := runlog.End{Reason: claude.EndOf(err)}
	if err != nil {
		end.Detail = err.Error()
	}
	if err := journal.Flush(); err != nil {
		return err
	}
	return w.Finish(ctx, end)
}

// openLogs opens the logs of runs, and tries until the database is there.
func openLogs(ctx context.Context, url string) (*pglog.Store, func(), error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return nil, nil, err
	}
	for range 200 {
		var logs *pglog.Store
		if logs, err = pglog.Open(ctx, db, &pglog.Options{Listen: pgtest.Listen(url)}); err == nil {
			return logs, func() { _, _ = logs.Close(), db.Close() }, nil
		}
		pause(ctx)
	}
	return nil, nil, errors.Join(err, db.Close())
}

// follower reads a log from one cut to the next, and keeps what it was given.
type follower struct {
	got  strings.Builder
	cuts int
}

func (f *follower) follow(ctx context.Context, logs runlog.Store, run string) {
	for next := int64(1); ctx.Err() == nil; {
		bounded, cut := context.WithCancel(ctx)
		left := 1 + rand.IntN(15) // lines until it is cut
		ended := true
		for line, err := range logs.Follow(bounded, run, next) {
			if err != nil {
				ended = false
				break
			}
			next = line.N + 1
			f.got.Write(line.Data)
			if left--; left == 0 {
				cut()
			}
		}
		cut()
		if ended {
			return
		}
		if left <= 0 {
			f.cuts++
		}
		pause(ctx)
	}
}

// TestTorture is the whole of it.
func TestTorture(t *testing.T) {
	cli := clitest.CLI(t)
	database := pgtest.Start(t)
	url := database.URL(t)
	dir, err := os.MkdirTemp("", "torture-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p, err := localbox.Open(&localbox.Options{Dir: dir})
	if err != nil {
		t.Skipf("needs isolated sandboxes: %v", err)
	}
	defer p.Close()
	boxes := make([]*sandbox.Sandbox, *runs)
	for i := range boxes {
		if boxes[i], err = p.Create(t.Context(), &sandbox.Config{Mounts: cli.Mounts(), Timeout: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	logs, done, err := openLogs(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	followers := make([]follower, 2**runs)
	var following sync.WaitGroup
	for i := range followers {
		following.Go(func() { followers[i].follow(t.Context(), logs, runName(i/2)) })
	}
	cutServers(t, database, dir, url, boxes)
	following.Wait()

	var f figures
	cuts := 0
	for i, sb := range boxes {
		f.check(t, logs, sb, i, followers[2*i:2*i+2])
		cuts += followers[2*i].cuts + followers[2*i+1].cuts
	}
	f.orphans += leftOver(t, p, boxes)
	t.Logf("%d followers were cut %d times", len(followers), cuts)
	if f.lost+f.doubled+f.orphans > 0 {
		t.Errorf("lost %d, doubled %d, orphans %d", f.lost, f.doubled, f.orphans)
	}
	vs := fmt.Sprintf("ratio=1 vs=%d_kills_%d_restarts_%d_cuts", *kills, *restarts, cuts)
	fmt.Printf("FIGURE torture_lost %d lines %s\n", f.lost, vs)
	fmt.Printf("FIGURE torture_doubled %d lines %s\n", f.doubled, vs)
	fmt.Printf("FIGURE torture_orphans %d sandboxes %s\n", f.orphans, vs)
	fmt.Printf("FIGURE torture_runs %d runs %s\n", f.finished, vs)
}

// cutServers has a server bring the runs to their ends, and kills it, and what starts in
// its place, at random moments; the database meanwhile too.
func cutServers(t *testing.T, database *pgtest.Server, dir, url string, boxes []*sandbox.Sandbox) {
	t.Helper()
	ids := make([]string, len(boxes))
	for i, sb := range boxes {
		ids[i] = sb.ID()
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i := range *kills + 1 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), serverDir+"="+dir, serverURL+"="+url, serverBoxes+"="+strings.Join(ids, " "))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		if i < *kills {
			// A server with more runs needs longer until it works on any.
			timer := time.NewTimer(time.Duration(200+rand.IntN(1000+200**runs)) * time.Millisecond)
			if i < *restarts {
				database.Crash(t)
			}
			<-timer.C
			_ = cmd.Process.Kill()
			<-ended // it was killed, or had nothing more to do
			continue
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the last server: %v", err)
			}
		case <-time.After(10 * time.Minute):
			_ = cmd.Process.Kill()
			<-ended
			t.Fatal("the runs do not come to their ends")
		}
	}
}

// figures are what must be 0, and how many runs have come to their end.
type figures struct{ lost, doubled, orphans, finished int }

// check compares all that is known of a run.
func (f *figures) check(t *testing.T, logs runlog.Store, sb *sandbox.Sandbox, i int, followers []follower) {
	t.Helper()
	ctx, run := t.Context(), runName(i)
	job, err := sb.Job(ctx, run)
	if err != nil {
		t.Error(err)
		f.lost++
		return
	}
	info, infoErr := logs.Stat(ctx, run)
	st, err := job.Status(ctx)
	if err := errors.Join(err, infoErr); err != nil {
		t.Error(err)
		f.lost++
		return
	}
	if info.End == nil || st.Exit == nil || info.End.Reason != claude.EndCompleted {
		t.Errorf("%s: its log ends with %+v, its job with %+v", run, info.End, st)
		f.lost++
	} else {
		f.finished++
	}
	out, err := job.Output(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	journal, err := io.ReadAll(out)
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	for j := range followers {
		f.compare(t, fmt.Sprintf("%s, follower %d", run, j), followers[j].got.String(), string(journal))
	}
	var logged strings.Builder
	for line, err := range logs.Read(ctx, run, 1) {
		if err != nil {
			t.Fatal(err)
		}
		logged.Write(line.Data)
	}
	f.compare(t, run+", the log", logged.String(), string(journal))
	var want strings.Builder
	for step := range steps {
		fmt.Fprintln(&want, step)
	}
	did, err := sb.FS(ctx).ReadFile("done")
	if err != nil {
		t.Error(err)
	}
	f.compare(t, run+", what Claude did", string(did), want.String())
}

// compare counts the lines that are missing, and those that are there too often.
func (f *figures) compare(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	times := map[string]int{}
	for line := range strings.Lines(want) {
		times[line]++
	}
	for line := range strings.Lines(got) {
		times[line]--
	}
	lost, doubled := 0, 0
	for _, n := range times {
		lost += max(n, 0)
		doubled += max(-n, 0)
	}
	if lost+doubled == 0 { // only the order is another
		lost = 1
	}
	f.lost += lost
	f.doubled += doubled
	t.Errorf("%s: %d bytes, want %d: %d lines are missing, %d too many", what, len(got), len(want), lost, doubled)
}

// leftOver counts the sandboxes and jobs that nobody knows of, and ends the others.
func leftOver(t *testing.T, p *sandbox.Provider, boxes []*sandbox.Sandbox) int {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	var orphans atomic.Int64
	known := map[string]bool{}
	for _, sb := range boxes {
		known[sb.ID()] = true
		n := 0
		for _, err := range sb.Jobs(ctx) {
			if err != nil {
				t.Error(err)
			}
			n++
		}
		if n != 1 {
			t.Errorf("there are %d jobs in a sandbox", n)
			orphans.Add(1)
		}
	}
	for info, err := range p.List(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if !known[info.ID] {
			t.Errorf("nobody knows of sandbox %s", info.ID)
			orphans.Add(1)
		}
	}
	for _, sb := range boxes {
		if err := errors.Join(sb.Terminate(ctx), sb.Close()); err != nil {
			t.Error(err)
		}
	}
	for info, err := range p.List(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("sandbox %s is left", info.ID)
		orphans.Add(1)
	}
	return int(orphans.Load())
}
