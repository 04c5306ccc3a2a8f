package torture

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/clitest"
	"github.com/vivarium-go/vivarium/internal/pgtest"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

var (
	runs     = flag.Int("runs", 3, "how many agents")
	kills    = flag.Int("kills", 4, "how often a server is killed")
	restarts = flag.Int("restarts", 1, "how often the database crashes, or is restarted")
)

const (
	// steps is how many commands an agent runs.
	steps = 8
	// runLines is how many lines of a run there are at least, and boxLines how many of
	// them a creation and a deletion are worth: that much of the way is made then.
	runLines = 120
	boxLines = 10
	// patience is how long all of it may take.
	patience = 20 * time.Minute
)

func TestMain(m *testing.M) {
	if text := os.Getenv(serverVariable); text != "" {
		if err := serve(text); err != nil {
			fmt.Fprintln(os.Stderr, "server:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(pgtest.Main(m))
}

// torture is one.
type torture struct {
	*testing.T
	figures
	database *pgtest.Server
	p        *sandbox.Provider // for looking into sandboxes
	servers  []*server
	c        *client
	boxes    []*box
	progress atomic.Int64 // lines that followers have
}

// TestTorture is the whole of it.
func TestTorture(t *testing.T) {
	cli := clitest.CLI(t)
	tt := &torture{T: t, database: pgtest.Start(t)}
	url := tt.database.URL(t)
	dir, err := os.MkdirTemp("", "torture-") // shorter than t.TempDir, for the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if tt.p, err = localbox.Open(&localbox.Options{Dir: dir}); err != nil {
		t.Skipf("needs isolated sandboxes: %v", err)
	}
	defer tt.p.Close()
	t.Cleanup(tt.endSandboxes)
	s := &settings{Dir: dir, Database: url, CLI: keepingCLI, Mounts: mounts(t, cli)}
	for range 2 {
		tt.servers = append(tt.servers, newServer(t, s))
	}
	tt.c = &client{servers: tt.servers, http: http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	made := tt.cutWhile(func() { tt.live(ctx) })
	tt.settle(ctx, url, dir)
	tt.report(made)
}

// live has all sandboxes live at once.
func (t *torture) live(ctx context.Context) {
	for i := range *runs {
		if i%2 == 0 { // two runs in each
			t.boxes = append(t.boxes, t.newBox(i/2))
		}
		t.boxes[i/2].addRun(i)
	}
	var all sync.WaitGroup
	for _, b := range t.boxes {
		all.Go(func() {
			if err := b.live(ctx); err != nil {
				t.mu.Lock()
				t.lost++
				t.mu.Unlock()
				t.Errorf("%s: %v", b.name, err)
			}
		})
	}
	all.Wait()
}

// cutWhile kills servers and the database while something goes on, at points of its way
// that are chosen at random, and gives how often it did.
func (t *torture) cutWhile(live func()) (made cuts) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		live()
	}()
	var actions []func()
	for i := range *kills {
		s := t.servers[i%len(t.servers)]
		actions = append(actions, func() {
			s.kill()
			s.start(t.T)
			made.kills++
		})
	}
	for i := range *restarts {
		again := []func(testing.TB){t.database.Crash, t.database.Restart}[i%2]
		actions = append(actions, func() {
			again(t.T)
			made.restarts++
		})
	}
	rand.Shuffle(len(actions), func(i, j int) { actions[i], actions[j] = actions[j], actions[i] })
	all := float64(*runs*runLines + (*runs+1)/2*2*boxLines)
	at := make([]int64, len(actions)) // one is at the beginning
	for i := range at[min(1, len(at)):] {
		at[i+1] = int64(all * rand.Float64())
	}
	slices.Sort(at)
	for i, action := range actions {
		// Soon after another, at times: what starts is cut too.
		soon := i == 0 || rand.IntN(4) == 0
		for !soon && t.progress.Load() < at[i] && !isClosed(done) {
			pause(t.Context())
		}
		if soon {
			wait(t.Context(), time.Duration(rand.IntN(1500))*time.Millisecond)
		}
		if isClosed(done) {
			break
		}
		action()
	}
	<-done
	return made
}

// cuts are how often something was cut.
type cuts struct{ kills, restarts, connections int }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// settle looks at what there is when nothing is cut any more.
func (t *torture) settle(ctx context.Context, url, dir string) {
	db, err := openDatabase(url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, logs, err := openRecords(ctx, db, url)
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	for _, b := range t.boxes {
		for _, r := range b.runs {
			if r.path == "" {
				continue // which was told of
			}
			if err := r.settle(ctx, logs); err != nil {
				t.lost++
				t.Errorf("%s: %v", r.key, err)
			}
		}
	}
	for _, look := range []func(context.Context) error{t.counted, t.leftOver} {
		if err := look(ctx); err != nil {
			t.Error(err)
		}
	}
	for _, s := range t.servers {
		s.stop(t.T)
		if strings.Contains(s.said(t.T), "DATA RACE") {
			t.Errorf("a server has a data race: %s", s.said(t.T))
		}
	}
	if err := t.p.Close(); err != nil {
		t.Error(err)
	}
	t.remains(dir)
}

// report prints the figures.
func (t *torture) report(made cuts) {
	followers := 0
	for _, b := range t.boxes {
		for _, r := range b.runs {
			for i := range r.followers {
				made.connections += r.followers[i].cuts
				followers++
			}
		}
	}
	t.Logf("%d kills, %d crashes and restarts; %d followers were cut %d times; of %d lines; other answers: %v",
		made.kills, made.restarts, followers, made.connections, t.progress.Load(), t.c.answers)
	if t.Failed() {
		for i, s := range t.servers {
			t.Logf("server %d said:\n%s", i, s.said(t.T))
		}
	}
	if t.lost+t.doubled+t.orphans > 0 || t.finished != *runs {
		t.Errorf("lost %d, doubled %d, orphans %d, finished %d of %d", t.lost, t.doubled, t.orphans, t.finished, *runs)
	}
	vs := fmt.Sprintf("ratio=1 vs=%d_kills_%d_restarts_%d_cuts", made.kills, made.restarts, made.connections)
	fmt.Printf("FIGURE torture_lost %d lines %s\n", t.lost, vs)
	fmt.Printf("FIGURE torture_doubled %d lines %s\n", t.doubled, vs)
	fmt.Printf("FIGURE torture_orphans %d sandboxes %s\n", t.orphans, vs)
	fmt.Printf("FIGURE torture_runs %d runs %s\n", t.finished, vs)
}

// endSandboxes ends what a test that failed has left.
func (t *torture) endSandboxes() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	for info, err := range t.p.List(ctx, nil) {
		if err == nil {
			err = t.p.Terminate(ctx, info.ID)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
