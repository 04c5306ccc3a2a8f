package pglog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/claude/runlog/pglog"
	"github.com/vivarium-go/vivarium/claude/runlog/runlogtest"
	"github.com/vivarium-go/vivarium/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

func open(t *testing.T, url string, opts *pglog.Options) *pglog.Store {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := pglog.Open(t.Context(), db, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	for name, listening := range map[string]bool{"Listening": true, "Looking": false} {
		t.Run(name, func(t *testing.T) {
			urls := map[runlog.Store]string{}
			opts := func(url string) *pglog.Options {
				if !listening {
					return nil
				}
				return &pglog.Options{Listen: pgtest.Listen(url)}
			}
			runlogtest.Exercise(t, func(t *testing.T) runlog.Store {
				url := pgtest.URL(t)
				s := open(t, url, opts(url))
				urls[s] = url
				return s
			}, func(t *testing.T, s runlog.Store) runlog.Store { return open(t, urls[s], opts(urls[s])) })
		})
	}
}

func write(t *testing.T, s runlog.Store, run string) runlog.Writer {
	t.Helper()
	w, err := s.Write(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func all(t *testing.T, s runlog.Store, run string) string {
	t.Helper()
	var b strings.Builder
	for line, err := range s.Read(t.Context(), run, 1) {
		if err != nil {
			t.Fatal(err)
		}
		b.Write(line.Data)
	}
	return b.String()
}

// TestLeaseThatWasLost has the database start again under a writer, so that its lock is
// gone, and another process take the run: the first can write nothing more.
func TestLeaseThatWasLost(t *testing.T) {
	server := pgtest.Start(t)
	url := server.URL(t)
	first, second := open(t, url, nil), open(t, url, nil)
	w := write(t, first, "r")
	if err := w.Append(t.Context(), [][]byte{[]byte("one\n")}); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Write(t.Context(), "r"); !errors.Is(err, runlog.ErrBusy) {
		t.Fatalf("a second writer: %v", err)
	}
	server.Crash(t)
	var next runlog.Writer
	var err error
	for range 10 { // connections that died cost an error each
		if next, err = second.Write(t.Context(), "r"); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	for range 10 { // until it has a connection that lives
		if _, err = first.Stat(t.Context(), "r"); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	// The log is as long as it knows, and yet:
	if err := w.Append(t.Context(), [][]byte{[]byte("three\n")}); !errors.Is(err, runlog.ErrBusy) {
		t.Errorf("a writer without its lease writes: %v", err)
	}
	if err := w.Append(t.Context(), nil); !errors.Is(err, runlog.ErrBusy) {
		t.Errorf("it is used up: %v", err)
	}
	if err := next.Append(t.Context(), [][]byte{[]byte("two\n")}); err != nil {
		t.Fatal(err)
	}
	if got := all(t, second, "r"); got != "one\ntwo\n" {
		t.Errorf("the log has %q", got)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := next.Finish(t.Context(), runlog.End{Reason: claude.EndCompleted}); err != nil {
		t.Error(err)
	}
}

// TestOneOfManyWrites has many processes want the same run at once.
func TestOneOfManyWrites(t *testing.T) {
	url := pgtest.URL(t)
	stores := make([]*pglog.Store, 4)
	for i := range stores {
		stores[i] = open(t, url, nil)
	}
	for round := range 50 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var got []runlog.Writer
		for i := range 8 {
			wg.Go(func() {
				w, err := stores[i%len(stores)].Write(t.Context(), fmt.Sprint("r", round))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					got = append(got, w)
				case !errors.Is(err, runlog.ErrBusy):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(got) != 1 {
			t.Fatalf("%d have the run", len(got))
		}
		if err := got[0].Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFollowersOutliveTheDatabase has the database start again under followers: they
// get an error and go on from where they were.
func TestFollowersOutliveTheDatabase(t *testing.T) {
	server := pgtest.Start(t)
	url := server.URL(t)
	s, other := open(t, url, &pglog.Options{Listen: pgtest.Listen(url)}), open(t, url, &pglog.Options{Listen: pgtest.Listen(url)})
	const n = 200
	had := make(chan int64, n)
	done := make(chan string, 1)
	w := write(t, s, "r")
	go func() {
		var b strings.Builder
		next := int64(1)
		for t.Context().Err() == nil {
			failed := false
			for line, err := range other.Follow(t.Context(), "r", next) {
				if failed = err != nil; failed {
					break
				}
				next = line.N + 1
				b.Write(line.Data)
				had <- line.N
			}
			if !failed {
				break
			}
		}
		done <- b.String()
	}()
	var want strings.Builder
	for i := 0; i < n; i++ {
		if i == n/2 {
			<-had
			server.Crash(t)
		}
		line := fmt.Sprintf("line %d\n", i)
		for w.Append(t.Context(), [][]byte{[]byte(line)}) != nil { // what a server does then
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := s.Write(t.Context(), "r")
			if err != nil {
				continue
			}
			w = again
			if w.Info().Lines > int64(i) { // it was made, and the answer was lost
				break
			}
		}
		want.WriteString(line)
	}
	if err := w.Finish(t.Context(), runlog.End{Reason: claude.EndCompleted}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got != want.String() {
		t.Errorf("the follower got %d bytes, want %d", len(got), want.Len())
	}
}

// Two servers on one database: what one records, the other follows.
func ExampleOpen() {
	ctx := context.Background()
	const url = "postgres://user@localhost/app"
	db, err := sql.Open("pgx", url)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	logs, err := pglog.Open(ctx, db, &pglog.Options{
		Listen: func(ctx context.Context, channel string, got func(string)) error {
			conn, err := pgx.Connect(ctx, url)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
				return err
			}
			for got(""); ; {
				n, err := conn.WaitForNotification(ctx)
				if err != nil {
					return err
				}
				got(n.Payload)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer logs.Close()
	for line, err := range logs.Follow(ctx, "run-7", 1) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s", line.N, line.Data)
	}
}
