package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// TestKeep has a version made at each of some times, and a Prune a minute after the
// last. Times are those of the bubble's clock, which begins with Saturday, 1 January 2000.
func TestKeep(t *testing.T) {
	warm(t)
	hour, day := time.Hour, 24*time.Hour
	for name, test := range map[string]struct {
		at   []time.Duration
		keep storage.Keep
		want []int // indices of at
	}{
		"zero keeps all":              {[]time.Duration{0, hour, day}, storage.Keep{}, []int{0, 1, 2}},
		"last":                        {[]time.Duration{0, 1, 2, 3}, storage.Keep{Last: 2}, []int{2, 3}},
		"the newest always":           {[]time.Duration{0, hour}, storage.Keep{Also: func(*storage.Version) bool { return false }}, []int{1}},
		"within":                      {[]time.Duration{0, hour, 2 * hour}, storage.Keep{Within: 90 * time.Minute}, []int{1, 2}},
		"hourly":                      {[]time.Duration{0, 59 * time.Minute, hour, 3 * hour, 3*hour + 1}, storage.Keep{Hourly: 3}, []int{1, 2, 4}},
		"hours without any count not": {[]time.Duration{0, 100 * hour, 200 * hour}, storage.Keep{Hourly: 2}, []int{1, 2}},
		"daily":                       {[]time.Duration{0, hour, day, 2 * day, 2*day + hour}, storage.Keep{Daily: 2}, []int{2, 4}},
		"weekly begins on Monday":     {[]time.Duration{0, day, 2 * day, 8 * day, 9 * day}, storage.Keep{Weekly: 3}, []int{1, 3, 4}},
		"monthly":                     {[]time.Duration{0, 30 * day, 31 * day, 40 * day}, storage.Keep{Monthly: 2}, []int{1, 3}},
		"yearly":                      {[]time.Duration{0, 365 * day, 366 * day, 400 * day}, storage.Keep{Yearly: 9}, []int{1, 3}},
		"any of the rules":            {[]time.Duration{0, day, 31 * day, 31*day + hour}, storage.Keep{Last: 1, Monthly: 2}, []int{1, 3}},
		"also":                        {[]time.Duration{0, 1, 2, 3}, storage.Keep{Last: 1, Also: func(v *storage.Version) bool { return v.Note == "version 1" }}, []int{1, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, start := newHistory(t), time.Now()
				for n, at := range test.at {
					time.Sleep(at - time.Since(start))
					h.must(n)
				}
				time.Sleep(time.Minute)
				var want []string
				for _, n := range slices.Backward(test.want) {
					want = append(want, fmt.Sprint("version ", n))
				}
				v := storage.NewVolume(h.memory, "acme", nil)
				dry := test.keep
				dry.DryRun = true
				would, err := v.Prune(t.Context(), dry)
				if err != nil || len(h.check("dry run")) != len(test.at) {
					t.Fatalf("a dry run: %+v, %v, %q", would, err, h.check("dry run"))
				}
				did, err := v.Prune(t.Context(), test.keep)
				if err != nil || did.Kept != len(want) || len(did.Forgotten) != len(test.at)-len(want) || len(would.Forgotten) != len(did.Forgotten) {
					t.Fatalf("%+v (%+v), %v", did, would, err)
				}
				if got := h.check("prune"); !slices.Equal(got, want) {
					t.Errorf("kept %q, want %q", got, want)
				}
			})
		})
	}
}

func TestPruneRefusesNonsense(t *testing.T) {
	v := storage.NewVolume(new(storagetest.Memory), "acme", nil)
	for _, keep := range []storage.Keep{{Last: -1}, {Yearly: -1}, {Within: -1}, {Grace: -1}} {
		if _, err := v.Prune(t.Context(), keep); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%+v: %v", keep, err)
		}
	}
	if done, err := v.Prune(t.Context(), storage.Keep{Last: 1}); err != nil || done.Kept != 0 {
		t.Errorf("an empty volume: %+v, %v", done, err)
	}
}

// What was forgotten stays for the grace and can be restored by its ID, and then goes
// with its contents.
func TestForgottenVersionsGoAfterTheGrace(t *testing.T) {
	warm(t)
	synctest.Test(t, func(t *testing.T) {
		h := newHistory(t)
		old := h.must(0)
		time.Sleep(48 * time.Hour)
		h.must(1)
		v := storage.NewVolume(h.memory, "acme", nil)
		first, err := v.Prune(t.Context(), storage.Keep{Last: 1})
		if err != nil || first.Objects != 0 || len(first.Forgotten) != 1 {
			t.Fatalf("%+v, %v", first, err)
		}
		if _, err := v.FS(t.Context(), old.ID); err != nil {
			t.Errorf("within the grace: %v", err)
		}
		time.Sleep(25 * time.Hour)
		second, err := v.Prune(t.Context(), storage.Keep{Last: 1})
		if err != nil || second.Objects == 0 || len(second.Forgotten) != 0 {
			t.Fatalf("%+v, %v", second, err)
		}
		if _, err := v.FS(t.Context(), old.ID); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after the grace: %v", err)
		}
		h.check("the end")
	})
}

