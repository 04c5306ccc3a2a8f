package sqlstore_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// racerVariable has a database for a process of its own to take places in.
const racerVariable = "SQLSTORE_TEST_RACER"

// racerPlaces is how many places there are.
const racerPlaces = 200

// racer says that it is ready, takes what it can when it is told to, and says what it got.
func racer() {
	fields := strings.SplitN(os.Getenv(racerVariable), " ", 3)
	dialect, err := strconv.Atoi(fields[0])
	db, openErr := sql.Open(fields[1], fields[2])
	if err != nil || openErr != nil {
		panic(fmt.Sprint(err, openErr))
	}
	s, err := sqlstore.Open(context.Background(), db, sqlstore.Dialect(dialect))
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		panic(err)
	}
	got, err := takeAll(context.Background(), s.Ledger(), "child")
	if err != nil {
		panic(err)
	}
	fmt.Println(got)
	os.Exit(0)
}

// takeAll takes places until there is none, and gives how many it got.
func takeAll(ctx context.Context, l usage.Ledger, name string) (int, error) {
	for n := 0; ; n++ {
		_, err := l.Reserve(ctx, usage.Reservation{
			Account: "acme", Kind: usage.KindRun, ID: fmt.Sprint(name, n), Quota: usage.Quota{RunsAtOnce: racerPlaces},
		})
		var exceeded *usage.ExceededError
		if errors.As(err, &exceeded) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// Two processes take places at the same time until none is left: so many are had as
// there are.
func TestLedgerOfTwoProcesses(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		l := d.open(t).Ledger()
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s %s", racerVariable, int(d.dialect), d.driver, d.source))
		cmd.Stderr = os.Stderr
		in, inErr := cmd.StdinPipe()
		out, outErr := cmd.StdoutPipe()
		if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "ready" {
			t.Fatalf("the other process says %q, %v", lines.Text(), lines.Err())
		}
		if _, err := fmt.Fprintln(in); err != nil {
			t.Fatal(err)
		}
		got, err := takeAll(t.Context(), l, "parent")
		if err != nil {
			t.Error(err)
		}
		lines.Scan()
		theirs, err := strconv.Atoi(lines.Text())
		if err := errors.Join(err, cmd.Wait()); err != nil || got+theirs != racerPlaces {
			t.Errorf("%d and %d places were had, %v; want %d together", got, theirs, err, racerPlaces)
		}
		if places, err := l.Places(t.Context(), usage.Query{Account: "acme"}); err != nil || len(places) != racerPlaces {
			t.Errorf("%d places are taken, %v; want %d", len(places), err, racerPlaces)
		}
		t.Logf("%d and %d", got, theirs)
	})
}
