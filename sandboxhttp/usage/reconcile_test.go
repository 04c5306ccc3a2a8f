package usage_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

// What is gone is released, of thousands as of one, and what cannot be told stays
// without holding up the others.
func TestReleaseGone(t *testing.T) {
	l, begin := new(usage.Memory), time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	const places = 2500
	for i := range places {
		r := usage.Reservation{Account: fmt.Sprint("account-", i%3), Kind: usage.KindRun, ID: fmt.Sprint("run-", i), Time: begin.Add(time.Duration(i) * time.Second)}
		if _, err := l.Reserve(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	errUnknown := errors.New("the database does not answer")
	seen := map[string]bool{}
	gone := func(_ context.Context, p usage.Place) (bool, error) {
		if seen[p.ID] {
			t.Errorf("asked twice for %s", p.ID)
		}
		seen[p.ID] = true
		if p.ID == "run-7" {
			return true, errUnknown
		}
		return p.ID != "run-1000", nil
	}
	// The last ten are too young to be looked at.
	q := usage.Query{AllAccounts: true, To: begin.Add((places - 10) * time.Second)}
	n, err := usage.ReleaseGone(t.Context(), l, q, gone)
	if n != places-12 || !errors.Is(err, errUnknown) {
		t.Errorf("%d were released, %v", n, err)
	}
	left, err := l.Places(t.Context(), usage.Query{AllAccounts: true})
	if err != nil || len(left) != 12 || left[0].ID != "run-7" || left[1].ID != "run-1000" {
		t.Errorf("%d are left: %v, %v", len(left), left, err)
	}
}

func TestReleaseGoneStops(t *testing.T) {
	l := new(usage.Memory)
	for _, id := range []string{"run-1", "run-2"} {
		if _, err := l.Reserve(t.Context(), usage.Reservation{Account: "acme", Kind: usage.KindRun, ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	_, err := usage.ReleaseGone(ctx, l, usage.Query{AllAccounts: true}, func(context.Context, usage.Place) (bool, error) {
		calls++
		cancel()
		return false, nil
	})
	if calls != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("after the context's end: %d calls, %v", calls, err)
	}
}
