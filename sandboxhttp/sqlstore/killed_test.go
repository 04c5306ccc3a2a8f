package sqlstore_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/internal/pgtest"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
)

// childVariable has a database for a child process to write to until it is killed.
const childVariable = "SQLSTORE_TEST_CHILD"

// child saves a sandbox and a run again and again, and says so after each.
func child() {
	fields := strings.SplitN(os.Getenv(childVariable), " ", 3)
	dialect, err := strconv.Atoi(fields[0])
	db, openErr := sql.Open(fields[1], fields[2])
	if err != nil || openErr != nil {
		panic(fmt.Sprint(err, openErr))
	}
	s, err := sqlstore.Open(context.Background(), db, sqlstore.Dialect(dialect))
	if err != nil {
		panic(err)
	}
	var saying sync.Mutex
	for i := range 3 {
		go func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("sb-%d-%d", i, n)
				if err := saveBoth(context.Background(), s, id); err != nil {
					panic(err)
				}
				saying.Lock()
				fmt.Println(id)
				saying.Unlock()
			}
		}()
	}
	select {}
}

var longPrompt = strings.Repeat("a long prompt ", 1000)

func saveBoth(ctx context.Context, s *sqlstore.Store, id string) error {
	if err := s.SaveSandbox(ctx, &sandboxhttp.Sandbox{Account: "acme", ID: id, State: sandboxhttp.StateRunning}); err != nil {
		return err
	}
	return s.SaveRun(ctx, &sandboxhttp.Run{Account: "acme", SandboxID: id, ID: "run", Prompt: longPrompt})
}

// wantBoth wants what saveBoth saved.
func wantBoth(t *testing.T, s *sqlstore.Store, ids []string) {
	t.Helper()
	for _, id := range ids {
		_, err := s.Sandbox(t.Context(), "acme", id)
		r, runErr := s.Run(t.Context(), "acme", id, "run")
		if err != nil || runErr != nil || r.Prompt != longPrompt {
			t.Fatalf("%s was acknowledged and is not there: %v, %v", id, err, runErr)
		}
	}
}

// What a process was told is saved is there after kill -9, and the next one opens
// the database and goes on.
func TestKilled(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		var ids []string
		for range 2 { // the second finds what the first left behind
			ids = append(ids, killed(t, d)...)
			s := d.open(t)
			wantBoth(t, s, ids)
			if err := saveBoth(t.Context(), s, "sb-after"); err != nil {
				t.Fatal(err)
			}
		}
		if d.dialect != sqlstore.SQLite {
			return
		}
		var verdict string
		if err := d.db(t).QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
			t.Errorf("the database is %q, %v", verdict, err)
		}
	})
}

// killed runs a child, kills it while it saves, and gives what it said was saved.
func killed(t *testing.T, d database) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s %s", childVariable, int(d.dialect), d.driver, d.source))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for scan := bufio.NewScanner(out); scan.Scan(); {
		if ids = append(ids, scan.Text()); len(ids) == 25 {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if len(ids) < 25 {
		t.Fatalf("the child ended by itself after %d saves", len(ids))
	}
	return ids
}

// A server of PostgreSQL that starts again, in order or after a crash, costs calls that
// are under way their answer, and nothing that was acknowledged.
func TestServerRestarts(t *testing.T) {
	server := pgtest.Start(t)
	d := database{"pgx", server.URL(t), sqlstore.PostgreSQL}
	s := d.open(t)
	acknowledged := make(chan string)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for i := range 2 {
		writers.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("sb-%d-%d", i, n)
				if saveBoth(t.Context(), s, id) != nil {
					id = "" // one that failed may be there or not
				}
				select {
				case acknowledged <- id:
				case <-stop:
					return
				}
			}
		})
	}
	var ids []string
	failed := 0
	more := func(n int) { // waits for n that were saved
		for want := len(ids) + n; len(ids) < want; {
			if id := <-acknowledged; id != "" {
				ids = append(ids, id)
			} else {
				failed++
			}
		}
	}
	more(10)
	for _, again := range []func(testing.TB){server.Crash, server.Restart} {
		restarted := make(chan struct{})
		go func() {
			defer close(restarted)
			again(t)
		}()
		more(5) // of them some before it, and some while it
		<-restarted
		more(20)
	}
	close(stop)
	writers.Wait()
	wantBoth(t, s, ids)
	t.Logf("%d saved, %d failed", len(ids), failed)
}

// A pool whose connections have all died works again after one error for each of
// them at most.
func TestDeadConnections(t *testing.T) {
	server := pgtest.Start(t)
	s := database{"pgx", server.URL(t), sqlstore.PostgreSQL}.open(t)
	var busy sync.WaitGroup
	for i := range 8 {
		busy.Go(func() {
			if err := saveBoth(t.Context(), s, fmt.Sprint("sb-", i)); err != nil {
				t.Error(err)
			}
		})
	}
	busy.Wait()
	server.Crash(t)
	var err error
	for range 9 {
		if err = saveBoth(t.Context(), s, "sb-after"); err == nil {
			break
		}
		t.Log(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantBoth(t, s, []string{"sb-0", "sb-7", "sb-after"})
}
