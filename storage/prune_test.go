package storage_test

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func count(t *testing.T, b storage.Bucket, prefix string) (n int) {
	t.Helper()
	for _, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// What is forgotten is not listed from then on, stays restorable for the grace, and
// goes with a Prune after it. What a failed Sync left goes too.
func TestPrune(t *testing.T) {
	memory, dir := new(storagetest.Memory), workdir(t)
	want := threeVersions(t, memory, dir)
	v := storage.NewVolume(memory, "acme", nil)
	all := ids(t, v)
	if err := memory.Put(t.Context(), "acme/_packs/left-behind", zeros(100), nil); err != nil {
		t.Fatal(err)
	}
	dry, err := v.Prune(t.Context(), storage.Keep{Last: 1, DryRun: true})
	if err != nil || dry.Kept != 1 || len(dry.Forgotten) != 2 || len(ids(t, v)) != 3 {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	done, err := v.Prune(t.Context(), storage.Keep{Last: 1, Grace: time.Hour})
	if err != nil || done.Kept != 1 || len(done.Forgotten) != 2 || done.Objects != 0 {
		t.Fatalf("first: %+v, %v", done, err)
	}
	if got := ids(t, v); !slices.Equal(got, all[:1]) {
		t.Fatalf("listed are %q", got)
	}
	if err := v.Restore(t.Context(), storage.Local{}, dir, all[2]); err != nil || content(t, dir) != want[all[2]] {
		t.Errorf("within the grace: %v", err)
	}
	done, err = v.Prune(t.Context(), storage.Keep{Last: 1, Grace: 1})
	if err != nil || done.Objects == 0 || count(t, memory, "acme/_packs/left-behind") != 0 {
		t.Fatalf("second: %+v, %v", done, err)
	}
	if err := v.Restore(t.Context(), storage.Local{}, dir, all[0]); err != nil || content(t, dir) != want[all[0]] {
		t.Errorf("the newest: %v", err)
	}
	if _, err := v.Sync(t.Context(), storage.Local{}, dir); err != nil {
		t.Errorf("Sync after Prune: %v", err)
	}
	if err := v.Delete(t.Context()); err != nil || count(t, memory, "") != 0 {
		t.Errorf("Delete: %v, and %d objects are left", err, count(t, memory, ""))
	}
}

func TestKeepRules(t *testing.T) {
	memory, dir := new(storagetest.Memory), workdir(t)
	threeVersions(t, memory, dir)
	v := storage.NewVolume(memory, "acme", nil)
	oldest := ids(t, v)[2]
	for name, test := range map[string]struct {
		keep storage.Keep
		kept int
	}{
		"zero keeps all": {storage.Keep{}, 3},
		"last":           {storage.Keep{Last: 2}, 2},
		"more than all":  {storage.Keep{Last: 9}, 3},
		"yearly":         {storage.Keep{Yearly: 5}, 1},
		"daily or last":  {storage.Keep{Daily: 1, Last: 2}, 2},
		"within":         {storage.Keep{Within: time.Hour}, 3},
		"also":           {storage.Keep{Yearly: 1, Also: func(v *storage.Version) bool { return v.ID == oldest }}, 2},
	} {
		test.keep.DryRun = true
		if done, err := v.Prune(t.Context(), test.keep); err != nil || done.Kept != test.kept || done.Kept+len(done.Forgotten) != 3 {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
	}
	for _, bad := range []storage.Keep{{Last: -1}, {Weekly: -1}, {Within: -1}, {Grace: -1}} {
		if _, err := v.Prune(t.Context(), bad); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