func TestPruneStopsAtDamage(t *testing.T) {
	h := newHistory(t)
	for n := range 3 {
		h.must(n)
	}
	before := keysOf(t, h.memory, "")
	for _, prefix := range []string{"acme/_versions/", "acme/_trees/"} {
		b := new(storagetest.Memory)
		copyAll(t, h.memory, b)
		if err := storagetest.FlipByte(t.Context(), b, keysOf(t, b, prefix)[0], -1); err != nil {
			t.Fatal(err)
		}
		_, err := storage.NewVolume(b, "acme", nil).Prune(t.Context(), storage.Keep{Last: 3, Grace: 1})
		if !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s: %v", prefix, err)
		}
		for _, key := range before {
			if _, err := b.Stat(t.Context(), key); err != nil {
				t.Errorf("%s: %v", prefix, err)
			}
		}
	}
}

// overtake is a plan that has others do their work before a Prune first reads what its
// own fence names, and then lets look happen to the next list.
func overtake(others func(), look storagetest.Fault) func(storagetest.Call) storagetest.Fault {
	fence, stated, done, listed := "", false, false, false
	return func(c storagetest.Call) storagetest.Fault {
		switch {
		case c.Op == storagetest.OpPut && strings.HasPrefix(c.Key, "acme/_versions/"):
			fence = c.Key
		case c.Op == storagetest.OpStat && c.Key == fence:
			stated = true // and live begins
		case c.Op == storagetest.OpGet && stated && !done:
			done = true
			others()
		case c.Op == storagetest.OpList && done && !listed:
			listed = true
			return look
		}
		return storagetest.None
	}
}

// A Prune that no longer finds what its fence names asks whether another one came
// first. Where that request fails, the answer is not 'no': the error is the request's
// too, as the version it tells of may be gone for good reason.
func TestPruneTellsWhyItCouldNotLook(t *testing.T) {
	warm(t)
	lost := errors.New("the bucket does not answer")
	for name, test := range map[string]struct {
		look storagetest.Fault
		want error
	}{
		"the look works":    {storagetest.None, nil},
		"the look fails":    {storagetest.Fail.With(lost), lost},
		"the look is short": {storagetest.Cut.With(lost), lost},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHistory(t)
				for n := range 3 {
					h.must(n)
				}
				others := func() {
					clean := storage.NewVolume(h.memory, "acme", nil)
					for range 2 {
						if _, err := clean.Prune(t.Context(), storage.Keep{Last: 1, Grace: time.Hour}); err != nil {
							t.Error(err)
						}
						time.Sleep(48 * time.Hour)
					}
				}
				faulty := &storagetest.Faulty{Bucket: h.memory, Plan: overtake(others, test.look)}
				_, err := storage.NewVolume(faulty, "acme", nil).Prune(t.Context(), storage.Keep{Grace: time.Hour})
				if !errors.Is(err, test.want) || errors.Is(err, fs.ErrNotExist) != (test.want != nil) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if got := h.check("the end"); !slices.Equal(got, []string{"version 2"}) {
					t.Errorf("versions %q", got)
				}
			})
		})
	}
}

func copyAll(t *testing.T, from, to storage.Bucket) {
	t.Helper()
	for _, key := range keysOf(t, from, "") {
		r, err := from.Get(context.Background(), key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if err := to.Put(context.Background(), key, r, nil); err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
	}
}

func TestDelete(t *testing.T) {
	h := newHistory(t)
	for n := range 3 {
		h.must(n)
	}
	other := storage.NewVolume(h.memory, "acme/other", nil)
	if _, err := other.Import(t.Context(), shelf(t, files(1)), ""); err != nil {
		t.Fatal(err)
	}
	v := storage.NewVolume(h.memory, "acme", nil)
	if _, err := v.Prune(t.Context(), storage.Keep{Last: 1}); err != nil {
		t.Fatal(err)
	}
	faulty := &storagetest.Faulty{Bucket: h.memory, Plan: storagetest.NthOf(storagetest.OpDelete, 3, storagetest.Fail)}
	if err := storage.NewVolume(faulty, "acme", nil).Delete(t.Context()); !errors.Is(err, storagetest.ErrInjected) {
		t.Fatal(err)
	}
	if got := h.check("a Delete that was broken off"); len(got) > 0 {
		t.Logf("versions %q are left", got)
	}
	for range 2 {
		if err := v.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range keysOf(t, h.memory, "") {
		if !strings.HasPrefix(key, "acme/other/") {
			t.Errorf("%s is left", key)
		}
	}
	if len(ids(t, other)) != 1 {
		t.Error("the other volume is gone")
	}
	h.must(7)
	if got := h.check("begun anew"); !slices.Equal(got, []string{"version 7"}) {
		t.Errorf("versions %q", got)
	}
}
