package storagetest_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func TestFaults(t *testing.T) {
	for _, fault := range []storagetest.Fault{storagetest.Fail, storagetest.LoseAnswer, storagetest.Cut} {
		memory := new(storagetest.Memory)
		always := &storagetest.Faulty{Bucket: memory, CutAfter: 2, Plan: func(storagetest.Call) storagetest.Fault { return fault }}
		if err := always.Put(t.Context(), "key", strings.NewReader("text"), nil); !errors.Is(err, storagetest.ErrInjected) {
			t.Errorf("fault %v: Put: %v", fault, err)
		}
		_, err := memory.Stat(t.Context(), "key")
		if stored := fault == storagetest.LoseAnswer; stored != (err == nil) || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("fault %v: after Put: %v", fault, err)
		}
		for _, key := range []string{"key", "other"} {
			if err := memory.Put(t.Context(), key, strings.NewReader("text"), nil); err != nil {
				t.Fatal(err)
			}
		}
		r, err := always.Get(t.Context(), "key", 0, -1)
		var data []byte
		if err == nil {
			data, err = io.ReadAll(r)
			_ = r.Close()
		}
		if !errors.Is(err, storagetest.ErrInjected) || fault == storagetest.Cut && string(data) != "te" {
			t.Errorf("fault %v: Get: %q, %v", fault, data, err)
		}
		if _, err := always.Stat(t.Context(), "key"); !errors.Is(err, storagetest.ErrInjected) {
			t.Errorf("fault %v: Stat: %v", fault, err)
		}
		listed, failed := 0, false
		for _, err := range always.List(t.Context(), "") {
			if failed = errors.Is(err, storagetest.ErrInjected); !failed {
				listed++
			}
		}
		if !failed || (listed == 1) != (fault == storagetest.Cut) {
			t.Errorf("fault %v: List gave %d objects, then an error: %v", fault, listed, failed)
		}
		if err := always.Delete(t.Context(), "key"); !errors.Is(err, storagetest.ErrInjected) {
			t.Errorf("fault %v: Delete: %v", fault, err)
		}
		if calls := always.Calls(); len(calls) != 5 || calls[1] != (storagetest.Call{N: 2, OfOp: 1, Op: storagetest.OpGet, Key: "key"}) {
			t.Errorf("fault %v: calls %+v", fault, calls)
		}
	}
}

func put(t *testing.T, b storage.Bucket, key, text string) {
	t.Helper()
	if err := b.Put(t.Context(), key, strings.NewReader(text), nil); err != nil {
		t.Fatal(err)
	}
}

func read(ctx context.Context, b storage.Bucket, key string) (string, error) {
	r, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	return string(data), errors.Join(err, r.Close())
}

func keys(t *testing.T, b storage.Bucket) (all []string) {
	t.Helper()
	for object, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, object.Key)
	}
	return all
}

func TestFaultReportsTheGivenError(t *testing.T) {
	for _, err := range []error{storagetest.ErrInternal, storagetest.ErrSlowDown, storagetest.ErrTimeout, fs.ErrPermission} {
		b := &storagetest.Faulty{Bucket: new(storagetest.Memory), Plan: storagetest.Every(storagetest.Fail.With(err), storagetest.OpStat)}
		put(t, b, "key", "text")
		_, got := b.Stat(t.Context(), "key")
		if !errors.Is(got, err) || !errors.Is(got, storagetest.ErrInjected) {
			t.Errorf("%v: %v", err, got)
		}
		if b.Injected() != 1 || b.Count() != 2 || b.Count(storagetest.OpStat, storagetest.OpGet) != 1 {
			t.Errorf("%d of %d calls", b.Injected(), b.Count())
		}
	}
	if !errors.Is(storagetest.ErrTimeout, os.ErrDeadlineExceeded) {
		t.Error("ErrTimeout is no timeout")
	}
}

func TestCrashEndsEverything(t *testing.T) {
	memory := new(storagetest.Memory)
	b := &storagetest.Faulty{Bucket: memory, Plan: storagetest.Crash(3, storagetest.LoseAnswer.With(storagetest.ErrTimeout))}
	put(t, b, "one", "1")
	open, err := b.Get(t.Context(), "one", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "two", strings.NewReader("2"), nil); !errors.Is(err, storagetest.ErrTimeout) {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(open); !errors.Is(err, storagetest.ErrTimeout) {
		t.Errorf("a stream that was open: %v", err)
	}
	if err := b.Put(t.Context(), "three", strings.NewReader("3"), nil); !errors.Is(err, storagetest.ErrTimeout) {
		t.Errorf("a later call: %v", err)
	}
	if got := keys(t, memory); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("the bucket holds %q", got)
	}
	if b.Injected() != 2 {
		t.Errorf("%d calls had a fault", b.Injected())
	}
	b = &storagetest.Faulty{Bucket: memory}
	b.Crash(nil)
	if _, err := b.Stat(t.Context(), "one"); !errors.Is(err, storagetest.ErrInjected) {
		t.Errorf("Stat after Crash: %v", err)
	}
}

func TestStaleListLacksTheNewestChanges(t *testing.T) {
	b := &storagetest.Faulty{Bucket: new(storagetest.Memory), Lag: 3, Plan: storagetest.NthOf(storagetest.OpList, 1, storagetest.Stale)}
	for _, key := range []string{"a", "b", "c"} {
		put(t, b, key, "old")
	}
	put(t, b, "a", "longer")
	if err := b.Delete(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	put(t, b, "d", "new")
	var got []string
	for object, err := range b.List(t.Context(), "") {
		if err != nil || object.Size != 3 {
			t.Errorf("%+v, %v", object, err)
		}
		got = append(got, object.Key)
	}
	if !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("stale: %q", got)
	}
	if got := keys(t, b); !slices.Equal(got, []string{"a", "c", "d"}) {
		t.Errorf("then: %q", got)
	}
}

func TestFlip(t *testing.T) {
	memory := new(storagetest.Memory)
	b := &storagetest.Faulty{Bucket: memory, Plan: storagetest.First("", 2, storagetest.Flip.After(1))}
	put(t, b, "key", "0000")
	if got, err := read(t.Context(), memory, "key"); err != nil || got != "0100" {
		t.Errorf("stored %q, %v", got, err)
	}
	if got, err := read(t.Context(), b, "key"); err != nil || got != "0000" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := storagetest.FlipByte(t.Context(), memory, "key", -1); err != nil {
		t.Fatal(err)
	}
	if err := storagetest.Truncate(t.Context(), memory, "key", 3); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t.Context(), b, "key"); err != nil || got != "010" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, err := range []error{
		storagetest.FlipByte(t.Context(), memory, "key", 3), storagetest.FlipByte(t.Context(), memory, "key", -4),
		storagetest.Truncate(t.Context(), memory, "key", 3), storagetest.Truncate(t.Context(), memory, "key", -1),
	} {
		if !errors.Is(err, fs.ErrInvalid) {
			t.Error(err)
		}
	}
}

func TestFaultsHaveNames(t *testing.T) {
	for fault, want := range map[storagetest.Fault]string{
		storagetest.None:                            "none",
		storagetest.Cut.After(7):                    "cut after 7 bytes",
		storagetest.Fail.With(fs.ErrExist).Crash():  "fail with file already exists and crash",
		storagetest.LoseAnswer.With(fs.ErrNotExist): "lose answer with file does not exist",
	} {
		if fault.String() != want {
			t.Errorf("%q, want %q", fault, want)
		}
	}
}
