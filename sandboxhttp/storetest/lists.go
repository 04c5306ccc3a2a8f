package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// newestFirst: by the time of creation whatever the order of saving, and among equal
// times by id, byte by byte.
func newestFirst(t *testing.T, s sandboxhttp.Store) {
	save(t, s, box("acme", "b", 1), box("acme", "old", 0), box("acme", "a", 1), box("acme", "B", 1), box("acme", "é", 1), box("acme", "new", 2), box("acme", "a-1", 1))
	close1, close2 := box("acme", "close-1", 3), box("acme", "close-2", 3)
	close1.CreatedAt = close1.CreatedAt.Add(time.Microsecond)
	save(t, s, close1, close2)
	unknown, elsewhere := box("acme", "unknown", 0), box("acme", "elsewhere", 0)
	unknown.CreatedAt = time.Time{}
	elsewhere.CreatedAt = start.Add(1500 * time.Millisecond).In(time.FixedZone("", 14*3600))
	save(t, s, unknown, elsewhere)
	order := []string{"close-1", "close-2", "new", "elsewhere", "é", "b", "a-1", "a", "B", "old", "unknown"}
	wantIDs(t, s, "acme", sandboxhttp.Query{}, order...)
	for size := 1; size <= len(order)+1; size++ {
		if got := pages(t, s, sandboxhttp.Query{Limit: size}, nil); !slices.Equal(got, order) {
			t.Errorf("in pages of %d: %v", size, got)
		}
	}
}

func runsOldestFirst(t *testing.T, s sandboxhttp.Store) {
	save(t, s, box("acme", "sb", 0))
	saveRuns(t, s, run("acme", "sb", "b", 1), run("acme", "sb", "new", 2), run("acme", "sb", "B", 1), run("acme", "sb", "a", 1), run("acme", "sb", "old", 0))
	wantRuns(t, s, "acme", "sb", "old", "B", "a", "b", "new")
	saveRuns(t, s, run("acme", "sb", "old", 0)) // it does not move
	wantRuns(t, s, "acme", "sb", "old", "B", "a", "b", "new")
}

// runningRuns lists the runs of all accounts that have not ended, as they are.
func runningRuns(t *testing.T, s sandboxhttp.Store) {
	want := func(ids ...string) {
		t.Helper()
		list, err := s.RunningRuns(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, rec := range list {
			got = append(got, rec.Account+" "+rec.SandboxID+" "+rec.ID)
			wantRun(t, s, rec)
		}
		if !slices.Equal(got, ids) {
			t.Errorf("running: %q, want %q", got, ids)
		}
	}
	want()
	save(t, s, box("acme", "sb", 0), box("acme", "sb-2", 0), box("globex", "sb", 0))
	ended := run("acme", "sb", "ended", 0)
	ended.State = sandboxhttp.StateEnded
	saveRuns(t, s, ended, run("acme", "sb-2", "b", 2), run("globex", "sb", "c", 1), run("acme", "sb", "a", 2))
	want("globex sb c", "acme sb a", "acme sb-2 b")
	over := run("globex", "sb", "c", 1)
	over.State = sandboxhttp.StateEnded
	saveRuns(t, s, over)
	want("acme sb a", "acme sb-2 b")
	if err := s.DeleteSandbox(t.Context(), "acme", "sb-2"); err != nil {
		t.Fatal(err)
	}
	want("acme sb a")
	if err := s.DeleteRun(t.Context(), "acme", "sb", "a"); err != nil {
		t.Fatal(err)
	}
	want()
}

// pages reads a list to its end, as a client does. between is called after each page.
func pages(t *testing.T, s sandboxhttp.Store, q sandboxhttp.Query, between func(page int)) []string {
	t.Helper()
	var got []string
	for page := 0; ; page++ {
		list, err := s.Sandboxes(t.Context(), "acme", q)
		if err != nil {
			t.Fatal(err)
		}
		if q.Limit > 0 && len(list) > q.Limit {
			t.Fatalf("%d records where %d are the limit", len(list), q.Limit)
		}
		if len(list) == 0 {
			return got
		}
		got = append(got, ids(list)...)
		last := list[len(list)-1]
		q.After = sandboxhttp.Position{CreatedAt: last.CreatedAt, ID: last.ID}
		if between != nil {
			between(page)
		}
		if page > 1000 {
			t.Fatal("the pages do not end")
		}
	}
}

// queries combines state, position and limit.
func queries(t *testing.T, s sandboxhttp.Store) {
	states := []string{sandboxhttp.StateCreating, sandboxhttp.StateRunning, sandboxhttp.StateEnded}
	want := map[string][]string{}
	for i := range 30 {
		rec := box("acme", fmt.Sprintf("sb-%02d", i), i/4) // four at a time
		rec.State = states[i%3]
		save(t, s, rec, box("globex", rec.ID, i/4))
		want[rec.State] = slices.Insert(want[rec.State], 0, rec.ID)
		want[""] = slices.Insert(want[""], 0, rec.ID)
	}
	for state, order := range want {
		for _, limit := range []int{0, 1, 3, 10, 100} {
			if got := pages(t, s, sandboxhttp.Query{State: state, Limit: limit}, nil); !slices.Equal(got, order) {
				t.Errorf("state %q in pages of %d: %v, want %v", state, limit, got, order)
			}
		}
	}
	wantIDs(t, s, "acme", sandboxhttp.Query{State: "none such"})
	// A place in the list is one whether there is a record or not.
	wantIDs(t, s, "acme", sandboxhttp.Query{After: sandboxhttp.Position{CreatedAt: start, ID: "sb-02x"}}, "sb-02", "sb-01", "sb-00")
	wantIDs(t, s, "acme", sandboxhttp.Query{After: sandboxhttp.Position{CreatedAt: start.Add(-time.Second), ID: "zz"}})
	wantIDs(t, s, "acme", sandboxhttp.Query{After: sandboxhttp.Position{CreatedAt: start.Add(time.Hour), ID: "a"}, Limit: 1}, "sb-29")
}

// changingPages: whoever pages through a list while it changes sees every record that
// was there all the time, once and in order.
func changingPages(t *testing.T, s sandboxhttp.Store) {
	var want []string
	for i := range 20 {
		rec := box("acme", fmt.Sprintf("sb-%02d", i), 10+i/3)
		save(t, s, rec, box("acme", "gone-"+rec.ID, 10+i/3))
		want = slices.Insert(want, 0, rec.ID)
	}
	got := pages(t, s, sandboxhttp.Query{Limit: 3}, func(page int) {
		save(t, s, box("acme", fmt.Sprint("newer-", page), 100+page), box("acme", fmt.Sprintf("zz-tie-%d", page), 10+19/3))
		if err := s.DeleteSandbox(t.Context(), "acme", fmt.Sprintf("gone-sb-%02d", page)); err != nil {
			t.Fatal(err)
		}
		save(t, s, box("acme", "sb-00", 10)) // replaced, where it was
	})
	seen := map[string]int{}
	for _, id := range got {
		seen[id]++
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was seen %d times", id, n)
		}
	}
	if kept := slices.DeleteFunc(got, func(id string) bool { return id[:3] != "sb-" }); !slices.Equal(kept, want) {
		t.Errorf("saw %v, want %v", kept, want)
	}
}
