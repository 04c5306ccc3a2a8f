package storagetest_test

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func TestFaults(t *testing.T) {
	for _, fault := range []storagetest.Fault{storagetest.Fail, storagetest.LoseAnswer, storagetest.Cut} {
		memory := new(storagetest.Memory)
		always := &storagetest.Faulty{Bucket: memory, CutAfter: 2, Plan: func(storagetest.Call) storagetest.Fault { return fault }}
		if err := always.Put(t.Context(), "key", strings.NewReader("text"), nil); !errors.Is(err, storagetest.ErrInjected) {
			t.Errorf("fault %d: Put: %v", fault, err)
		}
		_, err := memory.Stat(t.Context(), "key")
		if stored := fault == storagetest.LoseAnswer; stored != (err == nil) || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("fault %d: after Put: %v", fault, err)
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
			t.Errorf("fault %d: Get: %q, %v", fault, data, err)
		}
		if _, err := always.Stat(t.Context(), "key"); !errors.Is(err, storagetest.ErrInjected) {
			t.Errorf("fault %d: Stat: %v", fault, err)
		}
		listed, failed := 0, false
		for _, err := range always.List(t.Context(), "") {
			if failed = errors.Is(err, storagetest.ErrInjected); !failed {
				listed++
			}
		}
		if !failed || (listed == 1) != (fault == storagetest.Cut) {
			t.Errorf("fault %d: List gave %d objects, then an error: %v", fault, listed, failed)
		}
		if err := always.Delete(t.Context(), "key"); !errors.Is(err, storagetest.ErrInjected) {
			t.Errorf("fault %d: Delete: %v", fault, err)
		}
		if calls := always.Calls(); len(calls) != 5 || calls[1] != (storagetest.Call{N: 2, Op: storagetest.OpGet, Key: "key"}) {
			t.Errorf("fault %d: calls %+v", fault, calls)
		}
	}
}
