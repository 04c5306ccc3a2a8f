package storage_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// TestBitRot flips bytes of every object, all over it, and shortens and removes it.
// Verify names the object and the versions, and what is read is either whole or
// an error.
func TestBitRot(t *testing.T) {
	h := newHistory(t)
	for n := range 3 {
		h.must(n)
	}
	all := ids(t, storage.NewVolume(h.memory, "acme", nil))
	for _, key := range keysOf(t, h.memory, "") {
		o, err := h.memory.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		damage := []func(b storage.Bucket) error{
			func(b storage.Bucket) error { return b.Delete(context.Background(), key) },
		}
		for _, size := range []int64{0, 1, o.Size / 2, o.Size - 1} {
			damage = append(damage, func(b storage.Bucket) error { return storagetest.Truncate(context.Background(), b, key, size) })
		}
		for at := int64(0); at < o.Size; at += 1 + o.Size/150 {
			damage = append(damage, func(b storage.Bucket) error { return storagetest.FlipByte(context.Background(), b, key, at) })
		}
		for n, do := range damage {
			b := new(storagetest.Memory)
			copyAll(t, h.memory, b)
			if err := do(b); err != nil {
				t.Fatal(err)
			}
			if n == 0 && strings.Contains(key, "/_versions/") {
				continue // a version whose record was removed is none
			}
			checkDamage(t, h, b, key, all)
		}
	}
}

func checkDamage(t *testing.T, h *history, b storage.Bucket, key string, all []string) {
	t.Helper()
	v := storage.NewVolume(b, "acme", nil)
	found, err := v.Verify(t.Context())
	if err != nil || len(found.Problems) != 1 || found.Problems[0].Object != key || !errors.Is(found.Problems[0].Err, storage.ErrCorrupt) && !errors.Is(found.Problems[0].Err, errors.ErrUnsupported) {
		t.Fatalf("%s: Verify: %+v, %v", key, found, err)
	}
	broken := found.Problems[0].Versions
	if len(broken) == 0 && !strings.Contains(key, "/_versions/") {
		t.Fatalf("%s: Verify names no version", key)
	}
	for i, id := range all {
		fsys, err := v.FS(t.Context(), id)
		if err == nil {
			err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				data, err := fs.ReadFile(fsys, name)
				if err == nil && string(data) != files(2 - i)[name] {
					t.Fatalf("%s: version %s is given with other contents of %s", key, id, name)
				}
				return err
			})
		}
		if err != nil && (!errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), key)) {
			t.Fatalf("%s: %v", key, err)
		}
		if err != nil && len(broken) > 0 && !slices.Contains(broken, id) {
			t.Fatalf("%s: Verify does not name %s: %v", key, id, err)
		}
	}
}

func TestVerifyCounts(t *testing.T) {
	h := newHistory(t)
	for n := range 3 {
		h.must(n)
	}
	found, err := storage.NewVolume(h.memory, "acme", nil).Verify(t.Context())
	if err != nil || found.Versions != 3 || found.Objects != len(keysOf(t, h.memory, "")) || found.Bytes == 0 || len(found.Problems) != 0 {
		t.Errorf("%+v, %v", found, err)
	}
	for n := 1; ; n++ {
		faulty := &storagetest.Faulty{Bucket: h.memory, Plan: storagetest.Nth(n, storagetest.Fail)}
		_, err := storage.NewVolume(faulty, "acme", nil).Verify(t.Context())
		if faulty.Injected() == 0 {
			return
		}
		if record := faulty.Calls()[n-1]; err == nil && !strings.Contains(record.Key, "/_versions/") || err != nil && !errors.Is(err, storagetest.ErrInjected) {
			t.Errorf("request %d, %+v, fails: %v", n, record, err)
		}
	}
}
