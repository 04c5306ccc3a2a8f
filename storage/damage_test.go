package storage_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// threeVersions makes a volume of three versions, the later ones with deltas, and gives
// what each holds by its id.
func threeVersions(t *testing.T, bucket storage.Bucket, dir string) map[string]string {
	t.Helper()
	v := storage.NewVolume(bucket, "acme", nil)
	states := map[string]string{}
	files := map[string]string{"a": "1", "b": strings.Repeat("some text ", 500), "c": "same"}
	for i := range 3 {
		files["a"] = fmt.Sprint("version ", i)
		files[fmt.Sprint("only", i)] = strings.Repeat(fmt.Sprint("x", i), 100)
		write(t, dir, files)
		version, err := v.Sync(t.Context(), storage.Local{}, dir)
		if err != nil {
			t.Fatal(err)
		}
		states[version.ID] = content(t, dir)
	}
	return states
}

// wantHistory restores every version that is listed and compares it.
func wantHistory(t *testing.T, what string, bucket storage.Bucket, dir string, want map[string]string) {
	t.Helper()
	v := storage.NewVolume(bucket, "acme", nil)
	all := ids(t, v)
	for _, id := range all {
		if _, ok := want[id]; !ok {
			t.Fatalf("%s: %s is listed, and was never made", what, id)
		}
		if err := v.Restore(t.Context(), storage.Local{}, dir, id); err != nil {
			t.Fatalf("%s: restore of %s: %v", what, id, err)
		}
		if got := content(t, dir); got != want[id] {
			t.Fatalf("%s: %s holds %q, want %q", what, id, got, want[id])
		}
	}
	if len(all) != len(want) {
		t.Fatalf("%s: %d versions are listed, want %d", what, len(all), len(want))
	}
}

// One bit is changed in every object, at several places. Verify names the object,
// and no Restore gives anything but what was stored.
func TestBitRot(t *testing.T) {
	memory, dir := new(storagetest.Memory), workdir(t)
	want := threeVersions(t, memory, dir)
	v := storage.NewVolume(memory, "acme", nil)
	if found, err := v.Verify(t.Context()); err != nil || len(found.Problems) != 0 || found.Versions != 3 {
		t.Fatalf("before: %+v, %v", found, err)
	}
	var objects []storage.Object
	for o, err := range memory.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
	for _, o := range objects {
		for _, at := range []int64{0, o.Size / 3, o.Size / 2, o.Size - 1} {
			if err := storagetest.FlipByte(t.Context(), memory, o.Key, at); err != nil {
				t.Fatal(err)
			}
			found, err := v.Verify(t.Context())
			named := err != nil && strings.Contains(err.Error(), o.Key)
			if err == nil {
				named = slices.ContainsFunc(found.Problems, func(p storage.Problem) bool {
					return p.Object == o.Key && errors.Is(p.Err, storage.ErrCorrupt)
				})
			}
			if !named {
				t.Errorf("%s, byte %d: Verify found %+v, %v", o.Key, at, found, err)
			}
			for id, state := range want {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				err := v.Restore(t.Context(), storage.Local{}, dir, id)
				if err == nil && content(t, dir) != state {
					t.Errorf("%s, byte %d: %s was restored as %q", o.Key, at, id, content(t, dir))
				}
				if err != nil && !errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("%s, byte %d: %v", o.Key, at, err)
				}
			}
			if err := storagetest.FlipByte(t.Context(), memory, o.Key, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantHistory(t, "mended", memory, dir, want)
}

// A repository of 10,000 files is a few requests, whatever happens to it.
func TestRequests(t *testing.T) {
	dir := workdir(t)
	for i := range 1000 {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", i%100))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for k := range 10 {
			name := filepath.Join(sub, fmt.Sprintf("f%d-%d", i, k))
			if err := os.WriteFile(name, []byte(strings.Repeat(name, 20)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	counted := &storagetest.Faulty{Bucket: new(storagetest.Memory)}
	v := storage.NewVolume(counted, "acme", nil)
	before := 0
	step := func(what string, most int, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if n := counted.Count() - before; n > most {
			t.Errorf("%s took %d requests, want at most %d", what, n, most)
		}
		before = counted.Count()
	}
	first, err := v.Sync(t.Context(), storage.Local{}, dir)
	step("the first sync", 40, err)
	_, err = v.Sync(t.Context(), storage.Local{}, dir)
	step("the second sync", 12, err)
	_, err = v.Sync(t.Context(), storage.Local{}, dir)
	step("a sync of nothing new", 6, err)
	write := filepath.Join(dir, "d000", "f0-0")
	if err := os.WriteFile(write, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = v.Sync(t.Context(), storage.Local{}, dir)
	step("a sync of one file", 8, err)
	step("a restore", 40, v.Restore(t.Context(), storage.Local{}, dir+"-restored", first.ID))
	step("a restore of what is there", 2, v.Restore(t.Context(), storage.Local{}, dir+"-restored", first.ID))
}
