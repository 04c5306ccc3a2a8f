// Package pooltest checks that a [pool.Store] keeps its promises.
package pooltest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// Exercise runs every test against a store. open gives an empty one, which it closes
// itself, with t.Cleanup.
func Exercise(t *testing.T, open func(t *testing.T) pool.Store) {
	tests := map[string]func(*testing.T, pool.Store){
		"Fields": fields, "Maps": nilAndEmptyMaps, "OwnRecords": ownRecords, "OddTexts": oddTexts, "LongTexts": longTexts,
		"Revisions": revisions, "IDs": ids, "Delete": deletes, "Pools": pools, "Queries": queries, "NewestFirst": newestFirst,
		"EndedContexts": endedContexts, "Counter": counter, "OneClaims": oneClaims, "OneAdds": oneAdds,
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) { tests[name](t, open(t)) })
	}
}

// start is a time with all the digits that a store must keep.
var start = time.Date(2026, 3, 4, 5, 6, 7, 123456000, time.UTC)

func blank(owner, key string) *pool.Record {
	return &pool.Record{Pool: "pool", Key: key, Owner: owner, ID: key, State: pool.StateRunning, CreatedAt: start}
}

func save(t *testing.T, s pool.Store, recs ...*pool.Record) {
	t.Helper()
	for _, r := range recs {
		if err := s.Save(t.Context(), r); err != nil {
			t.Fatalf("Save of %q: %v", r.Key, err)
		}
	}
}

func want(t *testing.T, s pool.Store, want *pool.Record) {
	t.Helper()
	got, err := s.Record(t.Context(), want.Pool, want.Key)
	if err != nil {
		t.Fatalf("Record %q: %v", want.Key, err)
	}
	same(t, got, want)
}

func same(t *testing.T, got, want *pool.Record) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record %q, - wanted, + got:\n%s", want.Key, diff)
	}
	if where := notUTC(got); where != "" {
		t.Errorf("record %q: %s is not in UTC", want.Key, where)
	}
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if want == nil && err != nil || !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// revisions: a change is made by who has seen the one before, and by nobody else.
func revisions(t *testing.T, s pool.Store) {
	r := blank("acme", "sb-1")
	save(t, s, r)
	if r.Revision != 1 {
		t.Errorf("after one save the revision is %d", r.Revision)
	}
	stale, twice := *r, blank("acme", "sb-1")
	r.Error = "first"
	save(t, s, r)
	for what, bad := range map[string]*pool.Record{"stale": &stale, "new": twice, "absent": {Pool: "pool", Key: "sb-2", ID: "sb-2", Revision: 7}} {
		before := bad.Revision
		is(t, what, s.Save(t.Context(), bad), pool.ErrConflict)
		if bad.Revision != before {
			t.Errorf("%s: a save that failed made the revision %d", what, bad.Revision)
		}
	}
	want(t, s, r)
	if r.Revision != 2 {
		t.Errorf("after two saves the revision is %d", r.Revision)
	}
	_, err := s.Record(t.Context(), "pool", "sb-2")
	is(t, "absent", err, sandbox.ErrNotFound)
}

// ids: an owner has an ID once.
func ids(t *testing.T, s pool.Store) {
	first, other := blank("acme", "sb-1"), blank("globex", "sb-2")
	other.ID = "sb-1" // another owner's
	spare := blank("", "sb-3")
	save(t, s, first, other, spare)
	taken := blank("acme", "sb-4")
	taken.ID = "sb-1"
	is(t, "add", s.Save(t.Context(), taken), fs.ErrExist)
	claimed := *spare
	claimed.Owner, claimed.ID = "acme", "sb-1"
	is(t, "change", s.Save(t.Context(), &claimed), fs.ErrExist)
	want(t, s, spare)
	claimed.ID = "sb-5"
	save(t, s, &claimed)
	want(t, s, &claimed)
	is(t, "delete", s.Delete(t.Context(), first), nil)
	save(t, s, taken)
}

func deletes(t *testing.T, s pool.Store) {
	r := blank("acme", "sb-1")
	save(t, s, r)
	stale := *r
	save(t, s, r)
	is(t, "stale", s.Delete(t.Context(), &stale), pool.ErrConflict)
	want(t, s, r)
	is(t, "delete", s.Delete(t.Context(), r), nil)
	_, err := s.Record(t.Context(), "pool", "sb-1")
	is(t, "deleted", err, sandbox.ErrNotFound)
	is(t, "delete again", s.Delete(t.Context(), r), nil)
	is(t, "save of a deleted one", s.Save(t.Context(), r), pool.ErrConflict)
	save(t, s, blank("acme", "sb-1"))
}

// pools: those of another pool are not there.
func pools(t *testing.T, s pool.Store) {
	mine, other, nameless := blank("acme", "sb-1"), blank("acme", "sb-1"), blank("acme", "sb-1")
	other.Pool, other.Error = "other", "other"
	nameless.Pool, nameless.Error = "", "nameless"
	save(t, s, mine, other, nameless)
	for _, r := range []*pool.Record{mine, other, nameless} {
		want(t, s, r)
		list, err := s.Records(t.Context(), pool.Query{Pool: r.Pool})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d of %q, %v", len(list), r.Pool, err)
		}
		same(t, list[0], r)
	}
	is(t, "delete", s.Delete(t.Context(), mine), nil)
	want(t, s, other)
	want(t, s, nameless)
}

// queries asks for every combination, and wants what Query.Match says.
func queries(t *testing.T, s pool.Store) {
	var all []*pool.Record
	for i, owner := range []string{"", "acme", "globex"} {
		for j, state := range []pool.State{pool.StateCreating, pool.StateRunning, pool.StateStopping, pool.StateTerminated} {
			for k, spare := range []string{"", "a", "b"} {
				r := blank(owner, fmt.Sprintf("sb-%d%d%d", i, j, k))
				r.State, r.Spare, r.CreatedAt = state, spare, start.Add(time.Duration(i+j+k)*time.Second)
				if state == pool.StateTerminated {
					r.EndedAt = start.Add(time.Duration(k) * time.Hour)
				}
				all = append(all, r)
			}
		}
	}
	save(t, s, all...)
	for _, owner := range []string{"", "acme", "nobody"} {
		for _, spare := range []string{"", "b", "none"} {
			for _, id := range []string{"", "sb-111"} {
				for _, live := range []bool{false, true} {
					for _, before := range []time.Time{{}, start.Add(time.Hour), start.Add(time.Hour + time.Microsecond)} {
						asked(t, s, all, pool.Query{Pool: "pool", Owner: owner, Spare: spare, ID: id, Live: live, EndedBefore: before})
					}
				}
			}
		}
	}
}

func asked(t *testing.T, s pool.Store, all []*pool.Record, q pool.Query) {
	t.Helper()
	var wanted []string
	for _, r := range all {
		if q.Match(r) {
			wanted = append(wanted, r.Key)
		}
	}
	list, err := s.Records(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	got := keys(list)
	slices.Sort(got)
	slices.Sort(wanted)
	if !slices.Equal(got, wanted) {
		t.Errorf("%+v: %q, want %q", q, got, wanted)
	}
}

func keys(list []*pool.Record) []string {
	var got []string
	for _, r := range list {
		got = append(got, r.Key)
	}
	return got
}

// newestFirst: whatever the order of saving, and among equal times by key, byte by byte.
func newestFirst(t *testing.T, s pool.Store) {
	for i, key := range []string{"b", "old", "a", "B", "é", "new", "a-1"} {
		r := blank("acme", key)
		r.CreatedAt = start.Add(time.Second)
		switch key {
		case "old":
			r.CreatedAt = start
		case "new":
			r.CreatedAt = start.Add(time.Second + time.Microsecond)
		}
		r.ID = fmt.Sprint(i)
		save(t, s, r)
	}
	list, err := s.Records(t.Context(), pool.Query{Pool: "pool", Owner: "acme"})
	if got := keys(list); err != nil || !slices.Equal(got, []string{"new", "é", "b", "a-1", "a", "B", "old"}) {
		t.Errorf("%q, %v", got, err)
	}
}

func endedContexts(t *testing.T, s pool.Store) {
	r := blank("acme", "sb-1")
	save(t, s, r)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, one := s.Record(ctx, "pool", "sb-1")
	_, list := s.Records(ctx, pool.Query{Pool: "pool"})
	for what, err := range map[string]error{"Save": s.Save(ctx, r), "Record": one, "Records": list, "Delete": s.Delete(ctx, r)} {
		is(t, what, err, context.Canceled)
	}
	want(t, s, r)
}
